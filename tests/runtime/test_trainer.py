# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.errors import (
    BackendUnavailable,
    DataError,
    DataShape,
    DataType,
    EdgeflError,
    LabelRange,
    NotFinite,
    OptionError,
)
from edgefl.runtime import Trainer, open_backend
from edgefl.runtime.backends.base import Engine, Placed
from edgefl.runtime.backends.proving import proving
from tests.fixtures.make import examples

pytestmark = pytest.mark.device

X, Y = examples(37)


class Broken(Engine):
    """An engine whose step goes wrong at a given call."""

    name, target, version = "broken", "onnx", "broken 1"

    def __init__(self, bundle: Bundle, at: int, output: str, value: float) -> None:
        self._real = open_backend(bundle, "numpy")
        self._at, self._output, self._value = at, output, value
        self.calls: list[str] = []

    def proved(self, bundle: Bundle):
        """Behind its trial, during which it behaves."""
        at, self._at = self._at, -1
        engine = proving(self)
        for kind in ("features", "step"):
            if bundle.manifest.find("onnx", kind):
                engine.prove(bundle, kind)
        self._at = at
        self.calls.clear()
        return engine

    def load(self, bundle: Bundle, kind: str):
        program = self._real.load(bundle, kind)

        def run(feeds):
            self.calls.append(kind)
            made = program(feeds)
            if kind == "step" and self.calls.count("step") == self._at:
                made[self._output] = np.full_like(made[self._output], self._value)
            return made

        return Placed(run, program.placement)


def reference(bundle: Bundle, x, y, parameters):
    """Loss and gradients of the fixture model in float64."""
    p = {n: v.astype(np.float64) for n, v in parameters.items()}
    h = np.tanh(x @ p["hidden/kernel"] + p["hidden/bias"])
    z = h @ p["head/kernel"] + p["head/bias"]
    e = np.exp(z - z.max(axis=1, keepdims=True))
    probability = e / e.sum(axis=1, keepdims=True)
    loss = -np.log(probability[np.arange(len(y)), y]).mean()
    dz = (probability - np.eye(3)[y]) / len(y)
    da = (dz @ p["head/kernel"].T) * (1 - h**2)
    gradients = {
        "hidden/kernel": x.T @ da, "hidden/bias": da.sum(0), "head/kernel": h.T @ dz, "head/bias": dz.sum(0)
    }  # fmt: skip
    return loss, gradients


def same(a, b) -> bool:
    return all(np.array_equal(a[n], b[n]) for n in b)


def relative(a, b) -> float:
    return max(float(np.linalg.norm(a[n] - b[n]) / np.linalg.norm(b[n])) for n in b)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 37])
def test_loss_and_gradients_are_exact_for_any_number_of_examples(
    mlp: Bundle, backend: str, count: int
) -> None:
    trainer = Trainer(mlp, backend)

    loss, gradients = trainer.loss_and_gradients(X[:count], Y[:count])

    expected_loss, expected = reference(mlp, X[:count], Y[:count], trainer.parameters())
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert relative(gradients, expected) < 1e-5
    assert list(gradients) == list(trainer.parameters())


def test_weights_choose_examples(mlp: Bundle) -> None:
    trainer = Trainer(mlp, "numpy")
    weight = np.zeros(37)
    weight[[3, 20]] = 2.5

    loss, gradients = trainer.loss_and_gradients(X, Y, weight)

    expected_loss, expected = trainer.loss_and_gradients(X[[3, 20]], Y[[3, 20]])
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert relative(gradients, expected) < 1e-5


@pytest.mark.parametrize("weight", [np.zeros(37), np.full(37, -1.0), np.full(37, np.nan)])
def test_weights_without_meaning_are_refused(mlp: Bundle, weight) -> None:
    with pytest.raises(OptionError, match="weight"):
        Trainer(mlp, "numpy").loss_and_gradients(X, Y, weight)


def test_the_engines_agree_after_20_steps(mlp: Bundle, backend: str) -> None:
    x, y = examples(32)
    trained, by_numpy = Trainer(mlp, backend), Trainer(mlp, "numpy")

    for trainer in (trained, by_numpy):
        assert trainer.fit(x, y, epochs=5, lr=0.3, momentum=0.5, seed=1).steps == 20

    assert relative(trained.parameters(), by_numpy.parameters()) < 1e-4
    assert relative(trained.delta(), by_numpy.delta()) < 1e-4


