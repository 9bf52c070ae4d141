# SPDX-License-Identifier: Apache-2.0
"""Private rounds: what one device can do is bounded, noise is what was promised, epsilon is kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from edgefl.bundle import Bundle
from edgefl.delta import SparseDelta
from edgefl.errors import OptionError
from edgefl.options import FederationOptions, ServerOptions
from edgefl.privacy import epsilon
from edgefl.privacy.entropy import Keystream
from edgefl.privacy.gaussian import SIGMA
from edgefl.server_stub.aggregators import Contribution, Gathered
from edgefl.server_stub.aggregators.optimizers import averaging
from edgefl.server_stub.aggregators.private import CLIP, PrivateMean, shortened
from edgefl.server_stub.private import Poisson, calibrated, chance
from edgefl.server_stub.rounds import Plan, Round
from edgefl.server_stub.selection import Candidate
from edgefl.server_stub.settings import Settings
from edgefl.wire import Training
from tests.server.conftest import MODEL, restarting
from tests.server.test_coordinator import Clock

PRIVATE = {"privacy": "central-dp", "privacy_noise": 1.0, "privacy_quantile": 0.0}
FLEET = [f"d{i}" for i in range(40)]


def contribution(values, indices=None, size=None) -> Contribution:
    values = np.asarray(values, np.float32)
    indices = np.arange(len(values)) if indices is None else np.asarray(indices)
    return Contribution(SparseDelta(indices, values, size or len(values), 0), 1.0)


def mean(noise=1.0, expected=4.0, clip=1.0, quantile=None, key=b"a") -> PrivateMean:
    return PrivateMean(noise, expected, clip, quantile, averaging(), Keystream(key))


def gathered(*updates: Contribution, size: int) -> Gathered:
    return Gathered(size, lambda: iter(updates))


FLOATS = strategies.floats(-(2.0**99), 2.0**99, width=32)


@settings(deadline=None, max_examples=200)
@given(
    strategies.lists(FLOATS, min_size=1, max_size=20),
    strategies.floats(1e-12, 1e12),
    strategies.floats(0.01, 100.0),
)
def test_no_update_does_more_than_the_clipping_norm(values, clip, noise):
    unit = noise * clip / SIGMA
    whole = shortened(contribution(values), clip, unit)

    # In whole numbers: nothing is rounded.
    assert sum(int(w) ** 2 for w in whole) <= (clip / unit) ** 2


def test_an_update_that_is_short_enough_counts_as_it_is():
    unit = 1.0 / SIGMA
    whole = shortened(contribution([0.25, -0.5, 0.125]), 1.0, unit)
    assert (whole * unit).tolist() == [0.25, -0.5, 0.125]


def test_the_step_is_the_mean_of_shortened_updates_and_the_noise():
    size, count = 20_000, 3
    rng = np.random.default_rng(1)
    vectors = [rng.normal(size=size).astype(np.float32) * scale for scale in (1e-3, 1.0, 10.0)]
    made = mean(noise=0.5, expected=4.0, clip=2.0)(
        gathered(*map(contribution, vectors), size=size), mean(clip=2.0).init(size)
    )
    plain = sum(v * min(1.0, 2.0 / np.linalg.norm(v)) for v in vectors) / 4.0

    left = (made.step - plain) * 4.0 / (0.5 * 2.0)
    assert abs(left.std() - 1) < 6 / math.sqrt(2 * size) and abs(left.mean()) < 6 / math.sqrt(size)
    assert made.state[CLIP][0] == 2.0 and made.verdicts == {} and count == len(vectors)


def test_a_round_without_updates_is_noise_like_any_other():
    made = mean()(gathered(size=1000), mean().init(1000))
    assert 0.8 < made.step.std() * 4.0 < 1.2


@pytest.mark.parametrize(("lengths", "rises"), [([10.0] * 200, True), ([0.01] * 200, False)])
def test_the_clipping_norm_follows_the_lengths(lengths, rises):
    rule = mean(noise=0.1, expected=200.0, clip=1.0, quantile=0.5)
    updates = [contribution([length]) for length in lengths]
    made = rule(gathered(*updates, size=1), rule.init(1))

    # All on one side of a half: exp(0.2 / 2) but for the count's noise, at six standard deviations.
    off = math.exp(0.2 * 6 * rule.count_noise / 200)
    wanted = math.exp(0.1 if rises else -0.1)
    assert wanted / off < made.state[CLIP][0] < wanted * off


def test_sum_and_count_together_are_as_private_as_was_said():
    rule = mean(noise=1.3, expected=100.0, quantile=0.5)
    # Two Gaussian releases of sensitivities 1 and 1/2 compose by their inverse squares.
    together = rule.sum_noise**-2 + (0.5 / rule.count_noise) ** 2
    assert together == pytest.approx(1.3**-2)


@pytest.mark.parametrize("devices", [7, 40, 123, 1000, 99_999])
def test_chances_are_rounded_up(devices):
    rate = chance(5, devices)
    assert 5 / devices <= rate <= 5 / devices * 1.01 and chance(8, 8) == chance(9, 8) == 1.0


def test_everybody_has_the_same_chance_whoever_else_there_is():
    server = Settings(MODEL, "", goal=10, privacy_devices=40, **PRIVATE)
    poisson = server.poisson(Keystream(b"draws"))
    state = Round.open(1, 0, Plan(10, 5, 60.0, 13), 0.0, server.terms(Bundle.open(MODEL).schema(), 1))
    counts, sizes = dict.fromkeys(FLEET, 0), []
    for _ in range(1000):
        after, names = poisson.drawn(state, [Candidate(name, 5) for name in FLEET])
        assert (after.plan.goal, after.plan.places) == (len(names), len(names))
        assert after.terms.draw.devices == 40 and after.terms.draw.rate == 0.25
        sizes.append(len(names))
        for name in names:
            counts[name] += 1

    spread = 6 * math.sqrt(1000 * 0.25 * 0.75)
    assert all(abs(count - 250) < spread for count in counts.values())
    assert abs(np.var(sizes) - 40 * 0.25 * 0.75) < 3
    assert poisson.drawn(state, [Candidate("alone", 5)]) == (state, ())


# -- the server


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def make(request, tmp_path):
    """A function that makes a coordinator on the same storage, and its clock."""
    given = {"goal": 20, "rounds": 3, "privacy_devices": 40, "training": Training.of(density=0.2)}
    yield from restarting(request, tmp_path, Clock(), given, entropy=Keystream(b"x"))


def run_round(server, clock, make_frame, hello, number) -> list[str]:
    """The devices that were drawn."""
    assert all(server.check_in(hello(name)).task is None for name in FLEET)
    clock.now += 10
    server.tick()
    tasks = {name: server.check_in(hello(name)).task for name in FLEET}
    drawn = {name: task for name, task in tasks.items() if task is not None}
    for name, task in drawn.items():
        frame = make_frame(FLEET.index(name) + 100 * number, task.base_version, meta={"loss": 0.5})
        server.accept(number, task.assignment, frame)
    server.tick()
    return sorted(drawn)


def test_rounds_are_drawn_and_epsilon_is_counted(make, make_frame, hello):
    server, clock = make(**PRIVATE)
    assert server.status().epsilon == 0.0 and server.status().delta == 1e-5
    drawn = [run_round(server, clock, make_frame, hello, number) for number in (1, 2)]

    assert drawn[0] != drawn[1] and all(8 < len(names) < 32 for names in drawn)
    infos = server.rounds()
    assert [info.updates for info in infos[:2]] == [len(names) for names in drawn]
    assert [info.loss for info in infos[:2]] == [None, None]
    left = 1e-5 - 2 * 0.5**40
    wanted = epsilon(noise_multiplier=1.0, sampling_rate=0.5, rounds=2, delta=left)
    assert server.status().epsilon == pytest.approx(wanted)


def test_a_draw_outlives_the_server(make, make_frame, hello):
    server, clock = make(**PRIVATE)
    for name in FLEET:
        server.check_in(hello(name))
    clock.now += 10
    server.tick()
    before = {name for name in FLEET if server.check_in(hello(name)).task is not None}

    server, clock = make(**PRIVATE)
    assert {name for name in FLEET if server.check_in(hello(name)).task is not None} == before
    assert server.rounds()[0].goal == len(before)


def test_rounds_end_where_epsilon_is_spent(make, make_frame, hello):
    one = epsilon(noise_multiplier=1.0, sampling_rate=0.5, rounds=1, delta=1e-5)
    server, clock = make(**PRIVATE, privacy_epsilon=one * 1.1, rounds=50)
    number = 0
    while server.round_number is not None:
        number += 1
        run_round(server, clock, make_frame, hello, number)

    assert number < 3 and server.status().finished
    assert one <= server.status().epsilon <= one * 1.1


def test_private_rounds_and_others_do_not_mix(make, make_frame, hello):
    server, clock = make(**PRIVATE)
    run_round(server, clock, make_frame, hello, 1)
    with pytest.raises(OptionError, match="are private"):
        make()


def test_others_and_private_rounds_do_not_mix(make, make_frame, hello):
    server, _ = make(goal=1)
    task = server.check_in(hello("a")).task
    server.accept(1, task.assignment, make_frame(1, 0))
    server.tick()
    with pytest.raises(OptionError, match="were not private"):
        make(**PRIVATE)


# -- options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"privacy": "central-dp"}, "epsilon to keep or the noise"),
        ({"privacy_epsilon": 1.0}, "belongs to central-dp"),
        ({**PRIVATE, "aggregator": "median"}, "mean alone"),
        ({**PRIVATE, "staleness": 2}, "must have been drawn"),
        ({**PRIVATE, "norm_bound": 2.0}, "privacy_clip"),
        ({**PRIVATE, "evaluate_every": 2}, "without noise"),
        ({**PRIVATE, "parties": "a,b,c", "goal": 3}, "hide nobody"),
    ],
)
def test_what_would_break_the_promise_is_refused(options, said):
    with pytest.raises(OptionError, match=said):
        Settings(MODEL, "", training=Training.of(mode="dense8"), **options)


@pytest.mark.parametrize(
    ("options", "said"), [({}, "how many there are"), ({"privacy_devices": 100}, "draw more")]
)
def test_noise_needs_enough_to_go_by(options, said):
    asked = ServerOptions(privacy="central-dp", privacy_epsilon=1.0, **options)
    with pytest.raises(OptionError, match=said):
        calibrated(asked, 3, 10)


def test_the_defaults_are_not_private():
    assert FederationOptions().privacy == "none" and Settings(MODEL, "").poisson() is None
    assert isinstance(Settings(MODEL, "", **PRIVATE).poisson(), Poisson)
