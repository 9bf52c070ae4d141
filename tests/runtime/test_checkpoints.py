# SPDX-License-Identifier: Apache-2.0
"""Training that is stopped between two steps goes on to the bits it would have had."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.errors import BackendUnavailable, NotResumable
from edgefl.runtime import BACKENDS, Trainer, open_backend
from edgefl.runtime.checkpoint import Checkpoint
from tests.runtime.test_crashes import NORM

pytestmark = pytest.mark.device

MLP = Bundle.open(Path(__file__).parents[1] / "fixtures" / "mlp.edgefl")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)
WEIGHT = RNG.choice([0.0, 0.5, 2.0], 20).astype(np.float32)
PLAIN = {"epochs": 3, "lr": 0.1}
OPTIONS = {
    "sgd": PLAIN,
    "schedule": {**PLAIN, "schedule": "cosine", "weight_decay": 0.1},
    "momentum": {**PLAIN, "momentum": 0.9, "clip_norm": 0.5},
    "adam": {**PLAIN, "optimizer": "adam", "lr": 0.01},
    "mu": {**PLAIN, "mu": 0.3, "seed": 9},
    "steps": {**PLAIN, "steps": 7, "epochs": 10_000},
}


def stopping_after(steps: int):
    counter = itertools.count()
    return lambda: next(counter) >= steps


def through_disk(checkpoint: Checkpoint) -> Checkpoint:
    """What another process has of it."""
    copied = {name: value.copy() for name, value in checkpoint.arrays().items()}
    return Checkpoint.of_arrays(checkpoint.subject, copied, checkpoint.seconds)


def same(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[n], right[n]) for n in left)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("bundle", [MLP, NORM], ids=["mlp", "norm"])
def test_stopped_after_any_step_goes_on_to_the_same_bits(bundle, options):
    whole = Trainer(bundle, "numpy")
    report = whole.fit(X, Y, **options, sample_weight=WEIGHT)

    for steps in range(report.steps):
        first, second = Trainer(bundle, "numpy"), Trainer(bundle, "numpy")
        part = first.fit(X, Y, **options, sample_weight=WEIGHT, should_stop=stopping_after(steps))
        assert part.stopped and part.steps == steps and report.checkpoint is None
        rest = second.fit(X, Y, **options, sample_weight=WEIGHT, resume=through_disk(part.checkpoint))
        assert rest.losses == report.losses and not rest.stopped
        assert same(second.parameters(), whole.parameters()) and same(second.delta(), whole.delta())


@pytest.mark.parametrize("engine", BACKENDS)
def test_every_engine_goes_on_in_another_trainer(engine):
    try:
        open_backend(NORM, engine)
    except BackendUnavailable as exc:
        pytest.skip(str(exc))
    options = {"epochs": 2, "momentum": 0.5, "lr": 0.1}
    whole = Trainer(NORM, engine)
    report = whole.fit(X, Y, **options)

    trainer = Trainer(NORM, engine)
    part = trainer.fit(X, Y, **options, should_stop=stopping_after(4))
    trainer = Trainer(NORM, engine)
    rest = trainer.fit(X, Y, **options, resume=through_disk(part.checkpoint))

    assert rest.losses == report.losses and same(trainer.parameters(), whole.parameters())


def test_checkpoints_are_handed_out_while_training_runs():
    whole, kept = Trainer(NORM, "numpy"), []
    report = whole.fit(X, Y, **PLAIN, keep=lambda c: kept.append(through_disk(c)), keep_every_s=0.0)

    assert [len(c.losses) for c in kept] == list(range(1, report.steps + 1))
    for checkpoint in kept:
        trainer = Trainer(NORM, "numpy")
        assert trainer.fit(X, Y, **PLAIN, resume=checkpoint).losses == report.losses
        assert same(trainer.parameters(), whole.parameters())
    rare: list[Checkpoint] = []
    Trainer(MLP, "numpy").fit(X, Y, **PLAIN, keep=rare.append, keep_every_s=1e6)
    assert rare == []


def test_a_long_task_stops_within_one_step_of_its_deadline():
    trainer, asked = Trainer(MLP, "numpy"), []
    report = trainer.fit(X, Y, epochs=10_000, deadline_s=0.05, on_step=lambda *_: asked.append(1))

    assert report.stopped and report.steps == len(asked) < 30_000
    assert Trainer(MLP, "numpy").fit(X, Y, epochs=10_000, deadline_s=0.0).steps == 0
    rest = Trainer(MLP, "numpy").fit(
        X, Y, epochs=10_000, resume=report.checkpoint, should_stop=stopping_after(1)
    )
    assert rest.steps == report.steps + 1 and rest.losses[:-1] == report.losses


@pytest.mark.parametrize(
    "other",
    [
        {"x": X[::-1].copy()},
        {"y": 1 - Y},
        {"sample_weight": WEIGHT},
        {"seed": 1},
        {"lr": 0.2},
        {"epochs": 4},
        {"correction": {"head/bias": np.ones(3, np.float32)}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_checkpoint_of_another_training_is_refused(other):
    checkpoint = Trainer(MLP, "numpy").fit(X, Y, **PLAIN, should_stop=stopping_after(2)).checkpoint
    given = {"x": X, "y": Y, **PLAIN, **other}

    with pytest.raises(NotResumable, match="other options, other examples or other parameters"):
        Trainer(MLP, "numpy").fit(given.pop("x"), given.pop("y"), **given, resume=checkpoint)


def test_a_checkpoint_from_other_parameters_is_refused():
    checkpoint = Trainer(MLP, "numpy").fit(X, Y, **PLAIN, should_stop=stopping_after(2)).checkpoint
    trainer = Trainer(MLP, "numpy")
    trainer.rebase({"head/bias": np.ones(3, np.float32)})

    with pytest.raises(NotResumable):
        trainer.fit(X, Y, **PLAIN, resume=checkpoint)
