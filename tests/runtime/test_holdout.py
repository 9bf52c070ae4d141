# SPDX-License-Identifier: Apache-2.0
"""Examples that are held out stay held out, and are never trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.errors import DataError, NotFinite
from edgefl.options import FitOptions
from edgefl.runtime import Trainer
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.command.look import show_history
from edgefl.runtime.conditions.diary import Diary
from edgefl.runtime.evaluating import evaluated
from edgefl.runtime.holdout import Divided
from edgefl.runtime.learner import Stint, TrainerLearner
from edgefl.runtime.metrics import Metrics
from edgefl.runtime.patience import Patience
from edgefl.runtime.pause import Interrupted
from edgefl.runtime.sides import divided
from edgefl.runtime.store import ExampleStore
from edgefl.runtime.store.source import Fixed
from edgefl.runtime.transport import LoopbackTransport, Response
from edgefl.wire import Accepted, CheckIn, CheckInAnswer, Evaluated, EvaluationTask
from tests.runtime.fakes import MODEL, FakeServer

pytestmark = pytest.mark.device

TASK = EvaluationTask("e" * 32, 0, 1000, 60.0)


def examples(count: int = 60, seed: int = 0) -> Examples:
    random = np.random.default_rng(seed)
    return Examples(random.normal(size=(count, 6)).astype(np.float32), random.integers(0, 3, count))


def shared(bundle: Bundle) -> dict[str, np.ndarray]:
    values = bundle.parameters()
    return {p.name: values[p.name] for p in bundle.schema().parameters}


def rows(part: Examples) -> set[bytes]:
    return {row.tobytes() for row in part.x["x"]}


def test_examples_stay_on_their_side_whatever_comes_and_larger_parts_hold_the_smaller_ones() -> None:
    more, wanted = examples(200), MODEL.manifest
    some = more.first(80)

    rest, held = divided(some, wanted, 0.3)
    later_rest, later_held = divided(more, wanted, 0.3)
    wider = divided(more, wanted, 0.5)[1]

    assert rows(rest) < rows(later_rest) and rows(held) < rows(later_held) < rows(wider)
    assert not rows(later_rest) & rows(later_held) and len(later_rest) + len(later_held) == 200


def test_held_out_examples_change_nothing_that_is_trained() -> None:
    mine = examples()
    held = rows(Divided(Fixed(mine), MODEL.manifest, 0.3).take_held_out())
    lied = np.array([2 - y if x.tobytes() in held else y for x, y in zip(mine.x, mine.y, strict=True)])
    options, made = FitOptions(epochs=3, lr=0.1), []

    for y in (mine.y, lied):
        learner = TrainerLearner(MODEL, Examples(mine.x, y), backend="numpy", holdout=0.3)
        made.append(learner.learn(shared(MODEL), options).delta)

    assert 0 < len(held) < 60 and (lied != mine.y).any()
    np.testing.assert_array_equal(*made)


def test_a_store_holds_the_same_ones_out_after_a_restart_and_counts_what_came(tmp_path: Path) -> None:
    whole, seen = examples(100), []
    for part in (whole.first(50), whole):
        with ExampleStore(tmp_path / "mine.db", MODEL) as store:
            store.extend(part)
            source = Divided(store, MODEL.manifest, 0.3)
            assert len(source) + source.held_out == len(store)
            seen.append((rows(source.take(1)), rows(source.take_held_out()), source.held_out))
            store.forget(before=0.0)

    assert seen[0][0] < seen[1][0] and seen[0][1] < seen[1][1]
    assert [len(held) for _, held, _ in seen] == [count for *_, count in seen]


def test_too_few_examples_to_train_on_are_refused() -> None:
    held = divided(examples(), MODEL.manifest, 0.3, -1)[1]

    with pytest.raises(DataError, match="all of 1 examples are held out"):
        TrainerLearner(MODEL, held.first(1), backend="numpy", holdout=0.3)


def test_an_answer_is_what_evaluate_says_of_the_first_examples_held_out() -> None:
    mine = examples()
    learner = TrainerLearner(MODEL, mine, backend="numpy", holdout=0.3)
    held = Divided(Fixed(mine), MODEL.manifest, 0.3).take_held_out()

    said = {most: learner.measure(shared(MODEL), most) for most in (1000, 7)}

    for most, metrics in said.items():
        few = held.first(most)
        assert metrics == Trainer(MODEL, "numpy").evaluate(few.x, few.y)
    assert said[1000].examples == learner.held_out and said[7].examples == 7


def test_measuring_stops_within_a_batch() -> None:
    learner, asked = TrainerLearner(MODEL, examples(500), backend="numpy", holdout=0.5), []

    with pytest.raises(Interrupted):
        evaluated(TASK, shared(MODEL), learner, Stint(should_stop=lambda: len(asked) == 2 or asked.append(1)))

    assert len(asked) == 2


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 1e31, NotFinite("no")])
def test_a_loss_that_is_no_number_is_not_told(loss: float | Exception) -> None:
    class Broken:
        held_out = 3

        def measure(self, parameters: object, most: int, stint: Stint) -> Metrics:
            if isinstance(loss, Exception):
                raise loss
            return Metrics(loss, 0.5, 3)

    answer, why = evaluated(TASK, {}, Broken())

    assert answer == Evaluated() and why


class Measured(FakeServer):
    """Has version 0 measured first."""

    refuse = False

    def __init__(self) -> None:
        super().__init__(rounds=1)
        self.answers: list[Evaluated] = []
        self.hellos: list[CheckIn] = []

    def answer(self, method, path, body, headers) -> Response:
        if path == "/v1/check-in":
            self.hellos.append(CheckIn.from_bytes(body))
            if not self.answers:
                return Response(200, {}, CheckInAnswer(evaluation=TASK).to_bytes())
        if path.startswith("/v1/evaluations/"):
            self.answers.append(Evaluated.from_bytes(body))
            return Response(200, {}, Accepted(True, False).to_bytes())
        return super().answer(method, path, body, headers)


def test_a_device_answers_three_numbers_then_trains_and_remembers_both(tmp_path: Path, capsys) -> None:
    server, mine = Measured(), examples()
    client = DeviceClient(
        LoopbackTransport(server),
        mine,
        tmp_path,
        backend="numpy",
        device="d",
        patience=Patience(sleep=lambda _: None),
        holdout=0.3,
    )

    reports = list(client.run())

    held = Divided(Fixed(mine), MODEL.manifest, 0.3).take_held_out()
    found = Trainer(MODEL, "numpy").evaluate(held.x, held.y)
    assert server.answers == [Evaluated(found.examples, found.loss, found.accuracy)]
    assert [report.round for report in reports] == [1]
    assert (server.hellos[0].examples, server.hellos[0].held_out) == (60 - len(held), len(held))
    entry, after = Diary(tmp_path).entries()
    assert (entry.event, entry.version, entry.loss, entry.accuracy) == (
        "evaluated",
        0,
        found.loss,
        found.accuracy,
    )
    assert (entry.examples, entry.accepted, after.event) == (len(held), True, "round")
    show_history(tmp_path, False)
    assert f"on {len(held)} examples held out" in capsys.readouterr().out
