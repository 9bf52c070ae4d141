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
from edgefl.runtime.caches import load_json, save_json
from edgefl.runtime.delegates.choice import Choice, Verdict
from edgefl.strictjson import canonical

_FOLDER = "verdicts"
_RETRY_S = {"refused": 3600.0, "crashed": 86400.0, "hung": 86400.0, "untried": 0.0}
"""After so long a delegate is tried again: devices are plugged in, drivers repaired."""


def recall(bundle: Bundle, kind: str, choice: Choice, threads: int, version: str) -> Verdict | None:
    """The verdict kept from an earlier trial of the same thing on this device, None where one is due."""
    row = load_json(_FOLDER, _name(bundle, kind, choice, threads, version))
    try:
        if not isinstance(row, dict):
            return None
        age = time.time() - float(row.pop("at"))
        verdict = Verdict(**row)
    except (KeyError, TypeError, ValueError):
        return None
    return None if not 0 <= age < _RETRY_S.get(verdict.state, float("inf")) else verdict


def keep(verdict: Verdict, bundle: Bundle, choice: Choice, threads: int, version: str) -> None:
    """Keep a verdict for the next start."""
    row = {**asdict(verdict), "at": time.time()}
    save_json(row, _FOLDER, _name(bundle, verdict.graph, choice, threads, version))


def _name(bundle: Bundle, kind: str, choice: Choice, threads: int, version: str) -> str:
    """Everything a verdict depends on, as a file name."""
    artifact = bundle.manifest.find(choice.engine, kind)
    subject = {
        "edgefl": __version__,
        "engine": version,
        "choice": asdict(choice),
        "library": _identity(choice.library),
        "artifact": artifact.entry.sha256 if artifact else "",
        "golden": bundle.manifest.files["golden"].sha256,
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
