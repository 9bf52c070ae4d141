# SPDX-License-Identifier: Apache-2.0
"""Rounds, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.errors import DataError, EdgeflError, Refused
from edgefl.parameters import Arrays
from edgefl.privacy.entropy import Keystream
from edgefl.runtime import Metrics
from edgefl.runtime.update import encode_update
from edgefl.runtime.work import Coder
from edgefl.simulation.attacks import Attack
from edgefl.simulation.buffers import Buffers, durations
from edgefl.simulation.fleet import Fleet
from edgefl.simulation.network import Network
from edgefl.simulation.own_models import own_model
from edgefl.simulation.plan import DeviceRow, Plan, RoundRow, Simulated
from edgefl.simulation.turns import Turns
from edgefl.wire import EvaluationInfo, RoundInfo

OnRound = Callable[[RoundRow, Arrays], None]


def simulate(
    bundle: Bundle,
    devices: Mapping[str, Examples],
    plan: Plan,
    *,
    test: Examples | None = None,
    backend: str = "auto",
    delegate: str = "auto",
    code: Coder = encode_update,
    on_round: OnRound | None = None,
    measure_devices: bool = False,
    later: Mapping[str, Examples] | None = None,
) -> Simulated:
    """Run the rounds. On one engine the same arguments give the same bits, and those a real server gives.

    Args:
        devices: examples by device name; names as the protocol allows them.
        test: examples to measure every version on, beside personal parameters and buffers as the bundle has
            them.
        backend, delegate: what trains, as for `edgefl.runtime.open_backend`.
        code: what codes the updates; as devices do by default.
        on_round: called after each round with its row and the new version's shared parameters.
        measure_devices: measure the final version on every device's own examples, as is always done where
            the plan has them make models of their own.
        later: more examples by device name, to measure their own models on.

    Raises:
        OptionError: the plan is impossible.
        DataError: there are no devices, or fewer than the cohort, or examples do not fit the model.
        BackendError: no engine can run the model.
        NotFinite, DeltaError, Refused: so many devices could not send an update that a round never fills.
    """
    cohort = len(devices) if plan.cohort is None else plan.cohort
    if not 1 <= cohort <= len(devices):
        raise DataError(f"a cohort of {cohort} cannot be drawn from {len(devices)} devices")
    # In a simulation draws and noise can be repeated, and so must not come from the system.
    keystream = Keystream(b"simulation" + plan.seed.to_bytes(8, "little"))
    network = Network(plan.settings(bundle, len(devices)), keystream)
    attack = Attack.of(plan, sorted(devices))
    fleet = Fleet(
        network, attack.examples(devices, bundle), backend, delegate, attack.code(code), plan.holdout
    )
    turns = Turns(sorted(devices), plan.seed)
    gauge = None if test is None else fleet.learner(test)
    version, values, rows = bundle.manifest.model_version, _shared(bundle), list[RoundRow]()
    buffers = Buffers(network, fleet, turns, durations(sorted(devices), plan.spread, plan.seed))
    _evaluate(network, fleet, turns.jury(version))
    for _ in range(plan.rounds):
        if network.finished:
            break
        if plan.privacy != "none":
            info = _drawn_round(network, fleet, sorted(devices))
        else:
            info = buffers.next() if plan.staleness else _round(network, fleet, turns, cohort)
        if info.state != "closed":
            raise _never_full(info, fleet.failure)
        assert info.version is not None  # the round is closed
        version, values = info.version, network.parameters(info.version)
        _evaluate(network, fleet, turns.jury(version))
        rows.append(_row(info, None if gauge is None else gauge.evaluate(values), network.evaluations()))
        if on_round:
            on_round(rows[-1], values)
    measured = partial(_measured, fleet, plan, values, later or {})
    return Simulated(
        bundle.with_parameters(values, version),
        tuple(rows),
        tuple(measured(name) for name in sorted(devices)) if measure_devices or plan.personalize else (),
        fleet.engine,
        4 * bundle.schema().size,
        tuple(network.evaluations()),
        network.epsilon,
    )


def _round(network: Network, fleet: Fleet, turns: Turns, cohort: int) -> RoundInfo:
    """Ask devices until the round is full, others in place of those that cannot train."""
    asked, waiting = set[str](), turns.cohort(cohort)
    while network.waiting:
        name = waiting.pop(0) if waiting else turns.another(asked)
        if name is None or not fleet.take_part(name):
            break
        asked.add(name)
    return network.close_round()


def _evaluate(network: Network, fleet: Fleet, order: Sequence[str]) -> None:
    """Have the newest version measured, where it is to be."""
    for name in order:
        if not network.seats:
            return
        fleet.measure(name)


def _drawn_round(network: Network, fleet: Fleet, names: Sequence[str]) -> RoundInfo:
    """All check in, and those who are drawn take part."""
    for name in names:
        fleet.check_in(name)
    network.draw()
    for name in names:
        fleet.take_part(name)
    return network.close_round()


def _never_full(info: RoundInfo, failure: EdgeflError | None) -> EdgeflError:
    assert failure is not None  # there is a device for every place, so some of them failed
    what = f"round {info.round} has {info.updates} of at least {info.minimum} updates"
    if isinstance(failure, Refused):
        return Refused(failure.status, failure.reason, f"{what}: {failure.detail}")
    return type(failure)(f"{what}: {failure}")


def _row(info: RoundInfo, metrics: Metrics | None, evaluations: Sequence[EvaluationInfo]) -> RoundRow:
    found = next((one for one in evaluations if one.version == info.version), None)
    return RoundRow(
        info.round,
        info.updates,
        info.declined,
        info.loss,
        info.frame_bytes,
        info.bytes_up,
        info.bytes_down,
        None if metrics is None else metrics.loss,
        None if metrics is None else metrics.accuracy,
        None if found is None else found.loss,
        None if found is None else found.accuracy,
    )


def _measured(
    fleet: Fleet, plan: Plan, values: Arrays, later: Mapping[str, Examples], name: str
) -> DeviceRow:
    examples, rounds, metrics = fleet.evaluate(name, values)
    own = own_model(fleet, name, values, plan.own(), later.get(name)) if plan.personalize else None
    return DeviceRow(name, examples, rounds, metrics.loss, metrics.accuracy, own)


def _shared(bundle: Bundle) -> Arrays:
    values = bundle.parameters()
    return {p.name: values[p.name] for p in bundle.schema().parameters}
