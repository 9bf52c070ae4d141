# SPDX-License-Identifier: Apache-2.0
"""Losses and their gradients against torch, extreme values included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgefl.converters.autodiff import Expr, gradients
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.losses import find_loss, weighted_mean
from edgefl.errors import ConversionError
from edgefl.graph import TensorType, run
from tests.converters.autodiff_oracle import normal

F = torch.nn.functional


def evaluate(spec: str, output: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses per example, and the gradient of their sum."""
    loss = find_loss(spec)
    b = GraphBuilder()
    z, label = Expr(b, b.input("z", TensorType.of(output))), Expr(b, b.input("y", TensorType.of(y)))
    losses = loss.emit(z, label, z.constant(np.ones(len(output))))
    b.output("losses", losses.name)
    b.output("gradient", gradients(b, losses.sum().name, ["z"])["z"])
    made = run(b.build(), {"z": output, "y": y})
    return made["losses"], made["gradient"]


def check(spec, function, output, y, tolerance=1e-9):
    """`function(output, y)` gives torch's losses per example."""
    z = torch.tensor(output, requires_grad=True)
    losses = function(z, torch.tensor(y))
    losses.sum().backward()
    found, gradient = evaluate(spec, output, y)
    np.testing.assert_allclose(found, losses.detach().numpy(), rtol=tolerance, atol=1e-10)
    np.testing.assert_allclose(gradient, z.grad.numpy(), rtol=tolerance, atol=1e-10)


def classes(*shape: int, below: int = 5) -> np.ndarray:
    return np.random.default_rng(1).integers(0, below, shape).astype(np.int32)


def each(values: torch.Tensor) -> torch.Tensor:
    return values.reshape(len(values), -1).mean(1)


def cross_entropy(z, y, **options):
    return each(F.cross_entropy(z.movedim(-1, 1), y.long(), reduction="none", **options))


@pytest.mark.parametrize("shape", [(6,), (3, 4), (2, 3, 4)])
def test_softmax_cross_entropy(shape):
    check("softmax_cross_entropy", cross_entropy, normal(*shape, 5), classes(*shape))


def test_softmax_cross_entropy_of_large_logits():
    check("softmax_cross_entropy", cross_entropy, 1e4 * normal(6, 5), classes(6))


def test_label_smoothing():
    spec = "softmax_cross_entropy:smoothing=0.1"
    check(spec, lambda z, y: cross_entropy(z, y, label_smoothing=0.1), normal(6, 5), classes(6))


