# SPDX-License-Identifier: Apache-2.0
"""What a bundle says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgefl.parameters import Parameter, Schema

FORMAT = "edgefl-bundle"
FORMAT_VERSION = 1

EXTENSIONS = {"onnx": "onnx", "tflite": "tflite", "coreml": "mlpackage.zip", "ort-training": "onnx"}
"""Targets an artifact can be made for, with the file extension of each."""

ALSO = {"ort-training": ("onnx",)}
"""Targets whose devices use another target's artifacts as well, for what their own do not cover."""

KINDS = (
    "step", "step-channels-last", "step-float16", "features", "features-int8", "infer", "infer-int8",
    "updatable", "training", "eval", "optimizer-sgd", "optimizer-adamw", "checkpoint",
)  # fmt: skip
"""`step` trains, `features` is the frozen prefix, `infer` predicts, `infer-int8` too, with weights inside;
`updatable` is Core ML's classic form of what `step` trains; those after it are onnxruntime-training's."""


def extension(target: str, kind: str) -> str:
    """The file extension of an artifact."""
    special = {("coreml", "updatable"): "mlmodel", ("ort-training", "checkpoint"): "ckpt"}
    return special.get((target, kind), EXTENSIONS[target])


ACTIVATIONS = ("", "Softmax", "Sigmoid")
"""What `infer` may end in beyond the scores the loss is computed from."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor at the edge of a graph.

    Attributes:
        name: the contract name.
        shape: static, the batch first.
        dtype: NumPy name, such as `float32`.
        below: of an integer input that something is looked up with: its numbers are 0 to `below` - 1; 0 where
            any number will do.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    below: int = 0

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of one example: the shape without the batch."""
        return self.shape[1:]


@dataclass(frozen=True)
class Head:
    """An output that a loss is computed for.

    Attributes:
        label: what its labels are: `y`, or `y/<output>` where there are several.
        output: what `infer` gives: `output`, or `output/<output>`.
        loss: the loss's name with its settings, as in `huber:delta=0.5`; after `0.3*` where it is weighted.
        activation: what the output ends in that the loss contains already, one of `ACTIVATIONS`.
    """

    label: TensorSpec
    output: TensorSpec
    loss: str
    activation: str = ""

    @property
    def loss_name(self) -> str:
        """The loss without its share and settings."""
        return self.loss.rpartition("*")[2].partition(":")[0]

    def setting(self, name: str) -> str | None:
        """What the loss was given for one of its parameters, as written; None where nothing."""
        settings = (part.partition("=") for part in self.loss.split(":")[1:])
        return next((value for key, _, value in settings if key == name), None)


