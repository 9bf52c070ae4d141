# SPDX-License-Identifier: Apache-2.0
"""Gradients through operators that `normalize` rewrites, against torch autograd in float64.

The operators' own gradients are in test_autodiff_registry.py; here the rewrite is what is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from edgefl.converters.autodiff.expression import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.graft import graft
from edgefl.converters.normalize import REWRITES, normalize
from edgefl.graph import Graph, Node, TensorType
from tests.converters.autodiff_oracle import finish, ints, normal, torch_gradients
from tests.converters.test_autodiff_registry import COLUMNS, T, positive, tied

F = torch.nn.functional


@dataclass(frozen=True, eq=False)
class Case:
    """`function` is torch's version of the operator on those of `inputs` that vary.

    Integers, booleans and single numbers are constants.
    """

    op: str
    function: Callable[..., torch.Tensor]
    inputs: tuple[np.ndarray | None, ...]
    attributes: dict[str, Any]
    output: int

    @property
    def varying(self) -> dict[str, np.ndarray]:
        return {n: x for n, x in self.named.items() if x.dtype.kind == "f" and x.ndim}

    @property
    def named(self) -> dict[str, np.ndarray]:
        return {f"in{i}": x for i, x in enumerate(self.inputs) if x is not None}


def case(op: str, function: Callable[..., Any], *inputs: Any, output: int = 0, **attributes: Any) -> Case:
    return Case(op, function, inputs, attributes, output)


def rewritten(one: Case, seed: np.ndarray) -> list[np.ndarray]:
    """edgefl's gradients for the inputs that vary."""
    inputs = {n: TensorType.of(x) for n, x in one.varying.items()}
    outputs = tuple(f"out{i}" for i in range(2 if one.op == "TopK" else one.output + 1))
    names = tuple("" if x is None else f"in{i}" for i, x in enumerate(one.inputs))
    node = Node(one.op, names, outputs, one.attributes, "tested")
    constants = {n: x for n, x in one.named.items() if n not in inputs}
    made = {outputs[one.output]: TensorType.of(seed)}
    graph = normalize(Graph(inputs, made, (node,), constants))
    b = GraphBuilder()
    bound = {n: b.input(n, t) for n, t in inputs.items()}
    y = Expr(b, graft(b, graph, bound, list(graph.outputs))[outputs[one.output]])
    return finish(b, y, list(inputs), list(one.varying.values()), seed)


def recurrent(kind: str, reverse: bool) -> Case:
    """One direction over 4 steps of 2 sequences, as torch stores it: gates permuted to ONNX's order."""
    gates, order = {"RNN": (1, [0]), "GRU": (3, [1, 0, 2]), "LSTM": (4, [0, 2, 3, 1])}[kind]
    width, hidden = 3, 5

    def onnx_order(x: torch.Tensor) -> torch.Tensor:
        """From ONNX's order of gates to torch's."""
        parts = x.reshape(gates, hidden, -1)
        return torch.cat([parts[i] for i in order])

    def function(x: Any, w: Any, r: Any, bias: Any) -> torch.Tensor:
        layer = getattr(torch.nn, kind)(width, hidden).double()
        first, second = bias[0].split(gates * hidden)
        values = {
            "weight_ih_l0": onnx_order(w[0]), "weight_hh_l0": onnx_order(r[0]),
            "bias_ih_l0": onnx_order(first)[:, 0], "bias_hh_l0": onnx_order(second)[:, 0],
        }  # fmt: skip
        y, _ = torch.func.functional_call(layer, values, (x.flip(0) if reverse else x,))
        return (y.flip(0) if reverse else y)[:, None]

    more = {"direction": "reverse" if reverse else "forward", "hidden_size": hidden}
    more |= {"linear_before_reset": 1} if kind == "GRU" else {}
    x, w, r = normal(4, 2, width), normal(1, gates * hidden, width), normal(1, gates * hidden, hidden)
    return case(kind, function, x, w, r, normal(1, 2 * gates * hidden), **more)


IMAGE = normal(2, 4, 5, 6)
VECTOR, OTHER = normal(4), normal(4, seed=1)
MEAN, VARIANCE = normal(4, seed=2), positive(4)


def _channels(v: torch.Tensor) -> torch.Tensor:
    return v[:, None, None]


def _frozen_norm(x: Any, g: Any, b: Any, m: Any, v: Any) -> torch.Tensor:
    return (x - _channels(m)) / _channels(v + 1e-5).sqrt() * _channels(g) + _channels(b)


