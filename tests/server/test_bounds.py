# SPDX-License-Identifier: Apache-2.0
"""One device cannot void a round or turn its mean; its update is named, and the others count."""

from __future__ import annotations

import itertools
import logging
import random
from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.delta import encode, raw
from edgefl.delta.coders import CODER_NAMES
from edgefl.delta.frame import Header, pack
from edgefl.errors import OptionError
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.memory import MemoryStore
from edgefl.server_stub.settings import Settings
from edgefl.tensorfile import read_tensors
from edgefl.wire import CheckIn, Training

MODEL = Path(__file__).parent.parent / "fixtures" / "mlp.edgefl"
SCHEMA = Bundle.open(MODEL).schema()
HONEST = np.random.default_rng(0).normal(0.1, 0.02, size=(8, SCHEMA.size)).astype(np.float32)


def frame(row, scale=1.0, **options):
    settings = {"schema_id": SCHEMA.id, "base_version": 0, "mode": "float32", **options}
    return encode(np.float32(scale) * row, **settings).frame


def a_round(frames, path=None, order=None, restart_after=None, **options):
    """The version, participants and info after a round of frames, by device's name."""
    settings = Settings(
        bundle=MODEL, database=path or "", goal=len(frames), rounds=2, downlink=0.0,
        training=Training.of(mode="float32"), **options,
    )  # fmt: skip
    store = None if path else MemoryStore()
    coordinator = Coordinator(settings, store=store)
    names = order or [f"d{i}" for i in range(len(frames))]
    tasks = {}
    for name in names:
        tasks[name] = coordinator.check_in(CheckIn(name, SCHEMA.id.hex(), "test", 10)).task
    for count, name in enumerate(names):
        if count == restart_after:
            coordinator.close()
            coordinator = Coordinator(settings)
        coordinator.accept(1, tasks[name].assignment, frames[int(name[1:])])
    coordinator.tick()
    if restart_after is not None:
        coordinator.close()
        coordinator = Coordinator(settings)
    moved = SCHEMA.flatten(read_tensors(coordinator.shelf.parameters(1)))
    people = {p.device: p for p in coordinator.participants(1).participants}
    info = coordinator.rounds()[0]
    coordinator.close()
    return moved - SCHEMA.flatten(Bundle.open(MODEL).parameters()), people, info


@pytest.fixture(params=["sqlite", "memory", "postgres"])
def path(request, tmp_path):
    places = {"sqlite": lambda: tmp_path / "rounds.db", "memory": lambda: None}
    return places.get(request.param, lambda: request.getfixturevalue("postgres")())()


@pytest.mark.parametrize("place", [0, 5])
def test_one_update_scaled_by_800_does_not_move_the_mean(path, place, caplog):
    caplog.set_level(logging.WARNING, "edgefl.server")
    frames = [frame(row) for row in HONEST]
    frames[place] = frame(HONEST[place], -800)

    step, people, info = a_round(frames, path)

    honest = np.delete(HONEST, place, axis=0).mean(axis=0)
    np.testing.assert_allclose(step, honest, atol=1e-6)
    liar = people.pop(f"d{place}")
    assert liar.state == "accepted" and liar.counted == 0
    assert liar.reason.startswith("set aside: ") and "times the round's median" in liar.reason
    assert all(p.counted == 1 and not p.reason for p in people.values())
    assert (info.updates, info.bounded) == (8, 1)
    assert f"update bounded: round=1 device=d{place} set aside: " in caplog.text


def test_one_value_of_3e38_does_not_void_the_round(path):
    frames = [frame(row) for row in HONEST]
    huge = HONEST[3].copy()
    huge[7] = 3e38
    # Our encoder refuses such values, whoever means harm does not.
    coded, _ = raw.encode(0, huge, raw.SINGLE, CODER_NAMES)
    frames[3] = pack(Header(SCHEMA.id, 0, 0, {}, 1), [coded])

    step, people, _ = a_round(frames, path)

    np.testing.assert_allclose(step, np.delete(HONEST, 3, axis=0).mean(axis=0), atol=1e-6)
    assert people["d3"].counted == 0


def test_the_same_in_any_order_and_after_restarts(tmp_path):
    frames = [frame(row) for row in HONEST]
    frames[1], frames[6] = frame(HONEST[1], 6), frame(HONEST[6], -90)
    expected, people, info = a_round(frames)
    assert info.bounded == 2 and 0 < people["d1"].counted < 1

    dice = random.Random(0)
    for n, restart in itertools.product(range(2), (None, 1, 7)):
        order = [f"d{i}" for i in dice.sample(range(8), 8)]
        step, again, told = a_round(frames, tmp_path / f"{n}-{restart}.db", order, restart)

        np.testing.assert_array_equal(step, expected)
        assert again == people and told.bounded == 2


def test_bounds_can_be_turned_off(path):
    frames = [frame(row) for row in HONEST]
    frames[2] = frame(HONEST[2], -800)

    step, people, info = a_round(frames, path, norm_bound=0.0)

    assert step.mean() < -5 and info.bounded == 0 and people["d2"].counted == 1


@pytest.mark.parametrize("rule", ["median", "trimmed-mean", "multi-krum", "geometric-median"])
def test_robust_rules_run_on_the_server(path, rule):
    frames = [frame(row) for row in HONEST]
    frames[0], frames[1] = frame(HONEST[0], -3), frame(HONEST[1], -3)

    step, _, _ = a_round(frames, path, aggregator=rule, adversaries=0.25)

    assert np.abs(step - HONEST[2:].mean(axis=0)).max() < 0.05


def test_a_rule_that_does_not_go_with_the_mode_is_refused_before_anything_starts():
    with pytest.raises(OptionError, match=r"aggregator='median' with mode='topk': .* subset, dense8"):
        Settings(bundle=MODEL, database="", aggregator="median")
