# SPDX-License-Identifier: Apache-2.0
"""What a `fit` trains on and what its passes are judged by: all in memory, or read as it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from edgefl.bundle import Manifest
from edgefl.data import Examples
from edgefl.errors import DataError
from edgefl.runtime.batches import Batches, Passes
from edgefl.runtime.rows import Make, Rows, Streamed, said, sides
from edgefl.runtime.sides import divided

Array = npt.NDArray[Any]
Counted = tuple[dict[str, Array], dict[str, Array], Array]
"""Inputs and labels by contract name, and weights, `[examples, ...]`."""
Frozen = Callable[[dict[str, Array]], dict[str, Array]]
"""What the step takes of inputs, see `edgefl.runtime.frozen`."""


@dataclass(frozen=True)
class Material:
    """Examples on their two sides.

    Attributes:
        examples, left_out: how many there are to train on, and to judge by.
        said: what tells them from others, for `checkpoint.subject_of`.
        batches, judged: the two sides in batches as the step takes them; asking for them may make features.
            Nothing is judged where nothing is left out.
    """

    examples: int
    left_out: int
    said: Callable[[], tuple[Mapping[str, Array], ...]]
    batches: Callable[[], Passes]
    judged: Callable[[], Passes]


def in_memory(given: Counted, manifest: Manifest, fraction: float, make: Make, frozen: Frozen) -> Material:
    """Of arrays. So few examples that a side would have none all stay together."""
    rest, held = given, None
    if fraction:
        parts = divided(Examples(*given), manifest, fraction)
        if all(map(len, parts)):
            rest, held = (make(part) for part in parts)

    def batches(side: Counted) -> Passes:
        inputs, labels, weights = side
        return Batches({**frozen(inputs), **labels, "weight": weights}, manifest.batch_size)

    return Material(
        len(rest[2]),
        len(held[2]) if held else 0,
        lambda: (*_named(rest), *(_named(held) if held else ())),
        lambda: batches(rest),
        lambda: batches(held or rest),
    )


def streamed(rows: Rows, manifest: Manifest, fraction: float, make: Make, frozen: Frozen) -> Material:
    """Of rows, of which a batch is in memory at once."""

    def checked(examples: Examples) -> Counted:
        made = make(examples)
        if len(made[2]) != len(examples):
            raise DataError("a row has weight 0; leave it out")
        return made

    size, rest, held = manifest.batch_size, rows, None
    if fraction:
        parts = sides(rows, size, lambda piece: checked(piece)[0], fraction)
        if all(map(len, parts)):
            rest, held = parts

    def made(examples: Examples) -> dict[str, Array]:
        inputs, labels, weights = checked(examples)
        return {**frozen(inputs), **labels, "weight": weights}

    return Material(
        len(rest),
        len(held) if held else 0,
        lambda: (said(rest, size, checked), *((said(held, size, checked),) if held else ())),
        lambda: Streamed(rest, size, made),
        lambda: Streamed(held or rest, size, made),
    )


def _named(side: Counted) -> tuple[Mapping[str, Array], ...]:
    return (*side[:2], {"": side[2]})
