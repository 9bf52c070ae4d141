# SPDX-License-Identifier: Apache-2.0
"""Which delegates this machine has, found without loading any."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import replace
from pathlib import Path

from edgefl.runtime.delegates.choice import Choice
from edgefl.runtime.delegates.registry import Known, Wish, extra_libraries, known, library_choice

_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PATH")
_FOLDERS = (
    "/usr/lib",
    "/usr/local/lib",
    "/lib",
    "/usr/lib64",
    "/opt/homebrew/lib",
    "/vendor/lib64",
    "/vendor/lib",
    "/system/lib64",
    "/data/local/tmp",
)


def find_library(names: tuple[str, ...]) -> str:
    """Path of the first of these files on the library path or in a system folder, empty where none is."""
    for name in names:
        for folder in _folders():
            if (folder / name).is_file():
                return str(folder / name)
    return ""


def candidates(engine: str, providers: tuple[str, ...], kind: str) -> tuple[Choice, ...]:
    """What `auto` tries for a graph, in order of preference: everything present that takes such graphs.

    Args:
        providers: what the installed onnxruntime was built with; empty for TFLite.
        kind: the artifact's kind; accelerators for integers are only offered int8 graphs.
    """
    found = []
    for row in known(engine):
        if row.integers_only and not kind.endswith("-int8"):
            continue
        if (choice := present(row, providers)) is not None:
            found.append(choice)
    mine = [library_choice(wish) for wish in extra_libraries() if engine in wish.engines]
    return (*mine, *found)


def present(row: Known, providers: tuple[str, ...]) -> Choice | None:
    """How to ask for a registry's row, None where the machine has nothing of the kind."""
    if row.provider:
        return row.choice() if row.provider in providers else None
    if not row.libraries:
        return row.choice()
    library = find_library(row.libraries)
    return row.choice(library) if library else None


def wished(wish: Wish, engine: str, providers: tuple[str, ...]) -> Choice | str:
    """What a user named, or why the machine does not have it."""
    if wish.is_library:
        return library_choice(wish)
    row = next(row for row in known(engine) if row.name == wish.name)
    choice = present(row, providers)
    if choice is None:
        return f"{absence(row)}: {row.advice}"
    return replace(choice, options=wish.options or choice.options)


def absence(row: Known) -> str:
    """Why a registry's row is not here."""
    if row.provider:
        return f"this onnxruntime was built without {row.provider}"
    return f"no {row.libraries[0]} on the library path"


def _folders() -> list[Path]:
    named = [part for v in _VARIABLES for part in os.environ.get(v, "").split(os.pathsep) if part]
    machine = f"{platform.machine()}-linux-gnu" if sys.platform.startswith("linux") else ""
    system = [*_FOLDERS, *((f"/usr/lib/{machine}", f"/lib/{machine}") if machine else ())]
    return [Path(part) for part in (*named, *system)]
