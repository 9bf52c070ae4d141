# SPDX-License-Identifier: Apache-2.0
"""Every registered gradient has cases here against torch autograd in float64; one without any fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from edgefl.converters.autodiff import VJPS
from tests.converters.autodiff_oracle import check, ints, normal

F = torch.nn.functional
T = torch.tensor
NONE = np.zeros(0)
ROWS, COLUMNS = np.array([[2, 0, 2], [1, 1, 0]]), np.array([[0, 2, 1, 1], [3, 0, 0, 2]])


@dataclass(frozen=True, eq=False)
class Case:
    """`function` is torch's version of the operator on `inputs`; `extra` are constant operands."""

    op: str
    function: Callable[..., torch.Tensor]
    inputs: tuple[np.ndarray, ...]
    extra: tuple[np.ndarray, ...]
    attributes: dict[str, Any]


def case(op: str, function: Callable[..., Any], *inputs: Any, extra: Any = (), **attributes: Any) -> Case:
    return Case(op, function, inputs, tuple(extra), attributes)


def positive(*shape: int) -> np.ndarray:
    return np.abs(normal(*shape)) + 0.3


def tied(*shape: int) -> np.ndarray:
    """Values of which many are equal, zeros among them."""
    return np.round(normal(*shape))


def unary(
    op: str, function: Callable[..., Any], domain: Callable[..., Any] = normal, **more: Any
) -> list[Case]:
    shapes = ((2, 3), (), (1, 2, 1, 3), (0, 3))
    return [case(op, function, np.asarray(domain(*shape)), **more) for shape in shapes]


def binary(op: str, function: Callable[..., Any], domain: Callable[..., Any] = normal) -> list[Case]:
    shapes = (
        ((2, 3), (2, 3)), ((2, 3), (3,)), ((3,), (2, 3)), ((2, 1), (1, 3)), ((), (2, 3)),
        ((4, 1, 2), (3, 1)), ((0, 3), (3,)), ((2, 3, 1, 2), (1, 4, 1)),
    )  # fmt: skip
    return [case(op, function, np.asarray(domain(*a)), np.asarray(domain(*b))) for a, b in shapes]


def reduction(op: str, function: Callable[..., Any], domain: Callable[..., Any] = normal) -> list[Case]:
    """`function(x, axes, keepdim)`."""
    found = []
    for axes, keep in (((1,), 1), ((0, -1), 0), ((-2,), 1), ((0, 1, 2), 0)):
        made = lambda x, a=axes, k=keep: function(x, a, bool(k))  # noqa: E731
        found.append(case(op, made, domain(2, 3, 4), extra=[ints(*axes)], keepdims=keep))
    return [*found, case(op, lambda x: function(x, (0, 1), True), domain(2, 3))]


def conv(x: tuple[int, ...], w: tuple[int, ...], **how: Any) -> Case:
    pads = how.get("padding", (0, 0))
    attributes = {
        "kernel_shape": w[2:], "pads": (*pads, *pads), "strides": how.get("stride", (1, 1)),
        "dilations": how.get("dilation", (1, 1)), "group": how.get("groups", 1),
    }  # fmt: skip
    return case("Conv", lambda a, b: F.conv2d(a, b, **how), normal(*x), normal(*w), **attributes)


def transposed(x: tuple[int, ...], w: tuple[int, ...], **how: Any) -> Case:
    pads = how.get("padding", (0, 0))
    attributes = {
        "kernel_shape": w[2:], "pads": (*pads, *pads), "strides": how.get("stride", (1, 1)),
        "dilations": how.get("dilation", (1, 1)), "group": how.get("groups", 1),
        "output_padding": how.get("output_padding", (0, 0)),
    }  # fmt: skip
    function = lambda a, b: F.conv_transpose2d(a, b, **how)  # noqa: E731
    return case("ConvTranspose", function, normal(*x), normal(*w), **attributes)


