# SPDX-License-Identifier: Apache-2.0
"""The process a delegate is tried in: `python -m edgefl.runtime.delegates.probe JOB`, where JOB is a folder.

The folder holds `job.json` and, for a trial, `bundle.edgefl`; `stage` says how far things are, `verdict.json`
what came of it. Only a clean end leaves a verdict.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgefl.bundle import Bundle
from edgefl.errors import BackendError
from edgefl.runtime.delegates.choice import Choice, Verdict
from edgefl.runtime.delegates.trial import open_choice, try_choice

JOB, BUNDLE, STAGE, VERDICT = "job.json", "bundle.edgefl", "stage", "verdict.json"
LOADING = "loading"
"""In place of an artifact's kind: only see whether the delegate loads."""


def main(folder: Path) -> int:
    """Try what the job says; 0 where there is a verdict."""
    _without_core_dumps()
    job: dict[str, Any] = json.loads((folder / JOB).read_text())
    choice = choice_of(job["choice"])
    try:
        verdict = _run(folder, job, choice)
    except BackendError as exc:
        verdict = Verdict(choice.name, job["kind"], "refused", str(exc))
    (folder / VERDICT).write_text(json.dumps(asdict(verdict)))
    sys.stdout.flush()
    # A delegate's clean-up is not waited for: the verdict is there, and exits are where drivers like to hang.
    os._exit(0)


def _without_core_dumps() -> None:
    # A crash is a result here, no reason to fill a device's disk.
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _run(folder: Path, job: dict[str, Any], choice: Choice) -> Verdict:
    def stage(name: str) -> None:
        (folder / STAGE).write_text(name)

    if job["kind"] == LOADING:
        stage("load")
        open_choice(choice, job["threads"]).check()
        return Verdict(choice.name, LOADING, "right", "loads")
    return try_choice(Bundle.open(folder / BUNDLE), job["kind"], choice, job["threads"], stage)


def choice_of(row: dict[str, Any]) -> Choice:
    """A choice as JSON keeps it."""
    return Choice(**{**row, "options": tuple((key, value) for key, value in row["options"])})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
