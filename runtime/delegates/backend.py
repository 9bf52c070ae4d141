# SPDX-License-Identifier: Apache-2.0
"""A backend whose graphs run on whatever delegate has proved itself, each graph on its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from edgefl.bundle import Bundle
from edgefl.errors import BackendError, BackendFailure, BackendUnavailable, OptionError
from edgefl.runtime.backends.base import Placed, Program, ProvingBackend, artifact_of
from edgefl.runtime.backends.proving import Proving
from edgefl.runtime.delegates.choice import CPU, Choice, Placement, Verdict
from edgefl.runtime.delegates.isolated import processes_allowed, try_isolated
from edgefl.runtime.delegates.presence import candidates, wished
from edgefl.runtime.delegates.probe import LOADING
from edgefl.runtime.delegates.registry import Wish
from edgefl.runtime.delegates.trial import open_choice, try_choice
from edgefl.runtime.delegates.verdicts import keep, recall

log = logging.getLogger("edgefl.delegates")
Array = npt.NDArray[Any]
_BAD = ("wrong", "crashed", "hung")


def delegated(engine: str, wish: Wish, threads: int) -> ProvingBackend:
    """The engine with the delegate a user wished for.

    Raises:
        OptionError: the engine has no such delegate.
        BackendUnavailable: the engine is not installed, or what was named is not here or does not load.
    """
    cpu = Proving(open_choice(Choice(engine), threads), threads)
    if not wish.named:
        return AutoBackend(cpu, threads) if wish.name != CPU else cpu
    if engine not in wish.engines:
        allowed = ", ".join(wish.engines)
        raise OptionError(f"delegate {wish.name!r} works with backend {allowed}, not with {engine}")
    choice = wished(wish, engine, cpu.providers)
    if isinstance(choice, str):
        raise BackendUnavailable(f"delegate {wish.name!r} is not here: {choice}")
    if not choice.built_in:
        _check_loads(choice, threads)
    return NamedBackend(cpu, choice, threads)


class AutoBackend(ProvingBackend):
    """Each graph on the fastest of the delegates present that gives the right results, or on the CPU."""

    def __init__(self, cpu: Proving, threads: int) -> None:
        self._cpu, self._threads = cpu, threads
        self.name, self.target, self.version = cpu.name, cpu.target, cpu.version
        self.providers = cpu.providers

    def load(self, bundle: Bundle, kind: str) -> Program:
        """See `Backend.load`; raises BackendFailure where neither a delegate nor the CPU is right."""
        artifact_of(bundle, self.target, kind)
        verdicts = self._verdicts(bundle, kind)
        right = [choice for choice, verdict in verdicts.items() if verdict.state == "right"]
        for best in sorted(right, key=lambda choice: verdicts[choice].ms):
            try:
                return self._kept(bundle, kind, best, verdicts)
            except BackendError as exc:
                verdicts[best] = replace(verdicts[best], state="refused", reason=str(exc))
                log.warning("%s", verdicts[best])
        tried = tuple(_passed_over(verdict) for verdict in verdicts.values())
        program = self._cpu.load(bundle, kind)
        return on_cpu(program, tried) if tried else program

    def prove(self, bundle: Bundle, kind: str) -> None:
        """Raise BackendFailure where neither the CPU nor a delegate is right; BackendError as for `load`."""
        try:
            self._cpu.prove(bundle, kind)
        except BackendFailure:
            if all(verdict.state != "right" for verdict in self._verdicts(bundle, kind).values()):
                raise

    def _verdicts(self, bundle: Bundle, kind: str) -> dict[Choice, Verdict]:
        verdicts = {}
        for choice in candidates(self.name, self.providers, kind):
            try:
                verdicts[choice] = judge(bundle, kind, choice, self._threads, self.version)
            except BackendUnavailable as exc:
                verdicts[choice] = Verdict(choice.name, kind, "untried", str(exc))
        return verdicts

    def _kept(self, bundle: Bundle, kind: str, best: Choice, verdicts: dict[Choice, Verdict]) -> Program:
        verdict, cpu = verdicts[best], self._own(bundle, kind)
        program = open_choice(best, self._threads).load(bundle, kind)
        tried = tuple(_passed_over(v, verdict) for c, v in verdicts.items() if c != best)
        if cpu.state != "right":
            log.warning("%s", cpu)
            return Trusted(program, placement_of_verdict(verdict, (*tried, cpu)))
        return Trusted(program, placement_of_verdict(verdict, tried), lambda: self._cpu.load(bundle, kind))

    def _own(self, bundle: Bundle, kind: str) -> Verdict:
        try:
            return self._cpu.verdict(bundle, kind)
        except BackendError as exc:
            return Verdict(CPU, kind, "refused", str(exc))


class NamedBackend(ProvingBackend):
    """Every graph on the one delegate named, or an error that says why not."""

    def __init__(self, cpu: Proving, choice: Choice, threads: int) -> None:
        self._cpu, self._choice, self._threads = cpu, choice, threads
        self.name, self.target, self.version = cpu.name, cpu.target, cpu.version
        self.providers = cpu.providers

    def load(self, bundle: Bundle, kind: str) -> Program:
        """See `Backend.load`.

        Raises:
            BackendFailure: the delegate refuses the graph, gets it wrong or is lost with it, or takes none of
                its operators though the bundle has no other graph meant for accelerators.
        """
        choice = self._choice
        verdict = judge(bundle, kind, choice, self._threads, self.version, insist=True)
        if verdict.state == "idle" and self._may_idle(bundle, kind):
            log.warning("%s, so the CPU runs it", verdict)
            return on_cpu(self._cpu.load(bundle, kind), (verdict,))
        if verdict.state not in ("right", "slower"):
            raise BackendFailure(
                f"delegate {choice.name!r} cannot run {kind} of {bundle.manifest.name!r}: "
                f"it {_says(verdict)}; delegate 'auto' keeps it for the graphs it runs well"
            )
        program = open_choice(choice, self._threads).load(bundle, kind)
        return Trusted(program, placement_of_verdict(verdict, ()))

    def prove(self, bundle: Bundle, kind: str) -> None:
        """As `load`, which asks the verdict kept from before; raises what that raises."""
        self.load(bundle, kind)

    def _may_idle(self, bundle: Bundle, kind: str) -> bool:
        # Accelerators are for the frozen part; the step beside it may stay on the CPU, which is reported.
        return not kind.startswith("features") and bundle.manifest.find(self.target, "features") is not None


def on_cpu(program: Program, tried: tuple[Verdict, ...]) -> Program:
    """A program on the engine's own code, which says why it is not on something else."""
    return Placed(program, replace(program.placement, tried=tried))


