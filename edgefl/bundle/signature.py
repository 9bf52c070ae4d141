# SPDX-License-Identifier: Apache-2.0
"""What each file of a bundle takes and gives, for someone who runs it without edgefl."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgefl.bundle.manifest import Artifact, Manifest, TensorSpec
from edgefl.parameters import Parameter

_STEPS = ("step", "step-channels-last", "step-float16")


@dataclass(frozen=True)
class Port:
    """One tensor at the edge of a file.

    Attributes:
        direction: `in` or `out`.
        name: the contract's, the same in every file.
        own: the file's own name for it.
        dtype: NumPy name; of Core ML's files float32 and int32 stand for the others.
        shape: with the bundle's batch; int8 files of single examples have 1 in its place.
    """

    direction: str
    name: str
    own: str
    dtype: str
    shape: tuple[int, ...]


def signature(manifest: Manifest, artifact: Artifact) -> tuple[Port, ...]:
    """Inputs, then outputs of an artifact; empty for kinds that are no graph of the contract, such as
    onnxruntime-training's."""
    found = _specs(manifest, artifact.kind)
    if found is None:
        return ()
    given, made = found
    return (*_ports("in", given, artifact.inputs), *_ports("out", made, artifact.outputs))


def _ports(direction: str, specs: Iterator[TensorSpec], own: Mapping[str, str]) -> Iterator[Port]:
    for spec in specs:
        yield Port(direction, spec.name, own.get(spec.name, spec.name), spec.dtype, spec.shape)


def _specs(manifest: Manifest, kind: str) -> tuple[Iterator[TensorSpec], Iterator[TensorSpec]] | None:
    if kind in _STEPS:
        return _step_inputs(manifest), _step_outputs(manifest)
    if kind in ("features", "features-int8"):
        return iter(manifest.inputs), iter(manifest.step_inputs)
    if kind == "infer":
        values = (*manifest.trained, *_buffers(manifest))
        return iter((*manifest.inputs, *map(_value, values))), _predictions(manifest)
    if kind == "infer-int8":
        return iter(manifest.inputs), _predictions(manifest)
    return None


def _step_inputs(manifest: Manifest) -> Iterator[TensorSpec]:
    yield from manifest.step_inputs
    yield from (head.label for head in manifest.heads)
    yield TensorSpec("weight", (manifest.batch_size,), "float32")
    if manifest.seeded:
        yield TensorSpec("seed", (1,), "int32")
    yield from map(_value, (*manifest.trained, *_buffers(manifest)))


def _step_outputs(manifest: Manifest) -> Iterator[TensorSpec]:
    yield TensorSpec("loss", (), "float32")
    for parameter in manifest.trained:
        yield _value(parameter, "grad/")
    for buffer in _buffers(manifest):
        yield _value(buffer, "buffer/")


def _predictions(manifest: Manifest) -> Iterator[TensorSpec]:
    return (head.output for head in manifest.heads)


def _buffers(manifest: Manifest) -> list[Parameter]:
    return [p for p in manifest.parameters if p.name in manifest.updated]


def _value(parameter: Parameter, prefix: str = "") -> TensorSpec:
    return TensorSpec(prefix + parameter.name, parameter.shape, parameter.dtype)
