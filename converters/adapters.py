# SPDX-License-Identifier: Apache-2.0
"""Which weights of a bundle have low-rank factors beside them, and what both amount to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgefl.bundle import Manifest
from edgefl.graph.model import Array

Layout = tuple[tuple[str, tuple[int, ...]], ...]
"""From a parameter to an operator's weight, in order: `("Transpose", permutation)`, `("Reshape", shape)`."""


@dataclass(frozen=True)
class Adapter:
    """An adapted weight.

    Attributes:
        weight: the frozen parameter.
        down: the factor applied to the layer's input.
        up: the factor applied to what `down` gives, zero at first.
        scale: `alpha / rank`.
        kind: the operator the weight belongs to: `MatMul`, `Conv` or `Gather`.
        layout: from the parameter to the operator's weight, such as `(("Transpose", (1, 0)),)`.
    """

    weight: str
    down: str
    up: str
    scale: float
    kind: str
    layout: Layout

    def to_json(self) -> dict[str, Any]:
        """Plain strings, numbers and lists."""
        return {**asdict(self), "layout": [[step, list(sizes)] for step, sizes in self.layout]}

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Adapter:
        layout = tuple((str(step), tuple(map(int, sizes))) for step, sizes in plain["layout"])
        return Adapter(**{**plain, "layout": layout})

    def merged(self, weight: Array, down: Array, up: Array) -> Array:
        """The weight with the adapter folded in, in the parameter's own layout."""
        delta = _turned_back(product(self.kind, down, up), self.layout, weight.shape)
        return np.asarray(weight + self.scale * delta, weight.dtype)


def product(kind: str, down: Array, up: Array) -> Array:
    """Both factors as one weight of their operator."""
    if kind != "Conv":
        return np.asarray(down @ up)
    flat = up.reshape(up.shape[:2]) @ down.reshape(down.shape[0], -1)
    return np.asarray(flat.reshape(up.shape[0], *down.shape[1:]))


def _turned_back(weight: Array, layout: Layout, shape: tuple[int, ...]) -> Array:
    """An operator's weight in the layout of the parameter, which has `shape`."""
    shapes = [shape]
    for step, sizes in layout:
        shapes.append(sizes if step == "Reshape" else tuple(shapes[-1][axis] for axis in sizes))
    for (step, sizes), before in zip(layout[::-1], shapes[-2::-1], strict=True):
        weight = weight.reshape(before) if step == "Reshape" else weight.transpose(np.argsort(sizes))
    return weight


def merge(parameters: Mapping[str, Array], adapters: Sequence[Adapter]) -> dict[str, Array]:
    """The parameters without factors, each adapted weight that is given replaced by what it amounts to."""
    merged = {
        a.weight: a.merged(*(parameters[name] for name in (a.weight, a.down, a.up)))
        for a in adapters
        if {a.weight, a.down, a.up} <= parameters.keys()
    }
    gone = set(factors(adapters))
    return {name: merged.get(name, value) for name, value in parameters.items() if name not in gone}


def of_manifest(manifest: Manifest) -> tuple[Adapter, ...]:
    """The adapters of a bundle, none where it was converted without."""
    return tuple(Adapter.from_json(row) for row in manifest.report.get("lora", ()))


def factors(adapters: Sequence[Adapter]) -> list[str]:
    return [name for a in adapters for name in (a.down, a.up)]