def mean(
    spec: str, output: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """The loss as steps compute it, and its gradient."""
    b = GraphBuilder()
    z, label = Expr(b, b.input("z", TensorType.of(output))), Expr(b, b.input("y", TensorType.of(y)))
    weights = z.constant(np.ones(len(output)) if weight is None else weight)
    total = weighted_mean(find_loss(spec).emit(z, label, weights), weights)
    b.output("loss", total.name)
    b.output("gradient", gradients(b, total.name, ["z"])["z"])
    made = run(b.build(), {"z": output, "y": y})
    return float(made["loss"]), made["gradient"]


def check_mean(spec, function, output, y):
    z = torch.tensor(output, requires_grad=True)
    loss = function(z, torch.tensor(y).long())
    loss.backward()
    found, gradient = mean(spec, output, y)
    np.testing.assert_allclose(found, loss.item(), rtol=1e-9)
    np.testing.assert_allclose(gradient, z.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ignored", [-1, -100, 255, 2])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(6,), (4, 3), (2, 3, 4)])
def test_ignored_labels_are_those_of_torch(ignored, smoothing, shape):
    y = classes(*shape)
    y[0] = y[1:2] = ignored
    y.flat[-1] = ignored
    spec = f"softmax_cross_entropy:ignore_index={ignored}:reduction=token"
    spec += f":smoothing={smoothing}" if smoothing else ""

    def expected(z, y):
        scores = z.movedim(-1, 1)
        return F.cross_entropy(scores, y, ignore_index=ignored, label_smoothing=smoothing)

    if (y != ignored).any():
        check_mean(spec, expected, normal(*shape, 5), y)


def test_examples_with_one_label_need_no_reduction():
    y = np.array([1, -1, 2, -1], np.int32)
    check_mean(
        "softmax_cross_entropy:ignore_index=-1",
        lambda z, y: F.cross_entropy(z, y, ignore_index=-1),
        normal(4, 5),
        y,
    )


def test_by_default_each_example_counts_once():
    y = np.array([[1, -100, -100], [0, 2, 3], [-100, -100, -100]], np.int32)

    def expected(z, y):
        return (F.cross_entropy(z[0, :1], y[0, :1]) + F.cross_entropy(z[1], y[1])) / 2

    check_mean("softmax_cross_entropy", expected, normal(3, 3, 5), y)


@pytest.mark.parametrize("ignored", [-100, 0])
def test_next_token_over_all_tokens_is_that_of_transformers(ignored):
    tokens = classes(3, 7) + (ignored == 0)
    tokens[0, 3:] = tokens[2, 1:] = ignored
    spec = "next_token:reduction=token" + (f":ignore_index={ignored}" if ignored != -100 else "")

    def expected(z, y):
        return F.cross_entropy(z[:, :-1].movedim(-1, 1), y[:, 1:], ignore_index=ignored)

    check_mean(spec, expected, normal(3, 7, 7), tokens)


def test_padded_examples_and_weights_count_as_they_should():
    y = np.array([[1, -1], [2, 3], [0, 0], [-1, -1]], np.int32)
    output, weight = normal(4, 2, 5), np.array([0.5, 2.0, 0.0, 1.0])
    losses = F.cross_entropy(
        torch.tensor(output).movedim(-1, 1), torch.tensor(y).long(), ignore_index=-1, reduction="none"
    ).numpy()
    by_token, _ = mean("softmax_cross_entropy:ignore_index=-1:reduction=token", output, y, weight)
    by_example, _ = mean("softmax_cross_entropy:ignore_index=-1", output, y, weight)
    np.testing.assert_allclose(by_token, (0.5 * losses[0, 0] + 2 * losses[1].sum()) / 4.5, rtol=1e-9)
    np.testing.assert_allclose(by_example, (0.5 * losses[0, 0] + 2 * losses[1].mean()) / 2.5, rtol=1e-9)


@pytest.mark.parametrize("reduction", ["example", "token"])
def test_nothing_that_counts_is_a_loss_of_zero(reduction):
    loss, gradient = mean(
        f"next_token:reduction={reduction}", normal(2, 4, 5), np.full((2, 4), -100, np.int32)
    )
    assert loss == 0 and not gradient.any()


def binary(z, y):
    return each(F.binary_cross_entropy_with_logits(z, y, reduction="none"))


@pytest.mark.parametrize("shape", [(6, 1), (4, 3), (5,)])
def test_sigmoid_cross_entropy(shape):
    check("sigmoid_cross_entropy", binary, normal(*shape), np.round(np.abs(normal(*shape, seed=4))) % 2)


def test_sigmoid_cross_entropy_at_zero_and_far_out():
    z = np.array([[0.0, 700.0, -700.0, 0.0]])
    check("sigmoid_cross_entropy", binary, z, np.array([[1.0, 0.0, 1.0, 0.0]]))


REGRESSION = {
    "mean_squared_error": lambda z, y: each((z - y) ** 2),
    "mean_absolute_error": lambda z, y: each((z - y).abs()),
    "huber": lambda z, y: each(F.huber_loss(z, y, reduction="none")),
    "huber:delta=0.3": lambda z, y: each(F.huber_loss(z, y, reduction="none", delta=0.3)),
    "cosine": lambda z, y: each((1 - F.cosine_similarity(z, y, dim=-1))[:, None]),
}


@pytest.mark.parametrize("spec", REGRESSION)
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4)])
def test_regression(spec, shape):
    check(spec, REGRESSION[spec], normal(*shape), normal(*shape, seed=5))


@pytest.mark.parametrize("spec", ["mean_squared_error", "mean_absolute_error", "huber"])
def test_regression_of_a_vector_output(spec):
    check(spec, REGRESSION[spec], normal(4), normal(4, seed=5))


def test_next_token_ignores_negative_labels():
    tokens = classes(3, 7)
    tokens[0, 4:] = -100
    tokens[1, 0] = -100

    def expected(z, y):
        losses = F.cross_entropy(
            z[:, :-1].movedim(-1, 1), y[:, 1:].long(), ignore_index=-100, reduction="none"
        )
        return losses.sum(1) / (y[:, 1:] >= 0).sum(1)

    check("next_token", expected, normal(3, 7, 5), tokens)


