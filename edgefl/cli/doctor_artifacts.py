# SPDX-License-Identifier: Apache-2.0
"""What `edgefl doctor` says about a bundle's files: what runs each here, and what the others ask for."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from edgefl.cli.output import print_line, print_rows, size
from edgefl.errors import BackendError, BackendUnavailable
from edgefl.requirements import pip_install

if TYPE_CHECKING:
    from edgefl.bundle import Artifact, Bundle, Manifest
    from edgefl.runtime.backends import Backend

_ENGINES = {"onnx": ("onnx", "openvino", "numpy"), "tflite": ("tflite",), "ort-training": ("ort-training",)}
_UNKNOWN_OPERATOR = re.compile(r"builtin opcode '(\w+)' version '(\d+)'")
_FOUR_BITS = "DEQUANTIZE 6"


@dataclass(frozen=True)
class Needs:
    """What a TFLite file asks of its runtime.

    Attributes:
        release: the oldest that runs it, as the manifest has it: `2.9.0` of TensorFlow Lite, `LiteRT 1.0`;
            empty where the bundle does not say.
        operator: the operator that asks for it and its version, `DEQUANTIZE 6`; empty where not known.
    """

    release: str = ""
    operator: str = ""

    def __str__(self) -> str:
        name, _, version = self.operator.partition(" ")
        own = self.release.startswith("LiteRT")
        parts = [f"{'' if own else 'TensorFlow Lite '}{self.release} or newer"] if self.release else []
        parts += [f"operator {name} version {version}"] if name else []
        return ", for ".join(parts)


@dataclass(frozen=True)
class File:
    """One artifact on this machine.

    Attributes:
        target, kind, path, size: as in the manifest.
        runs_on: the engines that load it, with their versions.
        refused: installed engine to why it does not load it.
        missing: engine that is not installed to what would bring it.
        needs: of TFLite files.
        advice: what to do about a TFLite file whose runtime is too old, or "".
    """

    target: str
    kind: str
    path: str
    size: int
    runs_on: tuple[str, ...]
    refused: Mapping[str, str]
    missing: Mapping[str, str]
    needs: Needs | None = None
    advice: str = ""


def files(bundle: Bundle) -> list[File]:
    """Every artifact of a bundle, loaded by every installed engine that takes such files."""
    return [_file(bundle, artifact) for artifact in bundle.manifest.artifacts]


def file_row(file: File) -> dict[str, Any]:
    """A file as JSON says it."""
    return asdict(file)


def show_files(rows: list[File]) -> None:
    """One table, then why files are refused, and why others run on nothing."""
    print_rows(
        "Files of this bundle",
        ["file", "size", "needs", "runs here on"],
        [(r.path, size(r.size), _release(r) or "-", _engines(r) or "nothing") for r in rows],
    )
    for line in _lines(rows):
        print_line(line)


def _release(file: File) -> str:
    return file.needs.release if file.needs else ""


def _engines(file: File) -> str:
    """Names alone: the versions are in the table of what is installed."""
    return ", ".join(engine.split()[0] for engine in file.runs_on)


def _lines(files: Iterable[File]) -> Iterator[str]:
    """Each reason with the files it holds for."""
    where: dict[str, list[str]] = {}
    for file in files:
        for reason in (*file.refused.values(), *(() if file.runs_on else file.missing.values())):
            where.setdefault("; ".join(filter(None, (reason, file.advice))), []).append(file.path)
    for reason, paths in where.items():
        yield f"{', '.join(paths)}: {reason}"


def _file(bundle: Bundle, artifact: Artifact) -> File:
    runs, refused, missing, version = list[str](), dict[str, str](), dict[str, str](), ""
    for engine in _ENGINES.get(artifact.target, ()):
        try:
            backend = _open(bundle, engine)
            version = backend.version
        except BackendUnavailable as exc:
            missing[engine] = str(exc)
            continue
        try:
            _load(backend, bundle, artifact.kind)
            runs.append(version)
        except BackendError as exc:
            refused[engine] = " ".join(str(exc).split())
    if artifact.target == "coreml":
        missing["coreml"] = _elsewhere()
    made = File(artifact.target, artifact.kind, artifact.path, artifact.size, tuple(runs), refused, missing)
    return _with_needs(made, bundle.manifest, version) if artifact.target == "tflite" else made


def _open(bundle: Bundle, engine: str) -> Backend:
    from edgefl.runtime import open_backend

    # The engines' own code: whether a delegate takes a graph is said elsewhere.
    return open_backend(bundle, engine, "cpu" if engine in ("onnx", "tflite") else "auto")


def _load(backend: Backend, bundle: Bundle, kind: str) -> None:
    """Load one artifact; those of onnxruntime-training come together, as a fit needs them."""
    from edgefl.options import FitOptions
    from edgefl.runtime.steps import Begin

    if not backend.own_step:
        backend.load(bundle, kind)
        return
    options = FitOptions(optimizer="adam" if kind == "optimizer-adamw" else "sgd", lr=0.01)
    values = bundle.parameters()
    parameters = {p.name: values[p.name] for p in bundle.manifest.trained}
    backend.start(options, Begin(bundle, parameters, lambda: backend.load(bundle, "step")))


def _with_needs(file: File, manifest: Manifest, version: str) -> File:
    """A TFLite file with what it needs, and what to do where the runtime here does not have that."""
    needs = Needs(_said(manifest, file.kind, "min_runtime"), _said(manifest, file.kind, "newest"))
    if lacking := _UNKNOWN_OPERATOR.search(file.refused.get("tflite", "")):
        needs = replace(needs, operator=" ".join(lacking.groups()))
        file = replace(file, refused={"tflite": f"{version} is too old"})
    if needs == Needs() or file.runs_on:
        return replace(file, needs=needs)
    advice = f"needs {needs}: {pip_install('ai-edge-litert')} brings it"
    instead = ", or convert with frozen_bits=8, which older ones run" if needs.operator == _FOUR_BITS else ""
    return replace(file, needs=needs, advice=advice + instead)


def _said(manifest: Manifest, kind: str, what: str) -> str:
    """What the conversion's report says of a TFLite file; "" where it does not."""
    row: Any = manifest.report
    for key in ("targets", "tflite", kind, what):
        row = row.get(key) if isinstance(row, Mapping) else None
    return row if isinstance(row, str) else ""


def _elsewhere() -> str:
    if platform.system() == "Darwin":
        return "no engine of edgefl for Python; apps run it, and `edgefl selftest` here"
    return f"Core ML runs it on Apple's systems only, this is {platform.system()}"
