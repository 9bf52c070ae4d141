# SPDX-License-Identifier: Apache-2.0
"""Verdicts kept on disk, per device, bundle and versions, and renewed where time may mend the cause."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from dataclasses import asdict
from typing import Any

from edgefl._version import __version__
from edgefl.bundle import Bundle
from edgefl.bundle.manifest import ALSO
from edgefl.runtime.caches import load_json, save_json
from edgefl.runtime.delegates.choice import Choice, Verdict
from edgefl.strictjson import canonical

OWN_STEP = "training"
"""In place of an artifact's kind: a step of an engine whose update rule is its own."""

_FOLDER = "verdicts"
_RETRY_S = {"refused": 3600.0, "crashed": 86400.0, "hung": 86400.0, "untried": 0.0}
"""After so long a delegate is tried again: devices are plugged in, drivers repaired."""


def recall(
    bundle: Bundle, kind: str, choice: Choice, threads: int, version: str, target: str = ""
) -> Verdict | None:
    """The verdict kept from an earlier trial of the same thing on this device, None where one is due.

    Args:
        target: whose artifacts the engine runs, where that is not its name.
    """
    row = load_json(_FOLDER, _name(bundle, kind, choice, threads, version, target))
    try:
        if not isinstance(row, dict):
            return None
        age = time.time() - float(row.pop("at"))
        verdict = Verdict(**row)
    except (KeyError, TypeError, ValueError):
        return None
    return None if not 0 <= age < _RETRY_S.get(verdict.state, float("inf")) else verdict


def keep(
    verdict: Verdict, bundle: Bundle, choice: Choice, threads: int, version: str, target: str = ""
) -> None:
    """Keep a verdict for the next start."""
    row = {**asdict(verdict), "at": time.time()}
    save_json(row, _FOLDER, _name(bundle, verdict.graph, choice, threads, version, target))


def _name(bundle: Bundle, kind: str, choice: Choice, threads: int, version: str, target: str) -> str:
    """Everything a verdict depends on, as a file name."""
    files = bundle.manifest.files
    target = target or choice.engine
    graphs = [a for a in bundle.manifest.artifacts if a.target in (target, *ALSO.get(target, ()))]
    subject = {
        "edgefl": __version__,
        "kind": kind,
        "engine": version,
        "choice": asdict(choice),
        "library": _identity(choice.library),
        "graphs": [a.sha256 for a in graphs if kind == OWN_STEP or a.kind in (kind, f"{kind}-channels-last")],
        "truth": [files[key].sha256 for key in ("golden", "proof" if "proof" in files else "parameters")],
        "threads": threads,
        "machine": [platform.node(), platform.machine(), platform.system(), platform.release()],
    }
    return hashlib.blake2b(canonical(subject), digest_size=16).hexdigest() + ".json"


def _identity(library: str) -> list[Any]:
    try:
        found = os.stat(library)
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ino]