def test_fit_follows_the_rule_step_by_step(mlp: Bundle) -> None:
    trainer = Trainer(mlp, "numpy")
    p = {n: v.astype(np.float64) for n, v in trainer.parameters().items()}
    order = np.random.Generator(np.random.PCG64(11))

    report = trainer.fit(X, Y, epochs=2, lr=0.2, seed=11)

    losses = []
    for _ in range(2):
        rows = order.permutation(37)
        for start in range(0, 37, 8):
            batch = rows[start : start + 8]
            loss, gradients = reference(mlp, X[batch], Y[batch], p)
            losses.append(loss)
            p = {n: p[n] - 0.2 * gradients[n] for n in p}
    np.testing.assert_allclose(report.losses, losses, rtol=1e-4)
    assert relative(trainer.parameters(), p) < 1e-4


def test_the_report_says_what_was_done(mlp: Bundle, backend: str) -> None:
    seen = []

    report = Trainer(mlp, backend).fit(X, Y, epochs=3, on_step=lambda step, loss: seen.append((step, loss)))

    assert (report.examples, report.steps, report.backend) == (37, 15, backend)
    assert seen == list(enumerate(report.losses, start=1))
    assert (report.loss_first, report.loss_last) == (report.losses[0], report.losses[-1])
    assert report.loss_last < report.loss_first
    assert not report.stopped
    assert report.seconds > 0


def test_seeds_decide_the_order(mlp: Bundle) -> None:
    def losses(seed: int):
        return Trainer(mlp, "numpy").fit(X, Y, epochs=2, seed=seed).losses

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


def test_the_bundles_rate_is_the_default(mlp: Bundle) -> None:
    one, other = Trainer(mlp, "numpy"), Trainer(mlp, "numpy")
    one.fit(X, Y)
    other.fit(X, Y, lr=mlp.manifest.defaults["lr"])

    assert same(one.parameters(), other.parameters())


def test_training_improves_accuracy(mlp: Bundle, backend: str) -> None:
    trainer = Trainer(mlp, backend)
    x, y = examples(200)
    before = trainer.evaluate(x, y)

    trainer.fit(x, y, epochs=10)
    after = trainer.evaluate(x, y)

    assert before.accuracy is not None and after.accuracy is not None
    assert after.accuracy > max(0.8, before.accuracy)
    assert after.loss < before.loss
    assert after.examples == 200


def test_adam_learns_too(mlp: Bundle) -> None:
    report = Trainer(mlp, "numpy").fit(X, Y, epochs=20, lr=0.02, optimizer="adam")

    assert report.loss_last < 0.5 * report.loss_first


def test_evaluate_is_exact_for_partial_batches(mlp: Bundle, backend: str) -> None:
    trainer = Trainer(mlp, backend)

    metrics = trainer.evaluate(X, Y)

    assert metrics.loss == pytest.approx(reference(mlp, X, Y, trainer.parameters())[0], rel=1e-5)
    assert metrics.accuracy == (trainer.predict(X).argmax(axis=1) == Y).mean()


def test_predict_does_not_depend_on_the_batch(mlp: Bundle, backend: str) -> None:
    trainer = Trainer(mlp, backend)

    one_by_one = np.concatenate([trainer.predict(X[i : i + 1]) for i in range(37)])

    np.testing.assert_allclose(trainer.predict(X), one_by_one, rtol=1e-5, atol=1e-6)


def test_a_frozen_prefix_changes_nothing_for_the_head(mlp: Bundle, head: Bundle, backend: str) -> None:
    loss, gradients = Trainer(head, backend).loss_and_gradients(X, Y)
    whole_loss, whole = Trainer(mlp, "numpy").loss_and_gradients(X, Y)

    assert loss == pytest.approx(whole_loss, rel=1e-5)
    assert list(gradients) == ["head/kernel", "head/bias"]
    assert relative(gradients, {n: whole[n] for n in gradients}) < 1e-5


def test_features_run_once_per_example(head: Bundle) -> None:
    engine = Broken(head, at=-1, output="loss", value=0)

    Trainer(head, engine.proved(head)).fit(X, Y, epochs=4)

    assert (engine.calls.count("features"), engine.calls.count("step")) == (5, 20)


def test_a_step_there_is_not_is_missed_before_features_are_made(head: Bundle) -> None:
    artifacts = tuple(a for a in head.manifest.artifacts if a.kind != "step")
    engine = Broken(head, at=-1, output="loss", value=0)
    trainer = Trainer(head, engine.proved(head))
    trainer.bundle = replace(head, manifest=replace(head.manifest, artifacts=artifacts))

    with pytest.raises(BackendUnavailable, match="onnx/step"):
        trainer.fit(X, Y)

    assert engine.calls == []


