# SPDX-License-Identifier: Apache-2.0
"""What a conversion decided, for people: what is trained, where the model is cut, what a step costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefl.cli.output import print_line, print_rows, size

if TYPE_CHECKING:
    from edgefl.bundle import Bundle, Manifest

_SHOWN = 6


def print_report(bundle: Bundle, path: Path) -> None:
    """The trainability report of a bundle just written."""
    manifest = bundle.manifest
    report = manifest.report
    print_line(f"{path}: {size(path.stat().st_size)}, {_losses(manifest)}, batches of {manifest.batch_size}")
    print_line(", ".join(_sources(manifest)))
    rows = [(role, t["tensors"], t["elements"], size(t["nbytes"])) for role, t in _roles(report)]
    print_rows("Parameters", ["role", "tensors", "elements", "size"], rows)
    print_line(f"Trained     {_some(report['trained'])}")
    print_line(f"Cut         {_cut(report)}")
    print_line(f"Memory      {_memory(report['memory'])}")
    for key, title in (("layers", "Layers"), ("batch_norm", "BatchNorm"), ("dropout", "Dropout")):
        if key in manifest.provenance:
            print_line(f"{title:12}{manifest.provenance[key]}")
    print_line(f"Update      {size(4 * bundle.schema().size)} as dense float32, before it is made sparse")
    rows_of_graphs = list(_graphs(manifest))
    print_rows("Graphs", ["graph", "ONNX", "TFLite", "transposes", "operators"], rows_of_graphs)
    runs = [
        (target, row["trains"], ", ".join(row["graphs"]), row["engines"])
        for target, row in report.get("runs", {}).items()
    ]
    print_rows("What runs it", ["target", "trains", "graphs", "engines"], runs)
    print_line(f"Proved      {proved_on(report)}")
    if "int8" in report:
        print_int8(report["int8"])
    for note in report.get("notes", ()):
        print_line(f"Note: {note}")


def print_proof(report: Mapping[str, Any]) -> None:
    """Which engine was right on which files when the bundle was made."""
    rows = [
        (r["engine"], r["delegate"], r["target"], ", ".join(r["right"]), _not(r["not"]))
        for r in report.get("proof", {}).get("engines", ())
    ]
    if not rows:
        print_line(f"Proved      {proved_on(report)}")
        return
    print_rows("Proved when it was made", ["engine", "delegate", "target", "right", "not"], rows)


def proved_on(report: Mapping[str, Any]) -> str:
    """The engines that agreed with NumPy on every file they run, or that there were none."""
    rows = report.get("proof", {}).get("engines", ())
    if not rows:
        return "on no engine: devices try each before they train on it"
    agree = dict.fromkeys(r["engine"] for r in rows if r["right"])
    return f"as NumPy on {', '.join(agree)}" if agree else "on no engine that is right"


def _not(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{kind} {reason}" for kind, reason in reasons.items())


def print_int8(report: Mapping[str, Any]) -> None:
    """How far the int8 models are from the float model."""
    rows = [
        (target, size(report["bytes"][target]), f"{same:.1%}", f"{report['error'][target]:.1%}")
        for target, same in report["agreement"].items()
    ]
    title = f"int8 against float on {report['examples']} examples"
    print_rows(title, ["target", "size", "same class", "error"], rows)
    for note in report["notes"]:
        print_line(f"Note: int8: {note}")


def _losses(manifest: Manifest) -> str:
    """The loss, or each output's."""
    if not manifest.more_heads:
        return manifest.loss
    return ", ".join(f"{head.output.name.removeprefix('output/')}: {head.loss}" for head in manifest.heads)


def _sources(manifest: Manifest) -> Iterator[str]:
    for key in ("source", "model", "framework"):
        if manifest.provenance.get(key):
            yield f"{key} {manifest.provenance[key]}"


def _roles(report: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, int]]]:
    order = ("shared", "personal", "frozen", "buffer")
    return ((role, report["parameters"][role]) for role in order if report["parameters"][role]["tensors"])


def _cut(report: Mapping[str, Any]) -> str:
    if not report["cut"]:
        return "none: the whole model runs in every step"
    kept = size(report["feature_bytes"])
    return f"at {_some(report['cut'])}: what comes before runs once per example, {kept} are kept of it"


def _memory(memory: Mapping[str, int]) -> str:
    parts = ", ".join(f"{name} {size(memory[name])}" for name in ("weights", "gradients", "activations"))
    return f"a step needs {size(memory['total'])} beside the engine: {parts}"


def _graphs(manifest: Manifest) -> Iterator[Sequence[object]]:
    sizes = {(a.target, a.kind): size(a.size) for a in manifest.artifacts}
    lite = manifest.report["targets"].get("tflite", {})
    for graph, operators in manifest.report["operators"].items():
        counts = sorted(operators.items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{count}×{name}" for name, count in counts)
        moved = lite[graph]["transposes"] if graph in lite else "-"
        yield graph, sizes.get(("onnx", graph), "-"), sizes.get(("tflite", graph), "-"), moved, listed


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