def resized(mode: str, size: tuple[int, int], out: tuple[int, int], **how: Any) -> Case:
    """`mode` is torch's; cubic uses torch's coefficient."""
    aligned = how.get("align_corners") is True
    named = {"nearest": "nearest", "nearest-exact": "nearest", "bilinear": "linear", "bicubic": "cubic"}
    attributes = {
        "mode": named[mode],
        "coordinate_transformation_mode": "align_corners" if aligned
        else "asymmetric" if mode == "nearest" else "half_pixel",
        "nearest_mode": "floor" if mode == "nearest" else "round_prefer_ceil",
        "cubic_coeff_a": -0.75,
    }  # fmt: skip
    extra = [NONE, NONE.astype(np.float32), ints(2, 3, *out)]
    return case(
        "Resize",
        lambda x: F.interpolate(x, out, mode=mode, **how),
        normal(2, 3, *size),
        extra=extra,
        **attributes,
    )


def pooled(op: str, function: Callable[..., Any], x: np.ndarray, kernel: Any, **how: Any) -> Case:
    pads = how.get("padding", (0, 0))
    attributes = {"kernel_shape": kernel, "strides": how.get("stride", kernel), "pads": (*pads, *pads)}
    if op == "AveragePool":
        attributes["count_include_pad"] = int(how.get("count_include_pad", False))
    if "dilation" in how:
        attributes["dilations"] = how["dilation"]
    return case(op, lambda x: function(x, kernel, **how), x, **attributes)


def _average(x: torch.Tensor, kernel: Any, **how: Any) -> torch.Tensor:
    return F.avg_pool2d(x, kernel, **{"count_include_pad": False, **how})


def _power_of(exponent: float) -> Case:
    return case("Pow", lambda x: x**exponent, positive(2, 3), extra=[np.array(exponent)])