def test_a_slice_without_features_says_what_is_missing(head: Bundle) -> None:
    manifest = head.manifest
    cut = head._keeping(a for a in manifest.artifacts if a.kind != "features")

    with pytest.raises(BackendUnavailable, match="onnx/features"):
        Trainer(cut, "numpy").fit(X, Y)


@pytest.mark.parametrize(
    ("output", "value", "message"),
    [
        ("loss", math.nan, "loss is nan at step 3"),
        ("loss", math.inf, "loss is inf at step 3"),
        ("grad/head/bias", math.nan, "gradient of 'head/bias' .* step 3, with loss"),
        ("grad/head/kernel", -math.inf, "gradient of 'head/kernel'"),
    ],
)
def test_what_is_not_finite_stops_training_and_changes_nothing(mlp: Bundle, output, value, message) -> None:
    trainer = Trainer(mlp, Broken(mlp, 3, output, value).proved(mlp))
    before = trainer.parameters()

    with pytest.raises(NotFinite, match=message):
        trainer.fit(X, Y)

    assert same(trainer.parameters(), before)


def test_parameters_that_overflow_change_nothing(mlp: Bundle) -> None:
    trainer = Trainer(mlp, "numpy")

    with pytest.raises(NotFinite):
        trainer.fit(X, Y, lr=3e38, epochs=3)

    assert same(trainer.parameters(), mlp.parameters())


def test_gradients_that_only_sum_to_infinity_are_fine(mlp: Bundle) -> None:
    engine = Broken(mlp, 1, "grad/head/kernel", 3e38)

    Trainer(mlp, engine).fit(X[:8], Y[:8], lr=1e-40)


def test_stopping_keeps_the_steps_made(mlp: Bundle) -> None:
    trainer = Trainer(mlp, "numpy")
    seen: list[int] = []

    report = trainer.fit(
        X, Y, epochs=9, on_step=lambda step, loss: seen.append(step), should_stop=lambda: len(seen) == 3
    )

    assert (report.steps, report.stopped) == (3, True)
    assert not same(trainer.parameters(), mlp.parameters())


def test_stopping_before_the_first_step(mlp: Bundle) -> None:
    report = Trainer(mlp, "numpy").fit(X, Y, should_stop=lambda: True)

    assert (report.steps, report.losses, report.stopped) == (0, (), True)
    assert math.isnan(report.loss_first)


def test_an_interruption_changes_nothing(mlp: Bundle) -> None:
    trainer = Trainer(mlp, "numpy")

    def interrupt(step: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.fit(X, Y, on_step=interrupt)

    assert same(trainer.parameters(), mlp.parameters())


def test_fedprox_stays_nearer_to_the_base(mlp: Bundle) -> None:
    def distance(mu: float) -> float:
        trainer = Trainer(mlp, "numpy")
        trainer.fit(X, Y, epochs=10, mu=mu)
        return math.sqrt(sum(float((d**2).sum()) for d in trainer.delta().values()))

    assert distance(1.0) < 0.7 * distance(0.0)


def test_a_correction_that_cancels_the_gradient_stands_still(mlp: Bundle) -> None:
    trainer = Trainer(mlp, "numpy")
    _, gradients = trainer.loss_and_gradients(X[:8], Y[:8])

    trainer.fit(X[:8], Y[:8], correction={n: -g for n, g in gradients.items()})

    assert relative(trainer.parameters(), mlp.parameters()) < 1e-6


def test_clipping_bounds_the_step(mlp: Bundle) -> None:
    trainer = Trainer(mlp, "numpy")

    trainer.fit(X[:8], Y[:8], lr=1.0, clip_norm=0.01)

    moved = math.sqrt(sum(float((d**2).sum()) for d in trainer.delta().values()))
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_delta_is_new_minus_base_for_the_shared_parameters(mlp: Bundle) -> None:
    trainer = Trainer(mlp, "numpy")
    assert all(not d.any() for d in trainer.delta().values())

    trainer.fit(X, Y)

    for name, value in trainer.delta().items():
        np.testing.assert_array_equal(value, trainer.parameters()[name] - mlp.parameters()[name])
    assert list(trainer.delta()) == [p.name for p in mlp.schema().parameters]


def test_loading_keeps_the_base_and_rebasing_moves_it(mlp: Bundle) -> None:
    trainer = Trainer(mlp, "numpy")
    new = {"head/bias": np.ones(3, np.float32)}

    trainer.load_parameters(new)
    assert trainer.delta()["head/bias"].any()

    trainer.rebase(new)
    assert not trainer.delta()["head/bias"].any()
    np.testing.assert_array_equal(trainer.parameters()["head/bias"], new["head/bias"])


def test_parameters_given_out_and_taken_in_are_copies(mlp: Bundle) -> None:
    trainer = Trainer(mlp, "numpy")
    mine = {"head/bias": np.ones(3, np.float32)}
    trainer.load_parameters(mine)

    mine["head/bias"][:] = 5
    trainer.parameters()["head/bias"][:] = 5

    np.testing.assert_array_equal(trainer.parameters()["head/bias"], np.ones(3))


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"nope": np.zeros(3, np.float32)}, DataShape),
        ({"head/bias": np.zeros(4, np.float32)}, DataShape),
        ({"head/bias": np.zeros(3, np.int32)}, DataType),
        ({"head/bias": np.full(3, np.nan, np.float32)}, NotFinite),
    ],
)
def test_parameters_that_do_not_fit_are_refused(mlp: Bundle, values, error: type[EdgeflError]) -> None:
    trainer = Trainer(mlp, "numpy")

    with pytest.raises(error):
        trainer.load_parameters({"head/kernel": np.zeros((10, 3), np.float32), **values})

    assert same(trainer.parameters(), mlp.parameters())