def test_labels_follow_the_output():
    output = TensorType(np.dtype(np.float32), (8, 10, 5))
    assert str(find_loss("softmax_cross_entropy").label(output)) == "int32[8,10]"
    assert str(find_loss("sigmoid_cross_entropy").label(output)) == "float32[8,10,5]"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nope", "losses are"),
        ("huber:epsilon=1", "it has \\['delta'\\]"),
        ("huber:delta=wide", "number over 0, given 'wide'"),
        ("mean_squared_error:a=1", "it has none"),
        ("next_token:reduction=sum", "one of example, token, given 'sum'"),
        ("softmax_cross_entropy:ignore_index=1.5", "an integer .* given '1.5'"),
    ],
)
def test_wrong_names_and_parameters_are_refused(spec, message):
    with pytest.raises(ConversionError, match=message):
        find_loss(spec)


def test_class_scores_need_an_axis():
    with pytest.raises(ConversionError, match="axis of classes"):
        find_loss("softmax_cross_entropy").label(TensorType(np.dtype(np.float32), (8,)))


# -- losses that compare examples


def compare(
    spec: str, output: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Losses per example, and the gradient of their weighted mean."""
    b = GraphBuilder()
    z, label, w = (Expr(b, b.input(n, TensorType.of(v))) for n, v in (("z", output), ("y", y), ("w", weight)))
    losses = find_loss(spec).emit(z, label, w)
    b.output("losses", losses.name)
    b.output("gradient", gradients(b, weighted_mean(losses, w).name, ["z"])["z"])
    made = run(b.build(), {"z": output, "y": y, "w": weight})
    return made["losses"], made["gradient"]


def torch_info_nce(z, y, temperature):
    scores = F.normalize(z, dim=1) @ F.normalize(y, dim=1).T / temperature
    return F.cross_entropy(scores, torch.arange(len(z)), reduction="none")


def torch_nt_xent(z, temperature):
    unit = F.normalize(z.reshape(-1, z.shape[-1]), dim=1)
    scores = (unit @ unit.T / temperature).fill_diagonal_(-torch.inf)
    losses = F.cross_entropy(scores, torch.arange(len(unit)) ^ 1, reduction="none")
    return losses.reshape(len(z), 2).mean(1)


CONTRASTIVE = {
    "info_nce": lambda z, y: torch_info_nce(z, y, 0.1),
    "info_nce:temperature=0.7": lambda z, y: torch_info_nce(z, y, 0.7),
    "nt_xent": lambda z, y: torch_nt_xent(z, 0.5),
    "nt_xent:temperature=0.2": lambda z, y: torch_nt_xent(z, 0.2),
}


@pytest.mark.parametrize("spec", CONTRASTIVE)
def test_contrastive_losses_of_a_padded_batch_are_those_of_its_examples(spec):
    views = spec.startswith("nt_xent")
    z = normal(6, 2, 3) if views else normal(6, 3)
    y = np.arange(6, dtype=np.int32) if views else normal(6, 3, seed=5)
    weight = np.array([1.0, 2.0, 0.5, 0.0, 1.0, 0.0])
    real = weight > 0
    t = torch.tensor(z[real], requires_grad=True)
    expected = CONTRASTIVE[spec](t, torch.tensor(y[real]))
    w = torch.tensor(weight[real])
    ((expected * w).sum() / w.sum()).backward()

    losses, gradient = compare(spec, z, y, weight)

    np.testing.assert_allclose(losses[real], expected.detach().numpy(), rtol=1e-9)
    np.testing.assert_allclose(gradient[real], t.grad.numpy(), rtol=1e-9, atol=1e-12)
    assert not gradient[~real].any()


def test_examples_of_the_same_number_are_no_negatives():
    z, ones = normal(4, 2, 3), np.ones(4)
    _, gradient = compare("nt_xent", z, np.zeros(4, np.int32), ones)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [("info_nce", (4, 2, 3), "info_nce needs"), ("nt_xent", (4, 3), "nt_xent needs")],
)
def test_contrastive_losses_need_embeddings(spec, shape, message):
    with pytest.raises(ConversionError, match=message):
        find_loss(spec).label(TensorType(np.dtype(np.float32), shape))
