# SPDX-License-Identifier: Apache-2.0
"""What models from the wild do that plain ones do not: converted as it is, or refused with what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.nn import functional as F

from edgefl.converters.normalize import normalize
from edgefl.converters.sources import load_forward
from edgefl.errors import SourceError, UnsupportedOperator
from tests.converters.test_sources_gradients import check_torch

X = np.zeros((1, 4, 8))


class Caching(nn.Module):
    """Keeps a tensor that it computed in an earlier call, as LeViT keeps its attention biases."""

    def __init__(self) -> None:
        super().__init__()
        self.bias, self.cache = nn.Parameter(torch.ones(8)), dict[str, Any]()

    def forward(self, x: Any) -> Any:
        if "bias" not in self.cache:
            self.cache["bias"] = self.bias * 2
        return x + self.cache["bias"]


def test_what_a_module_caches_while_it_is_traced_stays_out_of_it() -> None:
    model = Caching()

    forward = load_forward(model, (X,), batch_size=2)

    assert not model.cache
    assert forward.trainable == {"bias"}


class Causal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(4))

    def forward(self, x: Any) -> Any:
        return self.encoder(x, mask=self.mask)


def test_encoders_with_a_mask_do_not_look_at_its_values() -> None:
    check_torch(Causal(), X)


class Folding(nn.Module):
    """Patches taken apart and laid back with an overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(12, 12)

    def forward(self, x: Any) -> Any:
        patches = F.unfold(x, (3, 2), padding=(1, 0), stride=(2, 1))
        mixed = self.mix(patches.transpose(1, 2)).transpose(1, 2)
        return F.fold(mixed, (6, 5), (3, 2), padding=(1, 0), stride=(2, 1))


def test_unfold_and_fold() -> None:
    check_torch(Folding(), np.zeros((1, 2, 6, 5)))


def test_projections_of_a_recurrent_state_are_refused() -> None:
    with pytest.raises(SourceError, match="proj_size=3, which ONNX's LSTM does not have; use proj_size=0"):
        load_forward(nn.LSTM(8, 5, proj_size=3, batch_first=True), (X,), batch_size=2)


def test_operators_the_exporter_does_not_know_are_named() -> None:
    with pytest.raises(
        SourceError, match=r"operator aten.adaptive_max_pool2d has no ONNX counterpart; use a pool"
    ):
        load_forward(nn.AdaptiveMaxPool2d((3, 3)), (np.zeros((1, 2, 8, 8)),), batch_size=2)


class Fourier(nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.fft.rfft(x).abs()


def test_operators_edgefl_does_not_know_are_named() -> None:
    forward = load_forward(Fourier(), (X,), batch_size=2)

    with pytest.raises(UnsupportedOperator, match=r"cover node DFT '.*: multiply by constant matrices"):
        normalize(forward.graph)


def test_loops_of_a_layer_are_refused_by_name() -> None:
    bag = nn.EmbeddingBag(10, 4, mode="mean")

    with pytest.raises(UnsupportedOperator, match=r"node Loop '.*': control flow .* fixed number of steps"):
        load_forward(bag, (np.zeros((1, 4), np.int64),), batch_size=2)


def value(name: str, *shape: int) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def scanning() -> Any:
    """A running sum whose length is that of the input."""
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "e"], ["t"]), helper.make_node("Identity", ["t"], ["o"])],
        "body", [value("s", 3), value("e", 3)], [value("t", 3), value("o", 3)],
    )  # fmt: skip
    return helper.make_node("Scan", ["start", "x"], ["last", "y"], "sum", body=body, num_scan_inputs=1)


def looping() -> Any:
    """A sum that ends when data say so."""
    flag = helper.make_tensor_value_info("c", TensorProto.BOOL, ())
    body = helper.make_graph(
        [
            helper.make_node("Add", ["s", "s"], ["y"]),
            helper.make_node("ReduceSum", ["y"], ["n"], keepdims=0),
            helper.make_node("Cast", ["n"], ["d"], to=TensorProto.BOOL),
        ],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, ()), flag, value("s", 3)],
        [helper.make_tensor_value_info("d", TensorProto.BOOL, ()), value("y", 3)],
    )
    return helper.make_node("Loop", ["", "", "start"], ["y"], "sum", body=body)


@pytest.mark.parametrize("node", [scanning(), looping()], ids=["Scan", "Loop"])
def test_loops_of_a_file_are_refused_by_name(node: Any) -> None:
    shape = (2, 3) if node.op_type == "Scan" else (3,)
    start = helper.make_tensor("start", TensorProto.FLOAT, (3,), [1.0, 2.0, 3.0])
    graph = helper.make_graph([node], "g", [value("x", 2, 3)], [value("y", *shape)], [start])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    onnx.checker.check_model(model)

    with pytest.raises(UnsupportedOperator, match=f"node {node.op_type} 'sum': control flow"):
        load_forward(model, batch_size=2)