CASES = [
    *binary("Add", torch.add),
    *binary("Sub", torch.sub),
    *binary("Mul", torch.mul),
    *binary("Div", torch.div, positive),
    *binary("Pow", torch.pow, positive),
    *binary("Max", torch.maximum, tied),
    *binary("Min", torch.minimum, tied),
    *(_power_of(e) for e in (0.0, 1.0, 2.0, 3.0, 0.5, -1.5)),
    case(
        "Max",
        lambda a, b, c: torch.maximum(torch.maximum(a, b), c),
        *(normal(2, 3, seed=s) for s in range(3)),
    ),
    case("Min", lambda a: a, normal(2, 3)),
    *unary("Neg", torch.neg),
    *unary("Reciprocal", torch.reciprocal, positive),
    *unary("Sqrt", torch.sqrt, positive),
    *unary("Exp", torch.exp),
    *unary("Log", torch.log, positive),
    *unary("Sin", torch.sin),
    *unary("Cos", torch.cos),
    *unary("Erf", torch.erf),
    *unary("Abs", torch.abs, tied),
    *unary("Tan", torch.tan),
    *unary("Sinh", torch.sinh),
    *unary("Cosh", torch.cosh),
    *unary("Atan", torch.atan),
    *unary("Asin", torch.asin, lambda *s: np.tanh(normal(*s))),
    *unary("Acos", torch.acos, lambda *s: np.tanh(normal(*s))),
    *unary("Atanh", torch.atanh, lambda *s: np.tanh(normal(*s))),
    *unary("Asinh", torch.asinh),
    *unary("Acosh", torch.acosh, lambda *s: positive(*s) + 1.0),
    *unary("Identity", torch.clone),
    *unary("Tanh", torch.tanh),
    *unary("Sigmoid", torch.sigmoid),
    *unary("Relu", torch.relu, tied),
    *unary("Softplus", F.softplus),
    *unary("LeakyRelu", lambda x: F.leaky_relu(x, 0.2), tied, alpha=0.2),
    *unary("LeakyRelu", F.leaky_relu, tied),
    *unary("Elu", lambda x: F.elu(x, 0.7), alpha=0.7),
    *unary("Elu", F.elu),
    *unary("HardSigmoid", lambda x: (5 * x / 6 + 0.5).clamp(0, 1), alpha=5 / 6, beta=0.5),
    case("Clip", lambda x: x.clamp(-1, 1), tied(4, 5), extra=[np.array(-1.0), np.array(1.0)]),
    case("Clip", lambda x: F.relu6(x), 4 * tied(4, 5), extra=[np.array(0.0), np.array(6.0)]),
    case("Clip", lambda x: x.clamp(min=0.5), normal(4, 5), extra=[np.array(0.5)]),
    case("Cast", lambda x: x.double(), normal(2, 3), to=11),
    case("Where", torch.where, normal(2, 3) > 0, normal(2, 3), normal(3)),
    case("Where", torch.where, normal(3) > 0, normal(2, 1), normal(1, 1, 3)),
    case("Where", torch.where, normal(2, 3) > 0, np.array(1.5), normal(0, 1, 3)),
    *(
        case("MatMul", torch.matmul, normal(*a), normal(*b))
        for a, b in (
            ((2, 3), (3, 4)),
            ((3,), (3, 4)),
            ((2, 3), (3,)),
            ((3,), (3,)),
            ((5, 2, 3), (3, 4)),
            ((2, 3), (5, 3, 4)),
            ((5, 1, 2, 3), (4, 3, 2)),
            ((0, 3), (3, 4)),
            ((2, 0), (0, 4)),
        )
    ),
    case(
        "Gemm",
        lambda a, b, c: 0.5 * a.T @ b + 2 * c,
        normal(3, 2),
        normal(3, 4),
        normal(4),
        transA=1,
        alpha=0.5,
        beta=2.0,
    ),
    case("Gemm", lambda a, b: a @ b.T, normal(2, 3), normal(4, 3), transB=1),
    case("Gemm", lambda a, b, c: a @ b + c, normal(2, 3), normal(3, 4), normal(2, 1)),
    conv((2, 3, 7, 6), (4, 3, 3, 2)),
    conv((2, 3, 7, 6), (4, 3, 3, 3), stride=(2, 3), padding=(1, 2)),
    conv((2, 4, 8, 7), (6, 2, 3, 2), groups=2, dilation=(2, 1)),
    conv((1, 4, 6, 6), (4, 1, 3, 3), groups=4),
    conv((2, 4, 6, 5), (8, 1, 3, 3), groups=4, stride=(2, 2), padding=(1, 1)),
    conv((2, 3, 5, 5), (4, 3, 1, 1)),
    conv((2, 3, 5, 5), (4, 3, 1, 1), stride=(2, 2)),
    conv((2, 3, 1, 9), (4, 3, 1, 3), dilation=(1, 3)),
    conv((2, 3, 4, 4), (5, 3, 4, 4)),
    conv((2, 3, 8, 8), (5, 3, 4, 4), stride=(4, 4)),
    conv((2, 2, 6, 6), (3, 2, 2, 2), stride=(3, 3)),
    conv((2, 4, 7, 7), (4, 1, 7, 7), groups=4, padding=(3, 3)),
    transposed((2, 3, 4, 3), (3, 4, 3, 2)),
    transposed((2, 3, 4, 3), (3, 4, 2, 2), stride=(2, 2)),
    transposed((2, 4, 4, 3), (4, 3, 3, 3), stride=(2, 3), padding=(1, 1), output_padding=(1, 2), groups=2),
    transposed((2, 3, 4, 3), (3, 4, 3, 3), dilation=(2, 1), padding=(1, 0)),
    transposed((2, 4, 3, 3), (4, 1, 2, 2), stride=(2, 2), groups=4),
    pooled("MaxPool", F.max_pool2d, tied(2, 3, 6, 7), (2, 2)),
    pooled("MaxPool", F.max_pool2d, tied(2, 3, 7, 7), (3, 3), stride=(2, 2), padding=(1, 1)),
    pooled("MaxPool", F.max_pool2d, normal(2, 3, 7, 7), (2, 3), stride=(1, 2), dilation=(2, 1)),
    pooled("AveragePool", _average, normal(2, 3, 6, 7), (2, 2)),
    pooled("AveragePool", _average, normal(2, 3, 7, 7), (3, 3), stride=(2, 1), padding=(1, 1)),
    pooled("AveragePool", _average, normal(2, 3, 7, 7), (3, 2), padding=(1, 1), count_include_pad=True),
    case("GlobalAveragePool", lambda x: x.mean((2, 3), keepdim=True), normal(2, 3, 4, 5)),
    *(
        resized(mode, (4, 5), out)
        for mode in ("nearest", "nearest-exact")
        for out in ((8, 10), (7, 3), (4, 9))
    ),
    *(
        resized(mode, (4, 5), out, align_corners=corners)
        for mode in ("bilinear", "bicubic")
        for out in ((8, 10), (7, 3))
        for corners in (False, True)
    ),
    *reduction("ReduceSum", lambda x, a, k: x.sum(a, k)),
    *reduction("ReduceMean", lambda x, a, k: x.mean(a, k)),
    *reduction("ReduceMax", lambda x, a, k: x.amax(a, k), tied),
    *reduction("ReduceMin", lambda x, a, k: x.amin(a, k), tied),
    *reduction("ReduceSumSquare", lambda x, a, k: x.square().sum(a, k)),
    *reduction("ReduceL1", lambda x, a, k: x.abs().sum(a, k), tied),
    *reduction("ReduceL2", lambda x, a, k: torch.linalg.vector_norm(x, 2, a, k)),
    *reduction("ReduceLogSumExp", lambda x, a, k: x.logsumexp(a, k)),
    case("ReduceSum", lambda x: x, normal(2, 3), extra=[ints()], noop_with_empty_axes=1),
    case("ReduceSum", lambda x: x.sum(1), normal(2, 0), extra=[ints(1)], keepdims=0),
    *(
        case(op, lambda x, f=f, a=axis: f(x, a), normal(2, 3, 4), axis=axis)
        for op, f in (("Softmax", torch.softmax), ("LogSoftmax", torch.log_softmax))
        for axis in (-1, 0, 1)
    ),
    *(
        case("CumSum", _f, normal(3, 4), extra=[np.array(a)], exclusive=e, reverse=r)
        for a, e, r, _f in (
            (1, 0, 0, lambda x: x.cumsum(1)),
            (-2, 0, 0, lambda x: x.cumsum(0)),
            (1, 1, 0, lambda x: x.cumsum(1) - x),
            (1, 0, 1, lambda x: x.flip(1).cumsum(1).flip(1)),
            (0, 1, 1, lambda x: x.flip(0).cumsum(0).flip(0) - x),
        )
    ),
    case("Reshape", lambda x: x.reshape(3, -1), normal(2, 3, 4), extra=[ints(3, -1)]),
    case("Flatten", lambda x: x.reshape(6, 4), normal(2, 3, 4), axis=2),
    case("Squeeze", lambda x: x.squeeze(1), normal(2, 1, 3), extra=[ints(1)]),
    case("Unsqueeze", lambda x: x[:, None, :, None], normal(2, 3), extra=[ints(1, 3)]),
    case("Transpose", lambda x: x.permute(2, 0, 1), normal(2, 3, 4), perm=(2, 0, 1)),
    case("Transpose", lambda x: x.T, normal(2, 3)),
    case("Concat", lambda *x: torch.cat(x, 1), normal(2, 3), normal(2, 1), normal(2, 0), axis=-1),
    case("Concat", lambda x: x, normal(2, 3), axis=0),
    case(
        "Slice", lambda x: x[1:5:2, 1:], normal(6, 3), extra=[ints(1, 1), ints(5, 9), ints(0, 1), ints(2, 1)]
    ),
    case("Slice", lambda x: x.flip(1)[:, :2], normal(2, 4), extra=[ints(-1), ints(-3), ints(1), ints(-1)]),
    case("Slice", lambda x: x[:, 2:2], normal(2, 4), extra=[ints(2), ints(2), ints(1)]),
    case("Pad", lambda x: F.pad(x, (2, 1)), normal(2, 3), extra=[ints(0, 2, 0, 1)]),
    case(
        "Pad",
        lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect"),
        normal(1, 1, 3, 4),
        extra=[ints(0, 0, 0, 1, 0, 0, 1, 2)],
        mode="reflect",
    ),
    case(
        "Pad",
        lambda x: F.pad(x, (1, 2, 0, 1), mode="replicate"),
        normal(1, 1, 3, 4),
        extra=[ints(0, 0, 0, 1, 0, 0, 1, 2)],
        mode="edge",
    ),
    case("Expand", lambda x: x.expand(2, 3, 4), normal(3, 1), extra=[ints(2, 3, 4)]),
    case("Tile", lambda x: x.repeat(2, 3), normal(2, 3), extra=[ints(2, 3)]),
    case("Trilu", lambda x: x.tril(1), normal(2, 4, 3), extra=[np.array(1)], upper=0),
    case("Trilu", torch.triu, normal(3, 4)),
    case(
        "Gather",
        lambda x: x[:, T([[2, 0], [2, -1]])],
        normal(2, 3, 4),
        extra=[np.array([[2, 0], [2, -1]])],
        axis=1,
    ),
    case("Gather", lambda x: x[1:3], normal(4, 2), extra=[ints(1, 2)]),
    case("Gather", lambda x: x[..., 1], normal(2, 3), extra=[np.array(1)], axis=-1),
    case("Gather", lambda x: x[T([], dtype=torch.int64)], normal(4, 2), extra=[ints()]),
    case("GatherElements", lambda x: x.gather(0, T(ROWS)), normal(3, 3), extra=[ROWS], axis=0),
    case("GatherElements", lambda x: x.gather(1, T(COLUMNS)), normal(2, 4), extra=[COLUMNS], axis=-1),
    case(
        "GatherND",
        lambda x: x[T([0, 1, 0]), T([2, 0, 2])],
        normal(2, 3, 4),
        extra=[np.array([[0, 2], [1, 0], [0, 2]])],
    ),
]


