# SPDX-License-Identifier: Apache-2.0
"""Global, personal or mixed, chosen on examples that were held out."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.errors import DataError, NotFinite, OptionError
from edgefl.options import FitOptions
from edgefl.runtime import Trainer
from edgefl.runtime.personal import held_out, personalize

pytestmark = pytest.mark.device


def person(count: int, seed: int, turn: int = 0) -> Examples:
    """Three clusters; `turn` names them differently, as only this person does."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, count)
    centres = np.random.default_rng(0).normal(size=(3, 6)) * 3
    return Examples((centres[y] + random.normal(size=(count, 6))).astype(np.float32), (y + turn) % 3)


@pytest.fixture
def trainer(mlp: Bundle) -> Trainer:
    """With a model that suits most people."""
    made, people = Trainer(mlp, "numpy"), person(200, 1)
    made.fit(people.x, people.y, epochs=10, lr=0.1)
    return made


def test_examples_stay_on_their_side(trainer: Trainer) -> None:
    everything = person(300, 2)
    first = Examples(everything.x[:150], everything.y[:150])
    halves = [held_out(given, trainer, 0.25, seed=4) for given in (first, everything)]

    sides = [[{row.tobytes() for row in part.x["x"]} for part in parts] for parts in halves]

    assert sides[0][0] < sides[1][0] and sides[0][1] < sides[1][1]
    assert not sides[1][0] & sides[1][1] and sum(map(len, sides[1])) == 300
    assert 30 < len(sides[1][1]) < 120
    assert {r.tobytes() for r in held_out(everything, trainer, 0.25, seed=5)[1].x["x"]} != sides[1][1]


def test_someone_unlike_the_others_gets_a_model_of_their_own(trainer: Trainer) -> None:
    mine, later = person(150, 3, turn=1), person(150, 4, turn=1)
    before = trainer.evaluate(later.x, later.y)

    chosen = personalize(trainer, mine, FitOptions(epochs=30, lr=0.2))

    after = trainer.evaluate(later.x, later.y)
    assert chosen.kind == "personal" and [t.share for t in chosen.tried] == [0, 0.25, 0.5, 0.75, 1]
    assert (
        before.accuracy is not None and after.accuracy is not None and after.accuracy > before.accuracy + 0.3
    )


def test_training_that_spoils_the_model_is_not_kept(trainer: Trainer) -> None:
    mine, before = person(60, 5), trainer.parameters()
    wrong = Examples(mine.x, mine.y, None)
    random = np.random.default_rng(1)
    rest, held = held_out(mine, trainer, 0.3)
    lied = {row.tobytes() for row in rest.x["x"]}
    labels = [
        random.integers(0, 3) if row.tobytes() in lied else y for row, y in zip(mine.x, mine.y, strict=True)
    ]
    wrong = Examples(mine.x, np.asarray(labels))

    chosen = personalize(trainer, wrong, FitOptions(epochs=60, lr=0.5, validation=0.3), shares=(1.0,))

    assert chosen.kind == "global" and len(held) == chosen.tried[0].metrics.examples
    assert all(np.array_equal(before[n], v) for n, v in trainer.parameters().items())


def test_a_mixture_lies_between(trainer: Trainer) -> None:
    before = trainer.parameters()

    chosen = personalize(trainer, person(80, 6, turn=1), FitOptions(epochs=3, lr=0.1), shares=(0.5,))

    assert {t.share for t in chosen.tried} == {0.0, 0.5}
    assert chosen.kind in ("global", "mixed") and (chosen.kind == "mixed") == any(
        not np.array_equal(before[n], v) for n, v in trainer.parameters().items()
    )


def test_what_goes_wrong(trainer: Trainer) -> None:
    before = trainer.parameters()
    with pytest.raises(DataError, match=r"of 1 examples . would be held out; more are needed"):
        personalize(trainer, person(1, 7))
    with pytest.raises(OptionError, match=r"fraction=1.0: allowed is a number over 0 and below 1"):
        held_out(person(20, 7), trainer, 1.0)
    with pytest.raises(OptionError, match="allowed are numbers from 0 to 1"):
        personalize(trainer, person(20, 7), shares=(2.0,))
    with pytest.raises(NotFinite):
        personalize(trainer, person(50, 7), FitOptions(epochs=50, lr=1e38))
    assert all(np.array_equal(before[n], v) for n, v in trainer.parameters().items())
