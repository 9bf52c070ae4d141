# SPDX-License-Identifier: Apache-2.0
"""Where a device keeps what it would otherwise work out again: verdicts on engines and delegates."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from edgefl.errors import DataError
from edgefl.files import write_atomically
from edgefl.strictjson import canonical, parse

log = logging.getLogger("edgefl.caches")
VARIABLE = "EDGEFL_CACHE"
MAX_BYTES = 1 << 20


def cache_folder() -> Path:
    """The folder that `EDGEFL_CACHE` names, else the system's place for caches; it may not exist yet."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform in ("darwin", "ios"):
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(base)) / "edgefl"


def load_json(*parts: str) -> Any | None:
    """What `save_json` kept under these path parts; None where there is nothing, or nothing readable."""
    file = cache_folder().joinpath(*parts)
    try:
        if file.stat().st_size > MAX_BYTES:
            return None
        return parse(file.read_bytes(), DataError, str(file))
    except (OSError, DataError):
        return None


def save_json(value: object, *parts: str) -> None:
    """Keep a value of plain types; where the folder cannot be written it is only logged."""
    file = cache_folder().joinpath(*parts)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, canonical(value))
    except OSError as exc:
        log.info("nothing is kept in %s: %s", file.parent, exc)