class Trusted:
    """A program on a delegate that passed its trial; should it fail later, the CPU may take over."""

    def __init__(self, program: Program, placement: Placement, cpu: Any = None) -> None:
        self._program, self.placement, self._cpu = program, placement, cpu

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        try:
            return self._program(feeds)
        except BackendFailure as exc:
            if self._cpu is None:
                raise
            made, program = self._retry(feeds)
            lost = Verdict(self.placement.delegate, self.placement.graph, "refused", f"failed in use: {exc}")
            log.warning("%s, so the CPU goes on", lost)
            self._program, self._cpu = program, None
            self.placement = Placement(self.placement.graph, tried=(*self.placement.tried, lost))
            return made

    def _retry(self, feeds: Mapping[str, Array]) -> tuple[dict[str, Array], Program]:
        """The same call on the CPU; where that fails too the feeds were wrong, not the delegate."""
        program: Program = self._cpu()
        return program(feeds), program


def judge(
    bundle: Bundle, kind: str, choice: Choice, threads: int, version: str, *, insist: bool = False
) -> Verdict:
    """The verdict on a choice, from an earlier trial where that still holds.

    What is not built into the engine is tried in a process of its own. Where none can be started it is not
    tried, unless the user insists on it by name: then it is tried here.

    Raises:
        BackendUnavailable: the engine is not installed, or the bundle does not say what is right.
    """
    known = recall(bundle, kind, choice, threads, version)
    if known is not None and not (insist and known.state == "refused"):
        log.debug("%s (kept from before)", known)
        return known
    verdict = _tried(bundle, kind, choice, threads, insist)
    log.log(logging.WARNING if verdict.state in _BAD else logging.INFO, "%s", verdict)
    keep(verdict, bundle, choice, threads, version)
    return verdict


def _tried(bundle: Bundle, kind: str, choice: Choice, threads: int, insist: bool) -> Verdict:
    if choice.built_in:
        return try_choice(bundle, kind, choice, threads)
    if processes_allowed():
        return try_isolated(bundle, kind, choice, threads)
    if insist:
        return try_choice(bundle, kind, choice, threads)
    reason = "no process of its own can be started on this system to try it in; name it to try it in this one"
    return Verdict(choice.name, kind, "untried", reason)


def placement_of_verdict(verdict: Verdict, tried: tuple[Verdict, ...]) -> Placement:
    return Placement(
        verdict.graph,
        verdict.delegate,
        verdict.operators,
        verdict.taken,
        verdict.partitions,
        tried,
        verdict.cpu_ms / verdict.ms if verdict.ms and verdict.cpu_ms else None,
    )


def _passed_over(verdict: Verdict, winner: Verdict | None = None) -> Verdict:
    if verdict.state == "right" and winner is not None:
        reason = f"{verdict.ms:.3g} ms, {winner.delegate} {winner.ms:.3g} ms"
        return replace(verdict, state="slower", reason=reason)
    return verdict


def loads(choice: Choice, threads: int) -> Verdict:
    """Whether what was chosen loads, seen in a process of its own where the system allows one."""
    if processes_allowed():
        verdict = try_isolated(None, LOADING, choice, threads)
        if verdict.state != "untried":
            return verdict
    try:
        open_choice(choice, threads).check()
    except BackendError as exc:
        return Verdict(choice.name, LOADING, "refused", str(exc))
    return Verdict(choice.name, LOADING, "right", "loads")


def _check_loads(choice: Choice, threads: int) -> None:
    verdict = loads(choice, threads)
    if verdict.state != "right":
        if verdict.state == "refused":
            raise BackendUnavailable(verdict.reason)
        what = choice.library or choice.name
        raise BackendUnavailable(f"delegate {what!r} cannot be loaded: it {_says(verdict)}")


def _says(verdict: Verdict) -> str:
    words = {"wrong": "gives wrong results", "idle": "stays idle", "refused": "refused"}
    return f"{words.get(verdict.state, verdict.state)}: {verdict.reason}"
