# SPDX-License-Identifier: Apache-2.0
"""What one example of a store is made of, and its bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Bundle
from edgefl.bundle.manifest import Head, TensorSpec
from edgefl.data import CLASS_LOSSES
from edgefl.errors import StoreError
from edgefl.strictjson import canonical, parse

Array = npt.NDArray[Any]
_WEIGHT = TensorSpec("weight", (1,), "float32")


@dataclass(frozen=True)
class Layout:
    """Inputs and labels of a model, with a batch of one. `edgefl.data.check_examples` takes it.

    Attributes:
        inputs: of the model.
        heads: its outputs with their labels and losses, which say what labels may be.
    """

    inputs: tuple[TensorSpec, ...]
    heads: tuple[Head, ...]

    @classmethod
    def of(cls, bundle: Bundle) -> Layout:
        """That of a bundle's model, whatever its batch."""
        manifest = bundle.manifest
        heads = tuple(
            replace(h, label=_single(h.label), output=_single(h.output), activation="")
            for h in manifest.heads
        )
        return cls(tuple(map(_single, manifest.inputs)), heads)

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """In the order of an example's bytes: inputs, labels, weight."""
        return (*self.inputs, *(head.label for head in self.heads), _WEIGHT)

    @property
    def nbytes(self) -> int:
        """Of one example, without its key."""
        return sum(map(_size, self.tensors))

    def label(self, labels: Mapping[str, Array], row: int) -> str:
        """The class of an example, as text; "" where the first output has no single class."""
        head = self.heads[0]
        if head.loss_name not in CLASS_LOSSES or head.label.example_shape:
            return ""
        return str(int(labels[head.label.name][row]))

    def pack(self, arrays: Mapping[str, Array], row: int, key: str) -> bytes:
        """One example as bytes: little-endian tensors back to back, then its key."""
        parts = [_stored(arrays[spec.name][row], spec) for spec in self.tensors]
        return b"".join([*parts, key.encode()])

    def unpack(self, rows: Sequence[bytes]) -> dict[str, Array]:
        """Examples by tensor name, `[examples, ...]`; StoreError where bytes are missing."""
        arrays, at = {}, 0
        for data in rows:
            if len(data) < self.nbytes:
                raise StoreError(f"an example of the store has {len(data)} bytes, not {self.nbytes} or more")
        for spec in self.tensors:
            size, shape = _size(spec), (len(rows), *spec.example_shape)
            joined = b"".join(data[at : at + size] for data in rows)
            dtype = np.dtype(spec.dtype)
            arrays[spec.name] = np.frombuffer(joined, dtype.newbyteorder("<")).reshape(shape).astype(dtype)
            at += size
        return arrays

    def key(self, data: bytes) -> str:
        """The key of an example."""
        return data[self.nbytes :].decode()

    def to_bytes(self) -> bytes:
        """As JSON; equal layouts give equal bytes."""
        return canonical(asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Layout:
        """Read it back; StoreError where it is something else."""
        raw = parse(data, StoreError, "the store's layout")
        try:
            inputs = tuple(map(_spec, raw["inputs"]))
            heads = tuple(
                Head(_spec(h["label"]), _spec(h["output"]), str(h["loss"]), "") for h in raw["heads"]
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise StoreError(f"the store's layout cannot be read: {exc}") from exc
        return cls(inputs, heads)

    def __str__(self) -> str:
        tensors = self.tensors[:-1]
        return ", ".join(f"{t.name} {t.dtype}{list(t.example_shape) or ''}" for t in tensors)


def _single(spec: TensorSpec) -> TensorSpec:
    return replace(spec, shape=(1, *spec.example_shape))


def _size(spec: TensorSpec) -> int:
    return int(np.dtype(spec.dtype).itemsize) * math.prod(spec.example_shape)


def _stored(value: Array, spec: TensorSpec) -> bytes:
    return np.ascontiguousarray(value, np.dtype(spec.dtype).newbyteorder("<")).tobytes()


def _spec(raw: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(str(raw["name"]), tuple(map(int, raw["shape"])), str(raw["dtype"]), int(raw["below"]))