def test_bad_examples_are_refused_before_the_first_step(mlp: Bundle) -> None:
    engine = Broken(mlp, -1, "loss", 0)
    trainer = Trainer(mlp, engine)

    with pytest.raises(LabelRange):
        trainer.fit(X, np.where(np.arange(37) == 36, 3, Y))
    with pytest.raises(NotFinite):
        trainer.fit(np.where(np.arange(37)[:, None] == 36, np.nan, X), Y)
    assert engine.calls == []


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"lr": 0.0},
        {"lr": -1.0},
        {"momentum": 1.0},
        {"mu": -1.0},
        {"clip_norm": 0.0},
        {"optimizer": "lion"},
    ],
)
def test_options_outside_their_range_are_refused(mlp: Bundle, options) -> None:
    with pytest.raises(OptionError, match="allowed"):
        Trainer(mlp, "numpy").fit(X, Y, **options)


def test_a_downloaded_slice_trains(mlp: Bundle) -> None:
    light = Trainer(Bundle.open(mlp.slice("onnx").to_bytes()), "numpy")
    full = Trainer(mlp, "numpy")

    assert light.fit(X, Y).losses == full.fit(X, Y).losses


def test_weights_count_in_loss_and_accuracy(mlp, backend):
    weight = np.random.default_rng(3).integers(0, 4, len(Y)).astype(np.float32)
    trainer = Trainer(mlp, backend)

    found = trainer.evaluate(X, Y, weight)
    repeated = np.repeat(np.arange(len(Y)), weight.astype(int))
    expected = trainer.evaluate(X[repeated], Y[repeated])

    # A weight of 3 is the example three times; float32 sums of at most 8 losses round that much.
    assert found.loss == pytest.approx(expected.loss, rel=16 * float(np.finfo(np.float32).eps))
    assert found.accuracy == pytest.approx(expected.accuracy, rel=1e-12)
    assert found.weighted and not expected.weighted
    assert found.examples == np.count_nonzero(weight)


def test_everything_a_bundle_gives_is_taken_back(head):
    values = head.parameters()
    moved = {**values, "head/bias": values["head/bias"] + 1}
    trainer, light = Trainer(head, "numpy"), Trainer(head.slice("onnx"), "numpy")

    for each in (trainer, light):
        each.load_parameters(moved)
        np.testing.assert_array_equal(each.parameters()["head/bias"], moved["head/bias"])
        each.rebase(values)
        np.testing.assert_array_equal(each.parameters()["head/bias"], values["head/bias"])


def test_another_value_for_a_constant_of_the_graphs_is_refused(head):
    trainer = Trainer(head, "numpy")

    with pytest.raises(DataError, match="'hidden/bias' is a constant"):
        trainer.load_parameters({"head/bias": np.ones(3, np.float32), "hidden/bias": np.ones(10, np.float32)})

    np.testing.assert_array_equal(trainer.parameters()["head/bias"], head.parameters()["head/bias"])
