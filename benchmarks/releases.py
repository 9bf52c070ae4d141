# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.releases`: the models' steps on the oldest and newest release of each engine allowed.

An engine's optimizer may compute a right file wrongly, in some releases and not in others. So each model's
step runs on each release with the optimizer on and off, and its loss and gradients are held against the step
computed by NumPy in float64. Releases are installed from the package index into environments of their own,
kept in `--folder`. A loss may be off by `LOSS`, a gradient by `GRADIENT` of its norm, or by `SPARE` times
what NumPy itself is off by in float32; what is further off is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.codec import machine
from benchmarks.tables import between, markdown
from edgefl.bundle import Bundle
from edgefl.errors import EdgeflError
from edgefl.graph import read_onnx, run
from tests.models.double import in_double
from tests.models.norms import FLOOR, GRADIENT, gradient_errors

RESULT = Path(__file__).parent / "results" / "releases.json"
DOCS = Path(__file__).parents[1] / "docs" / "models.md"
PROJECT = Path(__file__).parents[1] / "pyproject.toml"
WORKER = Path(__file__).parent / "releases_worker.py"
FILES = {
    "onnxruntime": (("onnx", "step"),),
    "openvino": (("onnx", "step"), ("onnx", "step-channels-last")),
    "ai-edge-litert": (("tflite", "step"),),
    "tflite-runtime": (("tflite", "step"),),
}
"""Distribution to the artifacts it may be given."""

MORE = {"onnxruntime": ("1.19.2",)}
"""Releases between oldest and newest that were wrong once: 1.19 and 1.20 about padded average pools."""

NUMPY_1 = "numpy==1.26.4"
"""What engines of before 2024's end were built for, whatever they say."""

LOSS, SPARE, BATCH, LIMIT_S = 1e-6, 10.0, 4, 900

Errors = tuple[float, float]
"""Relative error of the loss, largest error of a gradient."""


@dataclass(frozen=True)
class Release:
    """A release of an engine: its version, empty for the newest, and what Python runs it."""

    engine: str
    version: str
    python: Path


def oldest(engine: str) -> tuple[str, bool]:
    """The oldest release that edgefl asks for, such as `1.17`, and whether it is the only one."""
    found = re.search(rf'"{re.escape(engine)}(>=|==)([\d.]+)', PROJECT.read_text("utf-8"))
    if found is None:
        raise ValueError(f"{engine} is none of edgefl's requirements")
    return found[2], found[1] == "=="


def wanted(engines: Sequence[str]) -> list[tuple[str, str]]:
    """Engines with versions to run, the newest as an empty one; where only one is allowed, that one."""
    pairs = []
    for engine in engines:
        name, _, version = engine.partition("==")
        if version:
            pairs.append((name, version))
            continue
        first, only = oldest(name)
        pairs += [(name, v) for v in (first, *MORE.get(name, ()), *([] if only else [""]))]
    return pairs


def install(engine: str, version: str, folder: Path) -> Release:
    """An environment with the release and NumPy, made unless it is there.

    Raises:
        RuntimeError: pip cannot install it.
    """
    place = folder / f"{engine}-{version or 'newest'}"
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = place / "ready"
    if not done.exists():
        venv.create(place, with_pip=True, clear=True)
        packages = [f"{engine}=={version}" if version else engine, NUMPY_1 if version else "numpy"]
        made = subprocess.run(
            [python, "-m", "pip", "install", "-q", *packages], capture_output=True, text=True
        )
        if made.returncode:
            raise RuntimeError(f"{' '.join(packages)}: {made.stderr.strip()[-300:]}")
        done.touch()
    return Release(engine, version, python)


def compare(bundle: Bundle, releases: Sequence[Release]) -> dict[str, Any]:
    """A bundle's errors by release, artifact and mode, beside NumPy's own in float32."""
    feeds = {**bundle.golden(), **bundle.parameters()}
    graph = read_onnx(bundle.artifact("onnx", "step"))
    feeds = {name: np.asarray(feeds[name], type.dtype) for name, type in graph.inputs.items()}
    double = in_double(graph)
    truth = run(double, {n: v.astype(double.inputs[n].dtype) for n, v in feeds.items()})
    rows: dict[str, Any] = {"numpy": _row(errors(run(graph, feeds), truth), (0.0, 0.0))}
    own = rows["numpy"]["loss"], rows["numpy"]["gradient"]
    for release in releases:
        for target, kind in FILES[release.engine]:
            artifact = bundle.manifest.find(target, kind)
            if artifact is None:
                continue
            ran = _ran(release, bundle.artifact(target, kind), feeds, artifact.inputs, artifact.outputs)
            for mode, found in ran.items():
                title = f"{release.engine} {release.version or 'newest'}, {kind}, {mode}"
                rows[title] = found if isinstance(found, dict) else _row(errors(found[0], truth), own)
    return rows


