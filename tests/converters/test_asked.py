# SPDX-License-Identifier: Apache-2.0
"""What makes no sense is refused before work begins, in words that name it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import edgefl
from edgefl.errors import ConversionError, EdgeflError, OptionError, SelectionError

torch = pytest.importorskip("torch")
X = np.zeros((1, 4), np.float32)
STATISTICS = {"batch_norm": "batch", "batch_size": 1}


def network(classes: int = 3) -> Any:
    return torch.nn.Sequential(
        torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.ReLU(), torch.nn.Linear(6, classes)
    )


class Untraced(torch.nn.Module):
    """A model that must not be looked at."""

    def forward(self, x: Any) -> Any:
        raise AssertionError("the conversion traced the model first")


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ({"loss": "huber:delta=-2"}, ConversionError, r"'huber': delta .* over 0, given '-2'"),
        ({"loss": "huber:delta=0"}, ConversionError, "delta .* over 0"),
        ({"loss": "huber:delta=nan"}, ConversionError, "delta .* over 0"),
        ({"loss": "softmax_cross_entropy:smoothing=2"}, ConversionError, "smoothing .* from 0 to"),
        ({"loss": "softmax_cross_entropy:smoothing=-0.1"}, ConversionError, "smoothing .* from 0 to"),
        ({"loss": "softmax_cross_entropy:smoothing=1"}, ConversionError, "smoothing .* from 0 to"),
        ({"loss": "info_nce:temperature=0"}, ConversionError, "temperature .* over 0"),
        ({"loss": "nt_xent:temperature=-1"}, ConversionError, "temperature .* over 0"),
        ({"loss": {"output": ("huber:delta=-2", 0.5)}}, ConversionError, "delta .* over 0"),
        ({"loss": "hubr"}, ConversionError, "unknown loss 'hubr'"),
        ({"batch_size": 0}, OptionError, r"^batch_size=0: allowed is an integer from 1"),
        ({"batch_size": 2.0}, OptionError, r"^batch_size=2\.0: allowed is an integer"),
        (STATISTICS, OptionError, r"^batch_norm='batch' with batch_size=1: one example has no statistics"),
        ({"batch_norm": "sometimes"}, ConversionError, "batch_norm is 'sometimes', allowed frozen"),
        ({"frozen_bits": 5}, ConversionError, "frozen weights of 5 bits"),
        ({"targets": ("tflight",)}, ConversionError, "tflight"),
    ],
)
def test_it_is_refused_before_the_model_is_traced(
    asked: dict[str, Any], kind: type[EdgeflError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        edgefl.convert(Untraced(), X, **asked)


@pytest.mark.parametrize(
    ("classes", "asked", "kind", "said"),
    [
        (1, {}, ConversionError, "scores of one class.* sigmoid_cross_entropy .* mean_squared_error"),
        (3, {"frozen_bits": 8}, OptionError, r"^frozen_bits=8: every parameter is trained"),
        (3, {"personal": "*"}, SelectionError, r"personal='\*' takes all 6 .* nothing is left to share"),
        (3, {"loss": "info_nce", "batch_size": 1}, ConversionError, "batch_size has to be 2 or more"),
    ],
)
def test_it_is_refused_before_anything_is_written(
    classes: int, asked: dict[str, Any], kind: type[EdgeflError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        edgefl.convert(network(classes), X, targets=("onnx",), **asked)


def test_what_makes_sense_beside_it_converts() -> None:
    asked: list[dict[str, Any]] = [
        {"loss": "huber:delta=2"},
        {"loss": "softmax_cross_entropy:smoothing=0.1"},
        {"frozen_bits": 8, "trainable": "last:1"},
        {"personal": "3.*"},
        {"batch_norm": "batch", "batch_size": 2},
        {"batch_norm": "group", "batch_size": 1},
    ]
    for one in asked:
        edgefl.convert(network(), X, targets=("onnx",), **one)
