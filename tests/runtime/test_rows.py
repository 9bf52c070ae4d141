# SPDX-License-Identifier: Apache-2.0
"""Training from examples that are read batch by batch: the bits of arrays, a batch in memory at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.errors import DataError, NotResumable
from edgefl.options import FitOptions
from edgefl.runtime import Trainer
from edgefl.runtime.holdout import Divided
from edgefl.runtime.learner import Stint, TrainerLearner
from edgefl.runtime.pause import Interrupted
from edgefl.runtime.rows import Rows
from edgefl.runtime.store import ExampleStore
from tests.runtime.test_checkpoints import same, stopping_after, through_disk
from tests.runtime.test_crashes import NORM

pytestmark = pytest.mark.device

FIXTURES = Path(__file__).parents[1] / "fixtures"
MLP, HEAD = (Bundle.open(FIXTURES / f"{name}.edgefl") for name in ("mlp", "head"))
RNG = np.random.default_rng(0)
X = RNG.normal(size=(45, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)
WEIGHT = RNG.choice([0.5, 1.0, 3.0], 45).astype(np.float32)
OPTIONS = {
    "plain": FitOptions(epochs=2, lr=0.1),
    "momentum": FitOptions(epochs=3, lr=0.1, momentum=0.9, steps=13, seed=5),
    "stopping": FitOptions(epochs=9, lr=0.5, validation=0.3, patience=2, optimizer="adam"),
}


class Counted(Rows):
    """Arrays as rows, with a count of what was read."""

    def __init__(self, weight: np.ndarray = WEIGHT) -> None:
        self.weight, self.read = weight, list[int]()

    def __len__(self) -> int:
        return len(X)

    def take(self, places: np.ndarray) -> Examples:
        self.read.append(len(places))
        return Examples(X[places], Y[places], self.weight[places])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("bundle", [MLP, NORM, HEAD], ids=["mlp", "norm", "head"])
def test_rows_give_the_bits_of_arrays(bundle: Bundle, options: FitOptions) -> None:
    arrays, streamed, rows = Trainer(bundle, "numpy"), Trainer(bundle, "numpy"), Counted()

    expected = arrays.fit(X, Y, options, sample_weight=WEIGHT)
    report = streamed.fit(rows, options=options)

    assert (report.losses, report.examples, report.left_out) == (
        expected.losses, expected.examples, expected.left_out,
    )  # fmt: skip
    assert same(streamed.parameters(), arrays.parameters()) and report.best_loss == expected.best_loss
    # Never more than a batch; and nothing is read that no step asks for.
    assert max(rows.read) <= bundle.manifest.batch_size
    judged = -(-report.left_out // bundle.manifest.batch_size) * 9 if options.patience else 0
    told = -(-len(X) // bundle.manifest.batch_size) if options.validation else 0
    assert len(rows.read) <= report.steps + 1 + judged + told


def test_stopped_after_any_step_goes_on_to_the_same_bits() -> None:
    options = OPTIONS["stopping"]
    whole = Trainer(NORM, "numpy")
    report = whole.fit(Counted(), options=options)

    for steps in range(0, report.steps, 3):
        part = Trainer(NORM, "numpy").fit(Counted(), options=options, should_stop=stopping_after(steps))
        second = Trainer(NORM, "numpy")
        rest = second.fit(Counted(), options=options, resume=through_disk(part.checkpoint))
        assert rest.losses == report.losses and same(second.parameters(), whole.parameters())
    with pytest.raises(NotResumable, match="other examples"):
        Trainer(NORM, "numpy").fit(Counted(WEIGHT[::-1]), options=options, resume=part.checkpoint)


def test_what_rows_may_not_be() -> None:
    trainer = Trainer(MLP, "numpy")
    with pytest.raises(DataError, match="rows bring their own labels"):
        trainer.fit(Counted(), Y)
    with pytest.raises(DataError, match="training needs labels"):
        trainer.fit(X)
    with pytest.raises(DataError, match="a row has weight 0"):
        trainer.fit(Counted(np.where(np.arange(45) == 7, 0, WEIGHT)))


def stored(folder: Path, **limits: int) -> ExampleStore:
    store = ExampleStore(folder / "s.db", MLP, **limits)
    for i in range(len(X)):
        store.add(X[i], Y[i], weight=float(WEIGHT[i]), key=f"k{i % 5}")
    return store


@pytest.mark.parametrize("holdout", [0.0, 0.3])
def test_a_store_larger_than_its_memory_trains_on_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holdout: float
) -> None:
    """As devices do, which hold a part out; bytes unpacked at once are counted, not those of the process."""
    options, read = FitOptions(epochs=2, lr=0.1, seed=3), list[int]()
    (tmp_path / "small").mkdir()
    small, large = stored(tmp_path / "small", memory_bytes=20 * 32), stored(tmp_path)
    shared = {p.name: MLP.parameters()[p.name] for p in MLP.schema().parameters}
    learners = [TrainerLearner(MLP, store, backend="numpy", holdout=holdout) for store in (small, large)]
    assert isinstance(learners[0]._source, Divided) == bool(holdout)
    unpack = type(small.layout).unpack

    def counting(layout: object, data: list[bytes]) -> dict[str, np.ndarray]:
        read.append(len(data))
        return unpack(layout, data)

    expected = learners[1].learn(shared, options, Stint())
    monkeypatch.setattr(type(small.layout), "unpack", counting)
    learned = learners[0].learn(shared, options, Stint())

    assert learned.steps == expected.steps and learned.loss == expected.loss
    assert np.array_equal(learned.delta, expected.delta)
    # Dividing looks at pieces, training at batches.
    assert max(read) <= (len(X) if holdout else MLP.manifest.batch_size)


def test_what_is_forgotten_meanwhile_ends_training(tmp_path: Path) -> None:
    store = stored(tmp_path, memory_bytes=10 * 32)
    shared = {p.name: MLP.parameters()[p.name] for p in MLP.schema().parameters}
    learner, asked = TrainerLearner(MLP, store, backend="numpy"), list[int]()

    def forget_after_some() -> bool:
        asked.append(1)
        if len(asked) == 3:
            store.forget(key="k2")
        return False

    with pytest.raises(Interrupted):
        learner.learn(shared, FitOptions(epochs=5, lr=0.1), Stint(should_stop=forget_after_some))

    assert len(asked) < 6 and learner.examples == 36