def errors(found: Mapping[str, Any], truth: Mapping[str, Any]) -> Errors:
    """How far outputs are from the truth."""
    gradients = {n: v for n, v in truth.items() if n.startswith("grad/")}
    loss = abs(float(found["loss"]) - float(truth["loss"])) / max(abs(float(truth["loss"])), 1e-12)
    off = gradient_errors(
        {n: np.asarray(found[n]).reshape(v.shape) for n, v in gradients.items()}, gradients, FLOOR
    )
    worst = max(off.values())
    return loss, worst if np.isfinite(worst) else float("inf")


def _row(found: Errors, own: Errors) -> dict[str, Any]:
    loss, gradient = found
    right = loss <= max(LOSS, SPARE * own[0]) and gradient <= max(GRADIENT, SPARE * own[1])
    return {"loss": loss, "gradient": gradient, "right": right}


def _ran(
    release: Release,
    data: bytes,
    feeds: Mapping[str, Any],
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
) -> dict[str, Any]:
    """Mode to its outputs by contract name, in a tuple, or to a reason."""
    own = {mine: name for name, mine in outputs.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "file").write_bytes(data)
        np.savez(folder / "feeds.npz", **{inputs.get(n, n): v for n, v in feeds.items()})
        command = [release.python, WORKER, release.engine, folder / "file", folder / "feeds.npz", folder]
        try:
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=LIMIT_S)
            reasons = json.loads(done.stdout.splitlines()[-1])["reasons"]
        except (subprocess.TimeoutExpired, ValueError, IndexError) as exc:
            return {"on": {"reason": f"the engine stopped: {str(exc)[-200:]}", "right": False}}
        rows: dict[str, Any] = {m: {"reason": reason, "right": False} for m, reason in reasons.items()}
        for path in sorted(folder.glob("*.npz")):
            if path.stem != "feeds":
                rows[path.stem] = ({own.get(n, n): v for n, v in np.load(path).items()},)
        return rows


def convert(name: str, path: Path) -> None:
    """Write a model's bundle."""
    import edgefl
    from tests.models.zoo import BY_NAME

    entry = BY_NAME[name]
    edgefl.convert(entry.build(), entry.example_inputs(), loss=entry.loss, batch_size=BATCH, name=name).save(
        path
    )


def measure(names: Sequence[str], releases: Sequence[Release], bundles: Path) -> dict[str, dict[str, Any]]:
    """Model to its rows; bundles that are there already are taken as they are."""
    table = {}
    for number, name in enumerate(names, 1):
        print(f"{number}/{len(names)} {name}", file=sys.stderr, flush=True)
        path = bundles / f"{name}.edgefl"
        if not path.exists():
            command = [sys.executable, "-m", "benchmarks.releases", "--convert", name, str(path)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        try:
            table[name] = compare(Bundle.open(path), releases)
        except EdgeflError as exc:
            table[name] = {"numpy": {"reason": str(exc), "right": False}}
    return table


def show(table: Mapping[str, Mapping[str, Any]]) -> str:
    """A line per release, artifact and mode: models that are right, the largest errors, which are wrong."""
    ways = dict.fromkeys(way for rows in table.values() for way in rows)
    lines = []
    for way in ways:
        rows = {name: r[way] for name, r in table.items() if way in r}
        known = {name: r for name, r in rows.items() if "loss" in r}
        wrong = [f"{name} {_amount(r)}" for name, r in rows.items() if not r["right"]]
        largest = [f"{max((r[key] for r in known.values()), default=0):.0e}" for key in ("loss", "gradient")]
        lines.append([way, f"{len(rows) - len(wrong)} of {len(rows)}", *largest, ", ".join(wrong) or "-"])
    return markdown(["engine, artifact, optimizer", "right", "loss", "gradient", "wrong"], lines)


def _amount(row: Mapping[str, Any]) -> str:
    return f"({row['reason']})" if "reason" in row else f"({row['loss']:.0e}, {row['gradient']:.0e})"


def main() -> int:
    """Measure, print the table, keep the rows; 1 where a model is wrong somewhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", help="names with commas between; all of tests/models/zoo.py if left out")
    parser.add_argument("--engines", default=",".join(FILES), help="names, alone or as NAME==VERSION")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "edgefl-releases")
    parser.add_argument("--keep", action="store_true", help="write benchmarks/results and docs/models.md")
    parser.add_argument("--convert", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.convert:
        convert(options.convert[0], Path(options.convert[1]))
        return 0
    from tests.models.zoo import BY_NAME

    bundles = options.folder / "bundles"
    bundles.mkdir(parents=True, exist_ok=True)
    releases = [install(*pair, options.folder) for pair in wanted(options.engines.split(","))]
    names = options.models.split(",") if options.models else list(BY_NAME)
    table = measure(names, releases, bundles)
    print(show(table))
    if options.keep:
        when, processor = date.today().isoformat(), machine()
        report = {"date": when, "machine": processor, "models": table}
        RESULT.write_text(json.dumps(report, indent=1) + "\n")
        told = f"{when}, {processor['processor']}, one thread, batches of {BATCH}."
        DOCS.write_text(between(DOCS.read_text(), "releases", f"{told}\n\n{show(table)}"))
    return int(any(not row["right"] for rows in table.values() for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
