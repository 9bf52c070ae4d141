# SPDX-License-Identifier: Apache-2.0
"""Labels that are names: the numbers a model knows them by, the same on every device or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.data import CLASS_LOSSES, Wanted
from edgefl.errors import DataError, LabelRange

Array = npt.NDArray[Any]


def class_names(found: Sequence[str], given: str | None, wanted: Wanted | None, where: str) -> list[str]:
    """All classes in the order of their numbers.

    Without names given they are sorted, which is only safe where none is missing: a device that has not met
    a class yet would call the others by other numbers.

    Raises:
        DataError: the model has another number of classes than are found, and no names are given.
    """
    if given:
        return [name.strip() for name in given.split(",")]
    names, expected = sorted(set(found)), _expected(wanted)
    if expected is not None and expected != len(names):
        raise DataError(
            f"{where} has {len(names)} classes ({', '.join(names[:8])}), the model {expected}: "
            "name all of them in the order of the model with `classes`"
        )
    return names


def numbered(values: Sequence[str], names: Sequence[str], where: Sequence[str]) -> Array:
    """Numbers of classes, int64 `[examples]`; LabelRange says where another name stands."""
    number = {name: i for i, name in enumerate(names)}
    for value, place in zip(values, where, strict=True):
        if value not in number:
            raise LabelRange(f"{place}: {value!r} is no class; those are {', '.join(names)}")
    return np.asarray([number[value] for value in values], np.int64)


def _expected(wanted: Wanted | None) -> int | None:
    if wanted is None or wanted.heads[0].loss_name not in CLASS_LOSSES:
        return None
    return wanted.heads[0].output.shape[-1]
