# SPDX-License-Identifier: Apache-2.0
"""Each operation against torch, in programs that coremltools built and saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.coreml_evaluator.builders import save_program
from tests.coreml_evaluator.model import load

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")
F = torch.nn.functional

Case = tuple[dict[str, tuple[int, ...]], Callable[..., Any], Callable[..., Any]]
X = {"x": (2, 4, 6, 6)}
XY = {"x": (2, 3, 4), "y": (1, 3, 4)}
W = {"x": (2, 4, 6, 6), "w": (6, 4, 3, 3)}


def positive(x: Any) -> Any:
    return x.abs() + 0.5


UNARY: dict[str, Callable[[Any], Any]] = {
    "abs": torch.abs, "atan": torch.atan, "ceil": torch.ceil, "cos": torch.cos, "cosh": torch.cosh, "erf":
    torch.erf,
    "exp": torch.exp, "exp2": torch.exp2, "floor": torch.floor, "round": torch.round, "sign": torch.sign,
    "sin": torch.sin, "sinh": torch.sinh, "square": torch.square, "tan": torch.tan, "tanh": torch.tanh,
    "relu": F.relu, "relu6": F.relu6, "sigmoid": torch.sigmoid, "silu": F.silu, "softplus": F.softplus,
    "softsign": F.softsign,
}  # fmt: skip
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "real_div": torch.div, "floor_div":
    torch.floor_divide,
    "mod": torch.remainder, "maximum": torch.maximum, "minimum": torch.minimum,
}  # fmt: skip
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "equal": torch.eq, "not_equal": torch.ne, "greater": torch.gt, "greater_equal": torch.ge, "less":
    torch.lt,
    "less_equal": torch.le,
}  # fmt: skip
CASES: dict[str, Case] = {
    "log": ({"x": (3, 4)}, lambda mb, x: mb.log(x=mb.add(x=mb.abs(x=x), y=0.5)), lambda x: positive(x).log()),
    "sqrt": (
        {"x": (3, 4)},
        lambda mb, x: mb.sqrt(x=mb.add(x=mb.abs(x=x), y=0.5)),
        lambda x: positive(x).sqrt(),
    ),
    "rsqrt": (
        {"x": (3, 4)},
        lambda mb, x: mb.rsqrt(x=mb.add(x=mb.abs(x=x), y=0.5)),
        lambda x: positive(x).rsqrt(),
    ),
    "inverse": ({"x": (3, 4)}, lambda mb, x: mb.inverse(x=x, epsilon=0.25), lambda x: 1 / (x + 0.25)),
    "pow": (XY, lambda mb, x, y: mb.pow(x=mb.add(x=mb.abs(x=x), y=0.5), y=y), lambda x, y: positive(x) ** y),
    "clip": (X, lambda mb, x: mb.clip(x=x, alpha=-0.5, beta=0.7), lambda x: x.clamp(-0.5, 0.7)),
    "leaky_relu": (X, lambda mb, x: mb.leaky_relu(x=x, alpha=0.2), lambda x: F.leaky_relu(x, 0.2)),
    "elu": (X, lambda mb, x: mb.elu(x=x, alpha=0.7), lambda x: F.elu(x, 0.7)),
    "prelu": (
        X,
        lambda mb, x: mb.prelu(x=x, alpha=np.float32([0.1, 0.2, 0.3, 0.4])),
        lambda x: F.prelu(x, torch.tensor([0.1, 0.2, 0.3, 0.4])),
    ),
    "sigmoid_hard": (
        X,
        lambda mb, x: mb.sigmoid_hard(x=x, alpha=1 / 6, beta=0.5),
        lambda x: F.hardsigmoid(x),
    ),
    "gelu": (X, lambda mb, x: mb.gelu(x=x, mode="EXACT"), lambda x: F.gelu(x)),
    "gelu_tanh": (
        X,
        lambda mb, x: mb.gelu(x=x, mode="TANH_APPROXIMATION"),
        lambda x: F.gelu(x, approximate="tanh"),
    ),
    "softmax": (X, lambda mb, x: mb.softmax(x=x, axis=1), lambda x: x.softmax(1)),
    "select": (
        XY,
        lambda mb, x, y: mb.select(cond=mb.greater(x=x, y=y), a=x, b=mb.mul(x=y, y=mb.sub(x=x, y=x))),
        lambda x, y: torch.where(x > y, x, y * (x - x)),
    ),
    "cast": (
        X,
        lambda mb, x: mb.cast(x=mb.mul(x=x, y=3.0), dtype="int32"),
        lambda x: (x * 3).to(torch.int32),
    ),
    "matmul": (
        {"x": (2, 3, 5), "y": (2, 4, 5)},
        lambda mb, x, y: mb.matmul(x=x, y=y, transpose_y=True),
        lambda x, y: x @ y.mT,
    ),
    "matmul_transpose_x": (
        {"x": (2, 5, 3), "y": (5, 4)},
        lambda mb, x, y: mb.matmul(x=x, y=y, transpose_x=True),
        lambda x, y: x.mT @ y,
    ),
    "einsum": (
        {"x": (2, 4, 3, 5), "y": (2, 5, 3, 6)},
        lambda mb, x, y: mb.einsum(values=(x, y), equation="bnij,bjik->bnik"),
        lambda x, y: torch.einsum("bnij,bjik->bnik", x, y),
    ),
    "conv": (W, lambda mb, x, w: mb.conv(x=x, weight=w, pad_type="valid"), lambda x, w: F.conv2d(x, w)),
    "conv_stride_pad": (
        W,
        lambda mb, x, w: mb.conv(x=x, weight=w, pad_type="custom", pad=[1, 2, 0, 1], strides=[2, 1]),
        lambda x, w: F.conv2d(F.pad(x, (0, 1, 1, 2)), w, stride=(2, 1)),
    ),
    "conv_same": (
        W,
        lambda mb, x, w: mb.conv(x=x, weight=w, pad_type="same"),
        lambda x, w: F.conv2d(x, w, padding="same"),
    ),
    "conv_same_stride": (
        {"x": (2, 4, 6, 6), "w": (6, 4, 3, 3)},
        lambda mb, x, w: mb.conv(x=x, weight=w, pad_type="same", strides=[2, 2]),
        lambda x, w: F.conv2d(F.pad(x, (0, 1, 0, 1)), w, stride=2),
    ),
    "conv_groups": (
        {"x": (2, 4, 6, 6), "w": (8, 2, 3, 3)},
        lambda mb, x, w: mb.conv(x=x, weight=w, groups=2, pad_type="valid"),
        lambda x, w: F.conv2d(x, w, groups=2),
    ),
    "conv_dilated": (
        X,
        lambda mb, x: mb.conv(
            x=x, weight=np.ones((3, 4, 2, 2), np.float32), dilations=[2, 3], pad_type="valid"
        ),
        lambda x: F.conv2d(x, torch.ones(3, 4, 2, 2), dilation=(2, 3)),
    ),
    "conv_1d": (
        {"x": (2, 4, 9), "w": (3, 4, 3)},
        lambda mb, x, w: mb.conv(x=x, weight=w, strides=[2], pad_type="custom", pad=[1, 1]),
        lambda x, w: F.conv1d(x, w, stride=2, padding=1),
    ),
    "conv_bias": (
        W,
        lambda mb, x, w: mb.conv(x=x, weight=w, bias=np.arange(6, dtype=np.float32), pad_type="valid"),
        lambda x, w: F.conv2d(x, w, torch.arange(6.0)),
    ),
    "conv_transpose": (
        X,
        lambda mb, x: mb.conv_transpose(x=x, weight=np.ones((4, 3, 3, 2), np.float32), strides=[2, 1]),
        lambda x: F.conv_transpose2d(x, torch.ones(4, 3, 3, 2), stride=(2, 1)),
    ),
    "conv_transpose_groups": (
        X,
        lambda mb, x: mb.conv_transpose(
            x=x, weight=np.ones((4, 3, 3, 2), np.float32), groups=2, dilations=[2, 2]
        ),
        lambda x: F.conv_transpose2d(x, torch.ones(4, 3, 3, 2), groups=2, dilation=2),
    ),
    "conv_transpose_shape": (
        X,
        lambda mb, x: mb.conv_transpose(
            x=x,
            weight=np.ones((4, 3, 3, 3), np.float32),
            strides=[2, 2],
            pad_type="custom",
            pad=[1, 1, 1, 1],
            output_shape=[2, 3, 12, 12],
        ),
        lambda x: F.conv_transpose2d(x, torch.ones(4, 3, 3, 3), stride=2, padding=1, output_padding=1),
    ),
    "max_pool": (
        X,
        lambda mb, x: mb.max_pool(
            x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1]
        ),
        lambda x: F.max_pool2d(x, 3, 2, 1),
    ),
    "max_pool_ceil": (
        X,
        lambda mb, x: mb.max_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="valid", ceil_mode=True),
        lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    ),
    "avg_pool": (
        X,
        lambda mb, x: mb.avg_pool(
            x=x, kernel_sizes=[2, 3], strides=[2, 1], pad_type="custom", pad=[1, 1, 1, 1]
        ),
        lambda x: F.avg_pool2d(x, (2, 3), (2, 1), 1),
    ),
    "avg_pool_exclude": (
        X,
        lambda mb, x: mb.avg_pool(
            x=x,
            kernel_sizes=[3, 3],
            strides=[2, 2],
            pad_type="custom",
            pad=[1, 1, 1, 1],
            exclude_padding_from_average=True,
            ceil_mode=True,
        ),
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    ),
    "reduce_sum": (
        X,
        lambda mb, x: mb.reduce_sum(x=x, axes=[1, -1], keep_dims=True),
        lambda x: x.sum((1, 3), True),
    ),
    "reduce_mean": (
        X,
        lambda mb, x: mb.reduce_mean(x=x, axes=[2, 3], keep_dims=False),
        lambda x: x.mean((2, 3)),
    ),
    "reduce_max": (X, lambda mb, x: mb.reduce_max(x=x, axes=[2], keep_dims=True), lambda x: x.amax(2, True)),
    "reduce_min": (X, lambda mb, x: mb.reduce_min(x=x, axes=[2], keep_dims=False), lambda x: x.amin(2)),
    "reduce_log_sum_exp": (
        X,
        lambda mb, x: mb.reduce_log_sum_exp(x=x, axes=[1], keep_dims=False),
        lambda x: x.logsumexp(1),
    ),
    "reduce_l2_norm": (
        X,
        lambda mb, x: mb.reduce_l2_norm(x=x, axes=[1], keep_dims=True),
        lambda x: x.norm(2, 1, True),
    ),
    "reduce_argmax": (X, lambda mb, x: mb.reduce_argmax(x=x, axis=1), lambda x: x.argmax(1).to(torch.int32)),
    "layer_norm": (
        X,
        lambda mb, x: mb.layer_norm(
            x=x,
            axes=[-1],
            gamma=np.linspace(1, 2, 6, dtype=np.float32),
            beta=np.ones(6, np.float32),
            epsilon=1e-3,
        ),
        lambda x: F.layer_norm(x, (6,), torch.linspace(1, 2, 6), torch.ones(6), 1e-3),
    ),
    "batch_norm": (
        X,
        lambda mb, x: mb.batch_norm(
            x=x,
            mean=np.ones(4, np.float32),
            variance=np.full(4, 2, np.float32),
            gamma=np.full(4, 3, np.float32),
            epsilon=0.1,
        ),
        lambda x: F.batch_norm(x, torch.ones(4), torch.full((4,), 2.0), torch.full((4,), 3.0), eps=0.1),
    ),
    "cumsum": (X, lambda mb, x: mb.cumsum(x=x, axis=2), lambda x: x.cumsum(2)),
    "cumsum_reverse": (
        X,
        lambda mb, x: mb.cumsum(x=x, axis=1, exclusive=True, reverse=True),
        lambda x: x.flip(1).cumsum(1).flip(1) - x,
    ),
    "topk": (X, lambda mb, x: mb.topk(x=x, k=2, axis=1)[0], lambda x: x.topk(2, 1).values),
    "argsort": (
        X,
        lambda mb, x: mb.argsort(x=x, axis=1, ascending=True),
        lambda x: x.argsort(1).to(torch.int32),
    ),
    "reshape": (X, lambda mb, x: mb.reshape(x=x, shape=[0, -1, 3, 3]), lambda x: x.reshape(2, 16, 3, 3)),
    "transpose": (X, lambda mb, x: mb.transpose(x=x, perm=[0, 3, 1, 2]), lambda x: x.permute(0, 3, 1, 2)),
    "concat": (XY, lambda mb, x, y: mb.concat(values=(x, y), axis=0), lambda x, y: torch.cat((x, y))),
    "concat_interleave": (
        {"x": (2, 3, 4), "y": (2, 3, 4)},
        lambda mb, x, y: mb.concat(values=(x, y), axis=1, interleave=True),
        lambda x, y: torch.stack((x, y), 2).reshape(2, 6, 4),
    ),
    "stack": (
        {"x": (2, 3), "y": (2, 3)},
        lambda mb, x, y: mb.stack(values=(x, y), axis=1),
        lambda x, y: torch.stack((x, y), 1),
    ),
    "split": (X, lambda mb, x: mb.split(x=x, split_sizes=[1, 3], axis=1)[1], lambda x: x[:, 1:]),
    "slice_by_index": (
        X,
        lambda mb, x: mb.slice_by_index(
            x=x,
            begin=[0, 1, 0, 2],
            end=[0, 3, 0, 0],
            stride=[1, 1, 2, 1],
            begin_mask=[True, False, True, False],
            end_mask=[True, False, True, False],
            squeeze_mask=[False, False, False, True],
        ),
        lambda x: x[:, 1:3, ::2, 2],
    ),
    "slice_backwards": (
        {"x": (3, 5)},
        lambda mb, x: mb.slice_by_index(
            x=x, begin=[0, 0], end=[0, 0], stride=[1, -2], begin_mask=[True, True], end_mask=[True, True]
        ),
        lambda x: x.flip(1)[:, ::2],
    ),
    "slice_by_size": (
        X,
        lambda mb, x: mb.slice_by_size(x=x, begin=[0, 1, 2, 0], size=[2, 2, -1, 3]),
        lambda x: x[:, 1:3, 2:, :3],
    ),
    "pad": (
        X,
        lambda mb, x: mb.pad(x=x, pad=[1, 2, 0, 3], constant_val=1.5),
        lambda x: F.pad(x, (0, 3, 1, 2), value=1.5),
    ),
    "pad_reflect": (
        X,
        lambda mb, x: mb.pad(x=x, pad=[1, 2, 2, 1], mode="reflect"),
        lambda x: F.pad(x, (2, 1, 1, 2), "reflect"),
    ),
    "pad_replicate": (
        X,
        lambda mb, x: mb.pad(x=x, pad=[1, 2, 2, 1], mode="replicate"),
        lambda x: F.pad(x, (2, 1, 1, 2), "replicate"),
    ),
    "tile": (X, lambda mb, x: mb.tile(x=x, reps=[1, 2, 1, 3]), lambda x: x.tile(1, 2, 1, 3)),
    "expand_squeeze": (
        {"x": (2, 3, 4)},
        lambda mb, x: mb.squeeze(x=mb.expand_dims(x=x, axes=[1, -1]), axes=[1]),
        lambda x: x[..., None],
    ),
    "reverse": (X, lambda mb, x: mb.reverse(x=x, axes=[1, 3]), lambda x: x.flip(1, 3)),
    "band_part": (X, lambda mb, x: mb.band_part(x=x, lower=1, upper=0), lambda x: x.tril().triu(-1)),
    "fill": (X, lambda mb, x: mb.add(x=x, y=mb.fill(shape=[6], value=2.0)), lambda x: x + 2),
    "sliding_windows": (
        X,
        lambda mb, x: mb.sliding_windows(x=x, axis=2, size=3, stride=2),
        lambda x: x.unfold(2, 3, 2).movedim(-1, 3),
    ),
    "pixel_shuffle": (
        X,
        lambda mb, x: mb.pixel_shuffle(x=x, upscale_factor=2),
        lambda x: F.pixel_shuffle(x, 2),
    ),
    "pixel_unshuffle": (
        X,
        lambda mb, x: mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(2)),
        lambda x: F.pixel_unshuffle(x, 2),
    ),
    "upsample_nearest": (
        X,
        lambda mb, x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=3),
        lambda x: F.interpolate(x, scale_factor=(2, 3)),
    ),
    "upsample_bilinear": (
        X,
        lambda mb, x: mb.upsample_bilinear(
            x=x, scale_factor_height=2, scale_factor_width=2, align_corners=False
        ),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    ),
    "resize_bilinear": (
        X,
        lambda mb, x: mb.resize_bilinear(
            x=x, target_size_height=9, target_size_width=4, sampling_mode="STRICT_ALIGN_CORNERS"
        ),
        lambda x: F.interpolate(x, (9, 4), mode="bilinear", align_corners=True),
    ),
    "resize_unaligned": (
        X,
        lambda mb, x: mb.resize(
            x=x, shape=[9, 4], resized_dims=np.uint32(2), sampling_mode="UNALIGN_CORNERS"
        ),
        lambda x: F.interpolate(x, (9, 4), mode="bilinear"),
    ),
    "one_hot": (
        {"x": (2, 5)},
        lambda mb, x: mb.one_hot(
            indices=mb.reduce_argmax(x=x, axis=1),
            one_hot_vector_size=5,
            axis=-1,
            on_value=2.0,
            off_value=-1.0,
        ),
        lambda x: F.one_hot(x.argmax(1), 5).float() * 3 - 1,
    ),
    "gather": (
        {"x": (4, 5)},
        lambda mb, x: mb.gather(x=x, indices=np.int32([[3, 0], [1, 1]]), axis=1),
        lambda x: x[:, torch.tensor([[3, 0], [1, 1]])],
    ),
    "gather_batch": (
        {"x": (2, 5, 3)},
        lambda mb, x: mb.gather(x=x, indices=np.int32([[3, 0], [1, 1]]), axis=1, batch_dims=1),
        lambda x: torch.stack([x[0][[3, 0]], x[1][[1, 1]]]),
    ),
    "gather_along_axis": (
        {"x": (2, 5)},
        lambda mb, x: mb.gather_along_axis(x=x, indices=np.int32([[3, 0], [1, 1]]), axis=1),
        lambda x: x.gather(1, torch.tensor([[3, 0], [1, 1]])),
    ),
    "gather_nd": (
        {"x": (2, 5)},
        lambda mb, x: mb.gather_nd(x=x, indices=np.int32([[1, 0], [0, 4]])),
        lambda x: x[[1, 0], [0, 4]],
    ),
    "scatter": (
        {"x": (4, 5), "y": (3, 5)},
        lambda mb, x, y: mb.scatter(data=x, indices=np.int32([1, 3, 1]), updates=y, axis=0, mode="add"),
        lambda x, y: x.index_add(0, torch.tensor([1, 3, 1]), y),
    ),
    "scatter_along_axis": (
        {"x": (2, 5), "y": (2, 3)},
        lambda mb, x, y: mb.scatter_along_axis(
            data=x, indices=np.int32([[0, 1, 1], [4, 3, 2]]), updates=y, axis=1, mode="add"
        ),
        lambda x, y: x.scatter_add(1, torch.tensor([[0, 1, 1], [4, 3, 2]]), y),
    ),
    "scatter_nd": (
        {"x": (4, 5), "y": (2, 5)},
        lambda mb, x, y: mb.scatter_nd(data=x, indices=np.int32([[1], [3]]), updates=y, mode="update"),
        lambda x, y: torch.stack([x[0], y[0], x[2], y[1]]),
    ),
    "quantize": (
        X,
        lambda mb, x: mb.dequantize(
            input=mb.quantize(input=x, scale=np.float32(0.02), zero_point=np.int8(3), output_dtype="int8"),
            scale=np.float32(0.02),
            zero_point=np.int8(3),
        ),
        lambda x: torch.fake_quantize_per_tensor_affine(x, 0.02, 3, -128, 127),
    ),
}
CASES |= {n: (X, lambda mb, x, n=n: getattr(mb, n)(x=x), f) for n, f in UNARY.items()}
CASES |= {n: (XY, lambda mb, x, y, n=n: getattr(mb, n)(x=x, y=y), f) for n, f in BINARY.items()}
CASES |= {
    n: (
        XY,
        lambda mb, x, y, n=n: mb.cast(x=getattr(mb, n)(x=x, y=y), dtype="int32"),
        lambda x, y, f=f: f(x, y).int(),
    )
    for n, f in COMPARE.items()
}


def feeds_of(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {f"{name}_{n}": rng.normal(size=s).astype(np.float32) for n, s in CASES[name][0].items()}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every case in one program: coremltools takes seconds per file."""
    feeds = {n: a for name in CASES for n, a in feeds_of(name).items()}

    def build(mb: Any, **inputs: Any) -> list[Any]:
        return [
            mb.identity(x=case(mb, *[inputs[f"{name}_{n}"] for n in shapes]), name=f"out_{name}")
            for name, (shapes, case, _) in CASES.items()
        ]

    return load(save_program(tmp_path_factory.mktemp("operations"), feeds, build))(feeds)


@pytest.mark.parametrize("name", sorted(CASES))
def test_operation_matches_torch(name: str, outputs: dict[str, Any]) -> None:
    expected = CASES[name][2](*map(torch.from_numpy, feeds_of(name).values()))

    got = outputs[f"out_{name}"]

    assert got.shape == tuple(expected.shape)
    np.testing.assert_allclose(got, expected.numpy(), rtol=2e-5, atol=2e-6)
