# SPDX-License-Identifier: Apache-2.0
"""The round's state machine, one event at a time and in any order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import OptionError, Refused
from edgefl.server_stub.rounds import Accept, Assign, GiveBack, Plan, Round, Tick, apply

PLAN = Plan(goal=2, minimum=1, seconds=10.0, places=3)


def opened(plan: Plan = PLAN) -> Round:
    return Round.open(1, 0, plan, at=100.0)


def after(*events, state: Round | None = None) -> Round:
    state = opened() if state is None else state
    for event in events:
        state = apply(event, state)
    return state


def test_round_is_full_at_its_goal():
    state = after(Assign("a", "A", 100), Assign("b", "B", 100), Accept("A", "x", 101), Accept("B", "y", 102))

    assert state.full and dict(state.updates) == {"A": "x", "B": "y"}


def test_asking_again_gives_the_same_place():
    state = after(Assign("a", "A", 100), Assign("a", "Z", 101))

    assert state.places["a"].id == "A" and state.places["a"].at == 101


def test_device_that_has_sent_gets_no_second_place():
    state = after(Assign("a", "A", 100), Accept("A", "x", 101))

    assert apply(Assign("a", "Z", 102), state) is state


def test_places_are_limited():
    state = after(Assign("a", "A", 100), Assign("b", "B", 100), Assign("c", "C", 100))

    assert apply(Assign("d", "D", 101), state) is state


def test_declined_place_goes_to_another_device():
    state = after(Assign("a", "A", 100), Assign("b", "B", 100), Assign("c", "C", 100), GiveBack("A", 101))

    assert apply(Assign("a", "Z", 102), state) is state
    assert apply(Assign("d", "D", 102), state).places["d"].id == "D"


def test_same_bytes_again_change_nothing():
    state = after(Assign("a", "A", 100), Accept("A", "x", 101))

    assert apply(Accept("A", "x", 102), state) is state


def test_same_bytes_again_are_known_after_the_round_is_full():
    state = after(Assign("a", "A", 100), Assign("b", "B", 100), Accept("A", "x", 101), Accept("B", "y", 102))

    assert apply(Accept("A", "x", 103), state) is state


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (Accept("A", "other", 102), "already-sent-different"),
        (Accept("nobody", "x", 102), "unknown-assignment"),
        (GiveBack("nobody", 102), "unknown-assignment"),
        (Accept("C", "x", 102), "declined"),
    ],
)
def test_refusals_leave_the_round_as_it_was(event, reason):
    state = after(Assign("a", "A", 100), Assign("c", "C", 100), Accept("A", "x", 101), GiveBack("C", 101))

    with pytest.raises(Refused) as refused:
        apply(event, state)

    assert refused.value.reason == reason


def test_update_beyond_the_goal_is_refused():
    plan = Plan(goal=1, minimum=1, seconds=10.0, places=2)
    state = after(Assign("a", "A", 100), Assign("b", "B", 100), Accept("A", "x", 101), state=opened(plan))

    with pytest.raises(Refused) as refused:
        apply(Accept("B", "y", 102), state)

    assert refused.value.reason == "round-closed"


def test_deadline_fills_a_round_that_has_its_minimum():
    state = after(Assign("a", "A", 100), Accept("A", "x", 101))

    assert apply(Tick(109.9), state) is state
    assert apply(Tick(110.0), state).full


def test_deadline_below_the_minimum_is_put_off_and_loses_nothing():
    plan = Plan(goal=3, minimum=2, seconds=10.0, places=3)
    state = after(Assign("a", "A", 100), Accept("A", "x", 101), Tick(115), state=opened(plan))

    assert not state.full and state.deadline == 125 and state.extensions == 1
    assert dict(state.updates) == {"A": "x"}


def test_extension_replaces_devices_that_vanished_and_still_hears_them():
    plan = Plan(goal=2, minimum=2, seconds=10.0, places=2)
    state = after(Assign("a", "A", 100), Assign("b", "B", 100), Tick(111), state=opened(plan))
    state = after(Assign("c", "C", 112), Assign("d", "D", 112), state=state)

    assert set(state.places) == {"a", "b", "c", "d"}
    assert after(Accept("A", "x", 113), Accept("C", "y", 113), state=state).full


def test_declined_device_may_try_again_after_an_extension():
    plan = Plan(goal=1, minimum=1, seconds=10.0, places=1)
    state = after(Assign("a", "A", 100), GiveBack("A", 101), Tick(111), state=opened(plan))

    assert not apply(Assign("a", "Z", 112), state).places["a"].declined


@pytest.mark.parametrize("plan", [(0, 0, 1.0, 1), (2, 3, 1.0, 4), (2, 1, 0.0, 2), (2, 1, 1.0, 1)])
def test_impossible_plans_are_refused(plan):
    with pytest.raises(OptionError):
        Plan(*plan)


DEVICES = st.sampled_from("abcdef")
EVENTS = st.one_of(
    st.tuples(st.just("assign"), DEVICES),
    st.tuples(st.just("accept"), DEVICES, st.sampled_from("xy")),
    st.tuples(st.just("give back"), DEVICES),
    st.tuples(st.just("wait"), st.floats(0, 15)),
)
PLANS = st.integers(1, 4).flatmap(
    lambda goal: st.builds(
        Plan, st.just(goal), st.integers(1, goal), st.just(10.0), st.integers(goal, goal + 2)
    )
)


@given(PLANS, st.lists(EVENTS, max_size=40))
def test_whatever_happens_accepted_updates_stay_and_count_once(plan, happenings):
    state, now = Round.open(1, 0, plan, 0.0), 0.0
    accepted: dict[str, str] = {}
    for what, *arguments in happenings:
        now += arguments[0] if what == "wait" else 0.1
        state = apply(Tick(now), state)
        was_full = state.full
        device = arguments[0] if what != "wait" else ""
        event = _event(what, device, arguments, state, now)
        try:
            state = apply(event, state)
        except Refused:
            continue
        if isinstance(event, Accept):
            assert accepted.setdefault(event.assignment, event.digest) == event.digest
        assert dict(state.updates) == accepted
        assert len(accepted) <= plan.goal
        assert state.full >= was_full
        assert state.full or state.deadline > now
        if state.extensions == 0:
            given_back = sum(p.declined for p in state.places.values())
            assert len(state.places) - given_back <= plan.places


def _event(what, device, arguments, state, now):
    if what == "assign":
        return Assign(device, f"id-{device}-{now}", now)
    if what == "accept":
        return Accept(_id(state, device), arguments[-1], now)
    return GiveBack(_id(state, device), now) if what == "give back" else Tick(now)


def _id(state: Round, device: str) -> str:
    return state.places[device].id if device in state.places else "nobody"


# -- patience


def test_a_round_out_of_patience_is_full_with_what_it_has():
    patient = Round.open(1, 0, Plan(3, 3, 10.0, 3, patience=2), at=100.0)
    state = after(Assign("a", "A", 100), Accept("A", "x", 101), state=patient)

    state = after(Tick(110), Tick(120), state=state)
    assert not state.full and state.extensions == 2
    assert apply(Tick(130), state).full


def test_a_round_without_any_update_is_void_once_it_is_out_of_patience():
    fresh = Round.open(1, 0, Plan(1, 1, 10.0, 1, patience=1), 100.0)
    waiting = after(Tick(110), state=fresh)
    void = after(Tick(120), state=waiting)

    assert (waiting.full, waiting.void, waiting.extensions) == (False, False, 1)
    assert (void.full, void.void, void.extensions) == (True, True, 1)
    assert after(Tick(130), state=void) == void
    assert not after(Accept("A", "x", 101), state=after(Assign("a", "A", 100), state=fresh)).void


def test_a_round_without_an_end_of_patience_waits_for_its_first_update():
    state = after(
        *(Tick(100 + 10 * n) for n in range(1, 9)), state=Round.open(1, 0, Plan(1, 1, 10.0, 1), 100.0)
    )

    assert not state.full and state.extensions == 8


# -- parties

ALL = Plan(2, 2, 10.0, 2, patience=1, parties=("alice", "bob"))


def test_a_round_of_parties_is_for_them_alone():
    state = Round.open(1, 0, ALL, at=100.0)

    assert apply(Assign("carol", "C", 101), state) is state
    assert state.missing() == ("alice", "bob")


def test_a_round_of_parties_is_full_with_all_of_them():
    first = after(Assign("alice", "A", 100), Accept("A", "x", 101), state=Round.open(1, 0, ALL, at=100.0))
    both = after(Assign("bob", "B", 102), Accept("B", "y", 103), state=first)

    assert not first.full and first.missing() == ("bob",)
    assert both.full and not both.void and both.missing() == ()


def test_a_round_that_lacks_a_party_is_void_once_it_is_out_of_patience():
    first = after(Assign("alice", "A", 100), Accept("A", "x", 101), state=Round.open(1, 0, ALL, at=100.0))
    waiting = after(Tick(110), state=first)
    over = after(Tick(120), state=waiting)

    assert not waiting.full and over.void and over.missing() == ("bob",)


# -- asynchronous rounds

BUFFER = Plan(goal=2, minimum=1, seconds=10.0, places=3, staleness=2)


def filled(state: Round, *assignments: str) -> Round:
    return after(*(Accept(a, a, 101) for a in assignments), state=state)


def next_round(full: Round, plan: Plan = BUFFER) -> Round:
    return Round.open(full.number + 1, full.base_version + 1, plan, 110.0, before=full)


def three_at_work() -> Round:
    events = [Assign(name, name.upper(), 100) for name in "abc"]
    return after(*events, state=Round.open(1, 0, BUFFER, 100.0))


def test_places_are_for_devices_at_work_at_once():
    state = three_at_work()
    assert apply(Assign("d", "D", 100), state) is state

    assert apply(Assign("d", "D", 102), filled(state, "A")).places["d"].id == "D"


def test_who_is_behind_goes_on_and_its_update_counts_in_the_next_buffer():
    state = next_round(filled(three_at_work(), "A", "B"))

    assert list(state.behind) == ["c"] and state.base_of("C") == 0
    state = filled(state, "C")
    assert dict(state.updates) == {"C": "C"} and not state.full
    assert apply(Accept("C", "C", 103), state) is state


def test_behind_by_more_than_the_staleness_is_over():
    state = filled(three_at_work(), "A", "B")
    for number in (2, 3, 4):
        state = next_round(state)
        assert ("c" in state.behind) == (number < 4)
        state = after(Assign("d", f"D{number}", 110), Assign("e", f"E{number}", 110), state=state)
        state = filled(state, f"D{number}", f"E{number}")
    with pytest.raises(Refused, match="gave no assignment"):
        apply(Accept("C", "C", 120), state)


def test_devices_behind_take_places():
    state = after(
        Assign("d", "D", 110), Assign("e", "E", 110), state=next_round(filled(three_at_work(), "A", "B"))
    )

    assert not state.room()
    assert apply(GiveBack("C", 111), state).room()
    assert filled(state, "C").room()


def test_who_asks_anew_has_given_up_what_it_was_at():
    state = after(Assign("c", "C2", 110), state=next_round(filled(three_at_work(), "A", "B")))

    assert not state.behind and state.places["c"].id == "C2" and state.base_of("C2") == 1


def test_an_update_for_a_buffer_that_is_full_is_to_come_again():
    with pytest.raises(Refused) as caught:
        apply(Accept("C", "C", 102), filled(three_at_work(), "A", "B"))

    assert (caught.value.status, caught.value.reason) == (503, "round-closing")


def test_synchronous_rounds_leave_nobody_behind():
    events = [Assign(name, name.upper(), 100) for name in "abc"]
    full = after(*events, Accept("A", "x", 101), Accept("B", "y", 102))

    assert not next_round(full, PLAN).behind