def _scattered(reduction: str) -> Callable[..., torch.Tensor]:
    def run(x: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        index = T([[2, 0], [1, 3]])
        return x.scatter_add(1, index, updates) if reduction == "add" else x.scatter(1, index, updates)

    return run


def _put(accumulate: bool) -> Callable[..., torch.Tensor]:
    return lambda x, updates: x.index_put((T([3, 0]),), updates, accumulate=accumulate)


def indexed(op: str, function: Callable[..., Any], index: Any, updates: Any, **attributes: Any) -> Any:
    """Operators whose constant index stands between the tensors."""
    inputs = [normal(4, 4), np.asarray(index), updates]
    return op, lambda x, _, u: function(x, u), inputs, attributes


INDEXED = [
    *(
        indexed("ScatterElements", _scattered(r), [[2, 0], [1, 3]], normal(2, 2), axis=-1, reduction=r)
        for r in ("none", "add")
    ),
    *(indexed("ScatterND", _put(r == "add"), [[3], [0]], normal(2, 4), reduction=r) for r in ("none", "add")),
]

ELSEWHERE = {
    "Split": "several outputs: test_autodiff_shape.py",
    "TopK": "several outputs: test_autodiff_indexing.py",
}


@pytest.mark.parametrize("one", CASES, ids=lambda c: c.op)
def test_gradient_is_torchs(one: Case) -> None:
    check(one.op, one.function, list(one.inputs), *one.extra, **one.attributes)


@pytest.mark.parametrize(("op", "function", "inputs", "attributes"), INDEXED)
def test_gradient_of_scatters_is_torchs(op: str, function: Any, inputs: Any, attributes: Any) -> None:
    check(op, function, inputs, **attributes)


def test_every_registered_gradient_has_a_case() -> None:
    counted = Counter(one.op for one in CASES) + Counter(op for op, *_ in INDEXED)

    assert set(VJPS) - set(counted) == set(ELSEWHERE)
    assert set(counted) <= set(VJPS)
