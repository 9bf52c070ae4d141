# SPDX-License-Identifier: Apache-2.0
"""Frozen weights in eight and four bits as ML Programs: as small as they were, and the same values."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgefl
from edgefl.bundle import Bundle
from edgefl.converters.targets.compact import stored_bits
from edgefl.converters.targets.coreml import TARGETS, export_coreml, to_coreml
from edgefl.converters.targets.coreml.golden import golden_inputs
from edgefl.graph import read_onnx, run
from tests.converters.coreml_oracle import difference, execute

pytest.importorskip("coremltools")

BITS = (None, 8, 4)
SHAPE = (3, 8, 8)


class Network(nn.Module):
    """Frozen weights in a dilated, a transposed and a plain product, behind a trained convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.dilated = nn.Conv2d(8, 32, 3, padding=2, dilation=2)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.dense = nn.Linear(16 * 16 * 16, 16)
        self.last = nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.up(torch.relu(self.dilated(torch.relu(self.first(x))))))
        return self.last(torch.tanh(self.dense(x.flatten(1))))


def convert(bits: int | None, trainable: str) -> Bundle:
    examples = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.manual_seed(0)
        return edgefl.convert(
            Network(), examples, batch_size=2, targets=("onnx",), trainable=trainable, frozen_bits=bits
        )


@pytest.fixture(scope="module")
def through() -> dict[int | None, Bundle]:
    """By bits: the first layer is trained, so gradients pass through every frozen weight."""
    return {bits: convert(bits, "first.*,last.*") for bits in BITS}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["step", "infer"])
def test_small_weights_are_exact(
    through: dict[int | None, Bundle], kind: str, target: str, bits: int
) -> None:
    graph = read_onnx(through[bits].artifact("onnx", kind))
    feeds = golden_inputs(through[bits], graph)

    found = execute(to_coreml(graph, kind, target=target), graph, feeds)

    assert max(difference(found, run(graph, feeds)).values()) < 1e-6


@pytest.mark.parametrize(("bits", "target", "times"), [(8, "iOS16", 2.8), (8, "iOS18", 2.8), (4, "iOS18", 4)])
def test_small_weights_stay_small(
    through: dict[int | None, Bundle], bits: int, target: str, times: float
) -> None:
    whole, small = (
        to_coreml(read_onnx(through[b].artifact("onnx", "step")), "step", target=target) for b in (None, bits)
    )

    assert len(whole.data) > times * len(small.data)
    assert small.note == ""


def test_four_bits_are_floats_before_ios_18(through: dict[int | None, Bundle]) -> None:
    report = export_coreml(through[4], "iOS17").report

    assert "iOS18 keeps them small" in report["step"]["note"]
    assert "iOS18 keeps them small" in report["infer"]["note"]


@pytest.mark.parametrize("bits", [8, 4])
def test_the_float16_step_keeps_them_small_too(through: dict[int | None, Bundle], bits: int) -> None:
    graph = read_onnx(through[bits].artifact("onnx", "step"))
    feeds = golden_inputs(through[bits], graph)

    made = to_coreml(graph, "step-float16", target="iOS18", half=True)
    found = execute(made, graph, feeds)

    assert max(difference(found, run(graph, feeds)).values()) < 0.1
    assert made.half_operators["constexpr_blockwise_shift_scale"] == 5
    assert "constexpr_blockwise_shift_scale" not in to_coreml(graph, "step", target="iOS17").operators


@pytest.mark.parametrize("bits", [8, 4])
def test_a_frozen_prefix_keeps_them_small(bits: int) -> None:
    bundle = convert(bits, "last.*")
    graph = read_onnx(bundle.artifact("onnx", "features"))
    feeds = golden_inputs(bundle, graph)
    exported = export_coreml(bundle, "iOS18")
    made = to_coreml(graph, "features", target="iOS18")

    found = execute(made, graph, feeds)

    assert next(a.data for a in exported.artifacts if a.kind == "features") == made.data
    assert max(difference(found, run(graph, feeds)).values()) < 1e-6
    assert made.operators["constexpr_blockwise_shift_scale"] == 3


def test_equal_graphs_give_equal_bytes(through: dict[int | None, Bundle]) -> None:
    graph = read_onnx(through[8].artifact("onnx", "infer"))

    assert to_coreml(graph, "infer").data == to_coreml(graph, "infer").data


@pytest.mark.parametrize("bits", BITS)
def test_a_graph_says_in_how_many_bits_it_stores_weights(
    through: dict[int | None, Bundle], bits: int | None
) -> None:
    assert stored_bits(read_onnx(through[bits].artifact("onnx", "step"))) == bits
