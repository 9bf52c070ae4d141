# SPDX-License-Identifier: Apache-2.0
"""Vectors that every host of the runtime replays: the same bytes here, on a phone, and in other languages.

A folder of vectors has `index.json` and the files it names:

- `packs`: tensors as JSON, and the file `edgefl.tensorfile` writes for them.
- `refused`: files that are no tensors.
- `frames`: a difference as tensors, options, and the frame the codec makes of it.
- `files`: a file of a bundle for some target, what it is fed with by contract names, and what it gives.
- `rounds`: a bundle, examples, settings, a script of readings, and the frame or the reason for none. Frames
  are compared by what they carry, since compressors differ.

Results of files and moves of rounds are compared as parts of the largest: NumPy's within 1e-6, since
processors sum in other orders, and other engines' within `tolerance`. An engine is given the files of its own
target.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgefl._version import __version__
from edgefl.bundle import Bundle
from edgefl.delta import decode_delta, encode_delta
from edgefl.errors import DataError, TensorFileError
from edgefl.runtime.host.doubles import NumpyEngine, ScriptedPhone
from edgefl.runtime.host.engine import HostBackend, HostEngine
from edgefl.runtime.host.entry import run_round
from edgefl.runtime.host.examples import FILE
from edgefl.tensorfile import DTYPES, read_tensors, write_tensors

INDEX = "index.json"
_KERNELS = 1e-6


@dataclass(frozen=True)
class Result:
    """What became of one vector; `wrong` is empty where it was as expected."""

    kind: str
    name: str
    wrong: str


def replay(vectors: Path, engine: HostEngine | None = None) -> tuple[Result, ...]:
    """Replay every vector; rounds on NumPy, and once more on an app's engine.

    Raises:
        DataError: the folder is not one of vectors.
    """
    index = _index(vectors)
    found = [_tried("pack", row["name"], partial(_pack, vectors, row)) for row in index["packs"]]
    found += [_tried("refused", name, partial(_refused, vectors / name)) for name in index["refused"]]
    found += [_tried("frame", row["name"], partial(_frame, vectors, row)) for row in index["frames"]]
    for row in index["files"]:
        for one, tolerance in ((NumpyEngine(), _KERNELS), (engine, row["tolerance"])):
            if one is not None and row["target"] == _target(one):
                found.append(_tried("file", row["name"], partial(_file, vectors, row, one, tolerance)))
    for row in index["rounds"]:
        found.append(_tried("round", row["name"], partial(_round, vectors, row, NumpyEngine(), _KERNELS)))
        if engine is not None:
            check = partial(_round, vectors, row, engine, row["tolerance"])
            found.append(_tried("round on the engine", row["name"], check))
    return tuple(found)


def _index(vectors: Path) -> dict[str, list[Any]]:
    try:
        index = json.loads((vectors / INDEX).read_text())
        return {name: list(index[name]) for name in ("packs", "refused", "frames", "files", "rounds")}
    except (OSError, ValueError, LookupError, TypeError) as exc:
        raise DataError(f"{vectors} is no folder of vectors: {exc}") from exc


def self_test(vectors: str, engine: HostEngine) -> str:
    """Replay the vectors on this device; a report in Markdown, to be pasted into an issue."""
    results = replay(Path(vectors), engine)
    wrong = [result for result in results if result.wrong]
    lines = [
        f"### edgefl {__version__}: {len(results) - len(wrong)} of {len(results)} vectors as expected",
        "",
        f"{platform.platform()}, {platform.machine()}, Python {sys.version.split()[0]}, "
        f"NumPy {np.__version__}, engine {engine.describe()}",
        "",
        "| vector | result |",
        "|---|---|",
        *(f"| {r.kind}: {r.name} | {r.wrong or 'as expected'} |" for r in results),
    ]
    return "\n".join(lines) + "\n"


def _tried(kind: str, name: str, check: Callable[[], str]) -> Result:
    try:
        return Result(kind, name, check())
    except Exception as exc:  # a report of everything is worth more than the first surprise
        return Result(kind, name, f"{type(exc).__name__}: {exc}")


def _pack(vectors: Path, row: dict[str, Any]) -> str:
    tensors = {t["name"]: _tensor(t) for t in row["tensors"]}
    expected = (vectors / row["file"]).read_bytes()
    if write_tensors(tensors) != expected:
        return "other bytes are written"
    return "" if write_tensors(read_tensors(expected)) == expected else "other tensors are read"


def _tensor(row: dict[str, Any]) -> Any:
    data = bytes.fromhex(row["hex"])
    return np.frombuffer(data, DTYPES[row["dtype"]]).reshape(row["shape"])


def _refused(file: Path) -> str:
    try:
        read_tensors(file.read_bytes())
    except TensorFileError:
        return ""
    return "it is taken for tensors"


def _frame(vectors: Path, row: dict[str, Any]) -> str:
    delta = read_tensors((vectors / row["delta"]).read_bytes())
    frame = encode_delta(delta, None, rng=np.random.default_rng(row["seed"]), **row["options"])
    return "" if frame == (vectors / row["file"]).read_bytes() else "other bytes are written"


def _target(engine: HostEngine) -> str:
    return str(json.loads(str(engine.describe()))["target"])


def _file(vectors: Path, row: dict[str, Any], engine: HostEngine, tolerance: float) -> str:
    feeds, wanted = (read_tensors((vectors / row[name]).read_bytes()) for name in ("feeds", "results"))
    with tempfile.TemporaryDirectory() as folder:
        program = HostBackend(engine, Path(folder)).load(Bundle.open(vectors / row["bundle"]), row["kind"])
        made = program(feeds)
    off = {
        name: float(np.abs(made[name] - value).max() / np.abs(value).max()) for name, value in wanted.items()
    }
    worst = max(off, key=off.__getitem__)
    return "" if off[worst] <= tolerance else f"{worst} is off by {off[worst]:.2g} of its largest element"


def _round(vectors: Path, row: dict[str, Any], engine: HostEngine, tolerance: float) -> str:
    phone = ScriptedPhone(*row["readings"])
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(vectors / row["examples"], Path(folder) / FILE)
        bundle = vectors / row["bundle"]
        frame = run_round(str(bundle), folder, engine, phone, json.dumps(row["settings"]))
    if not row["file"]:
        told = [event["reason"] for event in phone.events if event["event"] == "paused"]
        return "" if not frame and told == row["reasons"] else f"not paused: {told}"
    opened = Bundle.open(bundle)
    made, wanted = (decode_delta(one, opened) for one in (frame, (vectors / row["file"]).read_bytes()))
    error = max(float(np.abs(made[name] - wanted[name]).max()) for name in wanted)
    size = max(float(np.abs(value).max()) for value in wanted.values())
    return "" if error <= tolerance * size else f"off by {error / size:.2g} of the largest move"
