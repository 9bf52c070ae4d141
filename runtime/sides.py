# SPDX-License-Identifier: Apache-2.0
"""Examples in two parts: an example's digest decides, so that it stays on its side whatever comes to it or
goes, and after any restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.data import Examples, Wanted, check_examples
from edgefl.runtime.feature_cache import example_digests

Array = npt.NDArray[Any]
Sides = tuple[Examples, Examples]
"""Examples to train on, and those held out of it; either may have none."""


def divided(examples: Examples, wanted: Wanted, fraction: float, seed: int = 0) -> Sides:
    """Examples to train on, and those held out; with a larger fraction more are, the same ones among them.

    Args:
        wanted: the model, such as its manifest.
        fraction: about how much is held out, from 0 to 1.
        seed: of the division; another one gives another.

    Raises:
        DataError: the examples do not fit the model.
    """
    inputs, labels = check_examples(examples.x, examples.y, wanted)
    held = drawn(inputs, fraction, seed)

    def part(mask: Array) -> Examples:
        weight = None if examples.weight is None else np.asarray(examples.weight)[mask]
        x, y = ({name: value[mask] for name, value in group.items()} for group in (inputs, labels))
        return Examples(x, y, weight)

    return part(~held), part(held)


def drawn(inputs: Mapping[str, Array], fraction: float, seed: int) -> Array:
    """A mask of the examples that are held out, bool `[examples]`.

    Args:
        inputs: checked, by contract name, `[examples, ...]`.
        fraction, seed: see `divided`.
    """
    numbers = [int.from_bytes(d[:8], "big") for d in example_digests(inputs, b"held out %d" % seed)]
    return np.asarray(np.asarray(numbers, np.float64) < fraction * 2.0**64)