def _rms(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, (4,), g, 1e-5)


def _group(x: torch.Tensor, g: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return F.group_norm(x, 2, g.repeat_interleave(2), b.repeat_interleave(2), 1e-5)


CASES = [
    case("Gelu", F.gelu, normal(3, 4)),
    case("Gelu", lambda x: F.gelu(x, approximate="tanh"), normal(3, 4), approximate="tanh"),
    case("Erfc", torch.erfc, normal(3, 4)),
    case("HardSwish", lambda x: x * (x / 6 + 0.5).clamp(0, 1), 3 * normal(5, 6)),
    case("Swish", F.silu, normal(3, 4)),
    case("Mish", F.mish, normal(3, 4)),
    case("Softsign", F.softsign, normal(3, 4)),
    case("PRelu", lambda x, a: F.prelu(x, a), IMAGE, normal(1)),
    case("PRelu", lambda x, a: torch.where(x > 0, x, a * x), IMAGE, normal(4, 1, 1)),
    case("Selu", F.selu, normal(3, 4)),
    case("Celu", lambda x: F.celu(x, 0.8), normal(3, 4), alpha=0.8),
    case("ThresholdedRelu", lambda x: F.threshold(x, 0.5, 0), normal(3, 4), alpha=0.5),
    case("Shrink", lambda x: F.softshrink(x, 0.4), normal(3, 4), lambd=0.4, bias=0.4),
    case("Shrink", lambda x: F.hardshrink(x, 0.4), normal(3, 4), lambd=0.4),
    case(
        "Gemm",
        lambda a, b, c: 0.5 * a.T @ b + 2 * c,
        normal(3, 2),
        normal(3, 4),
        VECTOR,
        transA=1,
        alpha=0.5,
        beta=2.0,
    ),
    case("Sum", lambda a, b, c: a + b + c, normal(2, 3), normal(3), normal(2, 1)),
    case("Mean", lambda a, b: (a + b) / 2, normal(2, 3), normal(3)),
    case("Max", lambda a, b: torch.maximum(a, b), tied(2, 3), tied(3)),
    case("Min", lambda a, b: torch.minimum(a, b), tied(2, 3), tied(3)),
    case("Pow", lambda x: x**3, normal(2, 3), np.array(3)),
    case("Clip", lambda x: x.clamp(-0.5, 0.5), normal(3, 4), np.array(-0.5), np.array(0.5)),
    case("MatMul", torch.matmul, normal(2, 3, 4), normal(4, 5)),
    case("MatMul", torch.matmul, normal(4), normal(2, 4, 5)),
    case(
        "Einsum",
        lambda a, b: torch.einsum("bhid,bhjd->bhij", a, b),
        normal(2, 3, 4, 5),
        normal(2, 3, 6, 5),
        equation="bhid,bhjd->bhij",
    ),
    case(
        "Einsum", lambda a, b: torch.einsum("bi,ij->j", a, b), normal(2, 3), normal(3, 4), equation="bi,ij->j"
    ),
    case("Einsum", lambda a: torch.einsum("bij->bji", a), normal(2, 3, 4), equation="bij->bji"),
    case("ReduceSum", lambda x: x.sum(1), normal(2, 3), ints(1), keepdims=0),
    case("ReduceMean", lambda x: x.mean(), normal(2, 3), keepdims=0),
    case("ReduceMax", lambda x: x.amax(1), tied(4, 5), ints(1), keepdims=0),
    case("ReduceMin", lambda x: x.amin(0, True), tied(4, 5), ints(0)),
    case("ReduceL1", lambda x: x.abs().sum(1), normal(2, 3), ints(1), keepdims=0),
    case("ReduceL2", lambda x: x.norm(dim=1), normal(2, 3), ints(1), keepdims=0),
    case("ReduceSumSquare", lambda x: x.square().sum(1), normal(2, 3), ints(1), keepdims=0),
    case("ReduceLogSum", lambda x: x.sum(1).log(), positive(2, 3), ints(1), keepdims=0),
    case("ReduceLogSumExp", lambda x: x.logsumexp(1), 30 * normal(2, 3), ints(1), keepdims=0),
    case("ReduceProd", lambda x: x.prod(1), normal(2, 3), ints(1), keepdims=0),
    case("CumSum", lambda x: x.cumsum(1), normal(3, 5), np.array(1)),
    case(
        "CumSum", lambda x: x.flip(0).cumsum(0).flip(0) - x, normal(3, 5), np.array(0), exclusive=1, reverse=1
    ),
    case("Softmax", lambda x: x.softmax(1), normal(2, 3, 4), axis=1),
    case("LogSoftmax", lambda x: x.log_softmax(-1), normal(2, 3, 4)),
    case("BatchNormalization", _frozen_norm, IMAGE, VECTOR, OTHER, MEAN, VARIANCE),
    case("LayerNormalization", lambda x, g, b: F.layer_norm(x, (4,), g, b), normal(2, 3, 4), VECTOR, OTHER),
    case(
        "LayerNormalization",
        lambda x, g: F.layer_norm(x, (3, 4), g, None, 1e-3),
        normal(2, 3, 4),
        normal(3, 4),
        axis=1,
        epsilon=1e-3,
    ),
    case("RMSNormalization", _rms, normal(2, 3, 4), VECTOR),
    case("SimplifiedLayerNormalization", _rms, normal(2, 3, 4), VECTOR),
    case("InstanceNormalization", lambda x, g, b: F.instance_norm(x, None, None, g, b), IMAGE, VECTOR, OTHER),
    case("GroupNormalization", _group, IMAGE, normal(2), normal(2, seed=1), num_groups=2),
    case(
        "MeanVarianceNormalization",
        lambda x: (
            (x - x.mean((0, 2, 3), True)) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-9).sqrt()
        ),
        IMAGE,
    ),
    case("LpNormalization", lambda x: x / x.norm(dim=1, keepdim=True), normal(2, 3), axis=1),
    case("LpNormalization", lambda x: x / x.abs().sum(1, True), normal(2, 3), axis=1, p=1),
    case("LRN", lambda x: F.local_response_norm(x, 3, 1e-2, 0.75, 1.0), IMAGE, size=3, alpha=1e-2),
    case(
        "Conv",
        lambda x, w, b: F.conv1d(x, w, b, 2, 1),
        normal(2, 3, 9),
        normal(4, 3, 3),
        VECTOR,
        strides=(2,),
        pads=(1, 1),
    ),
    case(
        "Conv",
        lambda x, w: F.conv1d(x, w, None, 1, 0, 2, 3),
        normal(2, 3, 9),
        normal(3, 1, 3),
        dilations=(2,),
        group=3,
    ),
    case(
        "Conv",
        lambda x, w, b: F.conv2d(x, w, b, padding="same"),
        IMAGE,
        normal(3, 4, 3, 3),
        normal(3),
        auto_pad="SAME_UPPER",
    ),
    case(
        "ConvTranspose",
        lambda x, w, b: F.conv_transpose1d(x, w, b, 2, 1, 1),
        normal(2, 3, 5),
        normal(3, 4, 3),
        VECTOR,
        strides=(2,),
        pads=(1, 1),
        output_padding=(1,),
    ),
    case(
        "MaxPool",
        lambda x: F.max_pool1d(x, 3, 2, 1),
        tied(2, 3, 9),
        kernel_shape=(3,),
        strides=(2,),
        pads=(1, 1),
    ),
    case(
        "AveragePool",
        lambda x: F.avg_pool1d(x, 3, 2, 1),
        normal(2, 3, 9),
        kernel_shape=(3,),
        strides=(2,),
        pads=(1, 1),
        count_include_pad=1,
    ),
    case(
        "AveragePool",
        lambda x: F.avg_pool2d(x, 9, ceil_mode=True, padding=3, count_include_pad=False),
        normal(2, 3, 4, 5),
        kernel_shape=(9, 9),
        strides=(9, 9),
        pads=(3,) * 4,
        ceil_mode=1,
    ),
    case("GlobalAveragePool", lambda x: x.mean((2, 3), True), IMAGE),
    case("GlobalMaxPool", lambda x: x.amax((2, 3), True), IMAGE),
    case(
        "Col2Im",
        lambda x: F.fold(x, (6, 7), (3, 2), 1, 1, (2, 2)),
        normal(2, 12, 12),
        ints(6, 7),
        ints(3, 2),
        strides=(2, 2),
        pads=(1,) * 4,
    ),
    case(
        "Col2Im",
        lambda x: F.fold(x, (4, 4), (2, 2), (2, 2), 0, (1, 1)),
        normal(1, 8, 4),
        ints(4, 4),
        ints(2, 2),
        dilations=(2, 2),
    ),
    *(recurrent(kind, reverse) for kind in ("RNN", "GRU", "LSTM") for reverse in (False, True)),
    case("Cast", lambda x: x.clone(), normal(2, 3), to=11),
    case("Identity", lambda x: x.clone(), normal(2, 3)),
    case("Dropout", lambda x: x.clone(), normal(2, 3)),
    case("Reshape", lambda x: x.reshape(2, 6), normal(2, 2, 3), ints(0, -1)),
    case("Flatten", lambda x: x.reshape(2, 6), normal(2, 2, 3)),
    case("Squeeze", lambda x: x[:, 0], normal(2, 1, 3), ints(1)),
    case("Unsqueeze", lambda x: x[:, None], normal(2, 3), ints(1)),
    case("Transpose", lambda x: x.permute(1, 2, 0), normal(2, 3, 4), perm=(1, 2, 0)),
    case("Concat", lambda a, b: torch.cat([a, b], 1), normal(2, 3), normal(2, 1), axis=1),
    case("Split", lambda x: x[:, 2:], normal(3, 5), ints(2, 3), axis=1, output=1),
    case("Slice", lambda x: x[1:, ::2], normal(3, 5), ints(1, 0), ints(9, 9), ints(0, 1), ints(1, 2)),
    case("Pad", lambda x: F.pad(x, (1, 2), value=3.0), normal(2, 3), ints(0, 1, 0, 2), np.array(3.0)),
    case("Pad", lambda x: F.pad(x, (1, 2), mode="reflect"), normal(2, 4), ints(0, 1, 0, 2), mode="reflect"),
    case(
        "Pad",
        lambda x: F.pad(x[None], (1, 2), mode="circular")[0],
        normal(2, 4),
        ints(0, 1, 0, 2),
        mode="wrap",
    ),
    case("Expand", lambda x: x.expand(2, 3, 4), normal(3, 1), ints(2, 3, 4)),
    case("Tile", lambda x: x.repeat(2, 2), normal(2, 3), ints(2, 2)),
    case("Trilu", lambda x: x.tril(-1), normal(4, 4), np.array(-1), upper=0),
    case("Gather", lambda x: x[:, T(COLUMNS)], normal(2, 4, 3), COLUMNS, axis=1),
    case("GatherND", lambda x: x[T([1, 0]), T([2, 2])], normal(2, 3, 4), np.array([[1, 2], [0, 2]])),
    case("TopK", lambda x: x.topk(2, 1).values, normal(3, 5), ints(2), axis=1),
    case("DepthToSpace", lambda x: F.pixel_shuffle(x, 2), IMAGE, blocksize=2, mode="CRD"),
    case("SpaceToDepth", lambda x: F.pixel_unshuffle(x, 2), normal(2, 1, 4, 6), blocksize=2),
    case(
        "ReverseSequence",
        lambda x: torch.stack([x[:, 0].flip(0), torch.cat([x[:2, 1].flip(0), x[2:, 1]])], 1),
        normal(4, 2, 3),
        ints(4, 2),
    ),
    case("Compress", lambda x: x[T([0, 2])], normal(3, 2), np.array([True, False, True]), axis=0),
    case(
        "Resize",
        lambda x: F.interpolate(x, (9, 4), mode="bilinear"),
        IMAGE,
        None,
        None,
        ints(2, 4, 9, 4),
        mode="linear",
    ),
    case(
        "SoftmaxCrossEntropyLoss",
        lambda x: F.cross_entropy(x, T([0, 2, 1, 1])),
        normal(4, 3),
        np.array([0, 2, 1, 1]),
    ),
    case(
        "NegativeLogLikelihoodLoss",
        lambda x: F.nll_loss(x, T([0, 2, 1, 1])),
        normal(4, 3),
        np.array([0, 2, 1, 1]),
    ),
]

UNDIFFERENTIATED = frozenset(
    """ArgMax ArgMin CastLike ConstantOfShape NonZero OneHot Range Shape Size Unique""".split()  # noqa: SIM905
)
"""Rewrites whose results are integers or constants."""


@pytest.mark.parametrize("one", CASES, ids=lambda c: c.op)
def test_gradient_through_a_rewrite_is_torchs(one: Case) -> None:
    expected, seed = torch_gradients(one.function, list(one.varying.values()))

    found = rewritten(one, seed)

    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-7, atol=1e-9)


def test_every_rewrite_has_a_case() -> None:
    assert set(REWRITES) - UNDIFFERENTIATED == {one.op for one in CASES}