@dataclass(frozen=True)
class Entry:
    """A file inside the bundle: its path, its SHA-256 in hexadecimal, and its size in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Artifact:
    """A graph compiled for one target.

    Attributes:
        target: one of `EXTENSIONS`.
        kind: one of `KINDS`.
        entry: where its bytes are.
        inputs: contract name -> the artifact's own name, where the two differ.
        outputs: the same for outputs.
    """

    target: str
    kind: str
    entry: Entry
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return self.entry.path

    @property
    def sha256(self) -> str:
        return self.entry.sha256

    @property
    def size(self) -> int:
        return self.entry.size


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        name: the model's name.
        model_version: counts the parameters' versions on the server, from 0.
        parameters: in the order the schema and the graphs use.
        inputs: data inputs of `features` where there is one and of `infer`.
        step_inputs: data inputs of `step`: the same, or what `features` gives.
        label: what `y` is; of the first head where there are several.
        output: what `infer` gives, of the first head.
        loss: the loss's name, with its settings as in `huber:delta=0.5`, of the first head.
        activation: what `infer` ends in that the loss contains already, one of `ACTIVATIONS`: with `Sigmoid`
            the output is probabilities, with an empty one scores (logits).
        batch_size: the first dimension of every data tensor.
        artifacts: sorted by target, then kind.
        files: `parameters`, `golden` and, where there is one, `proof`, by those names.
        defaults: what the converter suggests for training, such as `lr` and `epochs`.
        provenance: what made the bundle: source, tool versions.
        report: what conversion found, such as differences between engines.
        more_heads: further outputs with losses; the step's loss is the sum over all heads.
        updated: buffers that `step` and `infer` take and `step` gives anew as `buffer/<name>`, such as
            statistics of BatchNorm.
        seeded: `step` takes `seed`, int32 `[1]` from 0 to 2^24 - 1, which decides its dropout.
    """

    name: str
    model_version: int
    parameters: tuple[Parameter, ...]
    inputs: tuple[TensorSpec, ...]
    step_inputs: tuple[TensorSpec, ...]
    label: TensorSpec
    output: TensorSpec
    loss: str
    batch_size: int
    artifacts: tuple[Artifact, ...]
    files: Mapping[str, Entry]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    activation: str = ""
    more_heads: tuple[Head, ...] = ()
    updated: tuple[str, ...] = ()
    seeded: bool = False

    @property
    def heads(self) -> tuple[Head, ...]:
        """Every output with a loss, in order."""
        return (Head(self.label, self.output, self.loss, self.activation), *self.more_heads)

    @property
    def loss_name(self) -> str:
        """The first head's loss without its share and settings."""
        return self.heads[0].loss_name

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets with at least one artifact."""
        return tuple(dict.fromkeys(a.target for a in self.artifacts))

    @property
    def trained(self) -> tuple[Parameter, ...]:
        """Shared and personal parameters in manifest order: the parameter inputs of `step` and `infer`."""
        return tuple(p for p in self.parameters if p.trained)

    @property
    def schema(self) -> Schema:
        """The shared parameters in manifest order."""
        return Schema(tuple(p for p in self.parameters if p.role == "shared"))

    def find(self, target: str, kind: str) -> Artifact | None:
        return next((a for a in self.artifacts if (a.target, a.kind) == (target, kind)), None)

    def to_json(self) -> dict[str, Any]:
        """The document `manifest.json` holds, as plain values."""
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "name": self.name,
            "model_version": self.model_version,
            "parameters": [_row(p) for p in self.parameters],
            "inputs": [_row(s) for s in self.inputs],
            "step_inputs": [_row(s) for s in self.step_inputs],
            "label": _row(self.label),
            "output": _row(self.output),
            "loss": self.loss,
            "activation": self.activation,
            "batch_size": self.batch_size,
            "artifacts": [_artifact_row(a) for a in self.artifacts],
            "files": {name: vars(entry).copy() for name, entry in self.files.items()},
            "defaults": dict(self.defaults),
            "provenance": dict(self.provenance),
            "report": dict(self.report),
            **self._optional(),
        }

    def _optional(self) -> dict[str, Any]:
        """Fields most bundles do without, left out where they say nothing."""
        fields = {
            "heads": [_head_row(h) for h in self.more_heads],
            "updated": list(self.updated),
            "seeded": self.seeded,
        }
        return {name: value for name, value in fields.items() if value}

    def entries(self) -> tuple[Entry, ...]:
        """Every file the bundle must hold besides the manifest, and no other."""
        return (*self.files.values(), *(a.entry for a in self.artifacts))


def _row(value: Parameter | TensorSpec) -> dict[str, Any]:
    row = vars(value) | {"shape": list(value.shape)}
    return {name: field for name, field in row.items() if name != "below" or field}


def _head_row(head: Head) -> dict[str, Any]:
    return vars(head) | {"label": _row(head.label), "output": _row(head.output)}


def _artifact_row(artifact: Artifact) -> dict[str, Any]:
    names = {"inputs": dict(artifact.inputs), "outputs": dict(artifact.outputs)}
    return {"target": artifact.target, "kind": artifact.kind, **vars(artifact.entry), **names}
