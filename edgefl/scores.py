# SPDX-License-Identifier: Apache-2.0
"""What a model's outputs predict, and how often that is right: the same on devices and for exported files."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.bundle.manifest import Head
from edgefl.data import CLASS_LOSSES, counted

Array = npt.NDArray[Any]


def predicted(head: Head, output: Array) -> Array | None:
    """Classes, or yes and no, that an output of `infer` stands for; None where its loss has no such notion.

    Class losses take the class of the highest score; sigmoid cross-entropy takes each output as yes or no.
    """
    if head.loss_name in CLASS_LOSSES:
        classes: Array = np.argmax(output, axis=-1)
        return classes
    if head.loss_name == "sigmoid_cross_entropy":
        return output > (0.5 if head.activation == "Sigmoid" else 0.0)
    return None


def accuracy(head: Head, output: Array, labels: Array, weight: Array | None = None) -> float | None:
    """Part of the labels that the output of `infer` predicts right, None where that has no meaning.

    Of class labels those are left out that the loss leaves out.

    Args:
        weight: how much each example's labels count, `[examples]`, over 0; all the same where None.
    """
    weight = np.ones(len(output)) if weight is None else weight
    found = predicted(head, output)
    if found is None:
        return None
    if head.loss_name == "sigmoid_cross_entropy":
        return _share(found == (labels > 0.5), np.ones(labels.shape, bool), weight)
    counts = counted(head, labels)
    if head.loss_name == "next_token":
        found, labels, counts = found[:, :-1], labels[:, 1:], counts[:, 1:]
    return _share(found == labels, counts, weight)


def _share(right: Array, counts: Array, weight: Array) -> float | None:
    """Part of what counts that is right, each example by its weight; None where nothing counts."""
    each = weight.astype(np.float64).reshape(-1, *[1] * (right.ndim - 1))
    total = float((each * counts).sum())
    return float((each * (right & counts)).sum()) / total if total else None
