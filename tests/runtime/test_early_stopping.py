# SPDX-License-Identifier: Apache-2.0
"""Training that ends where the loss on examples left out of it no longer falls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.errors import NotResumable, OptionError
from edgefl.options import FitOptions
from edgefl.runtime import Trainer
from edgefl.runtime.sides import divided
from edgefl.simulation import Plan, divide, simulate
from edgefl.wire import Training
from tests.runtime.test_checkpoints import same, stopping_after, through_disk
from tests.runtime.test_crashes import NORM

pytestmark = pytest.mark.device

MLP = Bundle.open(Path(__file__).parents[1] / "fixtures" / "mlp.edgefl")
RNG = np.random.default_rng(3)
X = RNG.normal(size=(60, 6)).astype(np.float32)
Y = np.where(RNG.random(60) < 0.4, RNG.integers(0, 2, 60), X[:, 0] > 0).astype(np.int32)
"""A part of the labels is chance, so that training learns by heart what does not hold elsewhere."""
OPTIONS = FitOptions(epochs=60, lr=0.5, validation=0.3, patience=4, momentum=0.5)


def by_hand(bundle: Bundle, options: FitOptions) -> tuple[Trainer, int]:
    """The same by a trainer that knows nothing of it: one pass more at a time, the best one kept."""
    rest, held = divided(Examples(X, Y), bundle.manifest, options.validation)
    passes = -(-len(rest) // bundle.manifest.batch_size)
    losses, plain = list[float](), replace(options, validation=0.0, patience=0)
    while True:
        trainer = Trainer(bundle, "numpy")
        trainer.fit(rest.x, rest.y, plain, epochs=len(losses) + 1)
        losses.append(trainer.evaluate(held.x, held.y).loss)
        best = int(np.argmin(losses))
        if len(losses) - 1 - best >= options.patience or len(losses) == options.epochs:
            break
    trainer = Trainer(bundle, "numpy")
    trainer.fit(rest.x, rest.y, plain, epochs=best + 1)
    return trainer, passes * len(losses)


@pytest.mark.parametrize("bundle", [MLP, NORM], ids=["mlp", "norm"])
def test_the_best_pass_counts(bundle: Bundle) -> None:
    expected, steps = by_hand(bundle, OPTIONS)
    trainer = Trainer(bundle, "numpy")

    report = trainer.fit(X, Y, OPTIONS)

    most = OPTIONS.epochs * -(-report.examples // bundle.manifest.batch_size)
    assert report.steps == steps < most and report.left_out + report.examples == len(X)
    assert same(trainer.parameters(), expected.parameters()) and report.best_loss is not None
    assert not report.stopped and report.checkpoint is None


@pytest.mark.parametrize("bundle", [MLP, NORM], ids=["mlp", "norm"])
def test_stopped_after_any_step_goes_on_to_the_same_bits(bundle: Bundle) -> None:
    options = replace(OPTIONS, epochs=5, patience=2, lr=1.0)
    whole = Trainer(bundle, "numpy")
    report = whole.fit(X, Y, options)

    for steps in range(report.steps):
        first, second = Trainer(bundle, "numpy"), Trainer(bundle, "numpy")
        part = first.fit(X, Y, options, should_stop=stopping_after(steps))
        assert part.stopped and part.checkpoint is not None
        rest = second.fit(X, Y, options, resume=through_disk(part.checkpoint))
        assert (rest.losses, rest.best_loss) == (report.losses, report.best_loss)
        assert same(second.parameters(), whole.parameters())


def test_a_last_pass_cut_short_by_steps_is_measured_too() -> None:
    trainer, plain = Trainer(MLP, "numpy"), Trainer(MLP, "numpy")
    options = replace(OPTIONS, steps=2, epochs=1, lr=0.05)

    report = trainer.fit(X, Y, options)
    rest, held = divided(Examples(X, Y), MLP.manifest, options.validation)
    plain.fit(rest.x, rest.y, replace(options, validation=0.0, patience=0))

    assert report.steps == 2 and same(trainer.parameters(), plain.parameters())
    assert report.best_loss == plain.evaluate(held.x, held.y).loss


def test_validation_alone_only_leaves_examples_out() -> None:
    trainer, plain = Trainer(MLP, "numpy"), Trainer(MLP, "numpy")
    rest, _ = divided(Examples(X, Y), MLP.manifest, 0.3)

    report = trainer.fit(X, Y, epochs=2, lr=0.1, validation=0.3)
    plain.fit(rest.x, rest.y, epochs=2, lr=0.1)

    assert same(trainer.parameters(), plain.parameters())
    assert (report.left_out, report.best_loss) == (60 - len(rest), None)


def test_so_few_examples_that_a_side_would_have_none_are_all_trained_on() -> None:
    trainer, plain = Trainer(MLP, "numpy"), Trainer(MLP, "numpy")

    report = trainer.fit(X[:1], Y[:1], OPTIONS, epochs=2)
    plain.fit(X[:1], Y[:1], lr=0.5, momentum=0.5, epochs=2)

    assert (report.left_out, report.examples) == (0, 1)
    assert same(trainer.parameters(), plain.parameters())


def test_a_checkpoint_whose_best_pass_is_nonsense_is_refused() -> None:
    part = Trainer(MLP, "numpy").fit(X, Y, OPTIONS, should_stop=stopping_after(20))
    assert part.checkpoint is not None

    with pytest.raises(NotResumable, match="best pass cannot be read"):
        Trainer(MLP, "numpy").fit(X, Y, OPTIONS, resume=replace(part.checkpoint, best={"loss": np.zeros(())}))


def test_both_fields_have_their_rules() -> None:
    for wrong in ({"validation": 0.91}, {"validation": -0.1}, {"patience": -1}, {"patience": 1.5}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            FitOptions(**wrong)
    with pytest.raises(OptionError, match="give validation too"):
        FitOptions(patience=2)


def test_tasks_carry_both() -> None:
    training = Training.of(epochs=3, validation=0.25, patience=2)

    assert Training.from_bytes(training.to_bytes()) == training


def test_devices_of_a_federation_stop_early() -> None:
    devices = divide(Examples(X, Y), 2, seed=1)
    training = Training.of(epochs=60, lr=0.5, validation=0.3, patience=4, mode="float32")
    plan, endless = Plan(rounds=1, training=training), replace(training.fit, patience=0)

    stopped = simulate(MLP, devices, plan, backend="numpy")
    not_stopped = simulate(
        MLP, devices, replace(plan, training=replace(training, fit=endless)), backend="numpy"
    )

    assert stopped.rounds[0].loss > not_stopped.rounds[0].loss  # type: ignore[operator]
