# SPDX-License-Identifier: Apache-2.0
"""The device's loop: check in, train, send, again; past servers that are down, slow or talk nonsense."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from edgefl.bundle import Bundle
from edgefl.bundle.publisher import Publishers
from edgefl.data import Examples
from edgefl.errors import DataError, EdgeflError, Refused
from edgefl.files import write_atomically
from edgefl.options import BUNDLE_BYTES, LimitOptions
from edgefl.runtime.backends import Backend, proved
from edgefl.runtime.belongings import CHECKPOINT, Belongings
from edgefl.runtime.cache import BundleCache, targets_for
from edgefl.runtime.checkpoint import EVERY_S
from edgefl.runtime.conditions import Guard, conditions_here
from edgefl.runtime.conditions.guard import LOOK_AGAIN_S
from edgefl.runtime.evaluating import held_out_by
from edgefl.runtime.feature_cache import LIMIT_BYTES, FeatureCache
from edgefl.runtime.going import Going
from edgefl.runtime.held import HeldVersion
from edgefl.runtime.learner import Learner, TrainerLearner
from edgefl.runtime.limits import limited
from edgefl.runtime.lock import only_one
from edgefl.runtime.measuring import measure
from edgefl.runtime.outbox import Outbox, Pending
from edgefl.runtime.patience import Patience, Stopped, never
from edgefl.runtime.pause import Interrupted, MayGoOn, always
from edgefl.runtime.remote import Remote
from edgefl.runtime.report import RoundReport
from edgefl.runtime.store.source import Source
from edgefl.runtime.transport import Transport
from edgefl.runtime.turn import Ready, Turns
from edgefl.wire import MAX_TEXT, CheckIn, CheckInAnswer

log = logging.getLogger("edgefl.client")
T = TypeVar("T")


MakeLearner = Callable[[Bundle], Learner]
Reader = Callable[[Bundle], Examples]
"""Reads the examples once the model is known."""


class DeviceClient:
    """One device of one server. Its folder holds all it must remember; no two clients may share one.

    Whatever the folder holds is touched under its lock only: by `run`, and by `device` where it makes a name.
    """

    def __init__(
        self,
        transport: Transport,
        examples: Examples | Source | Reader | None,
        workdir: str | os.PathLike[str],
        *,
        backend: str | Backend = "auto",
        delegate: str = "auto",
        device: str | None = None,
        labels: str = "",
        learner: MakeLearner | None = None,
        patience: Patience | None = None,
        may_go_on: MayGoOn = always,
        feature_bytes: int = LIMIT_BYTES,
        bundle_bytes: int = BUNDLE_BYTES,
        publishers: Iterable[str] = (),
        guard: Guard | None = None,
        limits: LimitOptions | None = None,
        checkpoint_s: float = EVERY_S,
        holdout: float = 0.0,
    ) -> None:
        """
        Args:
            examples: what to train on, an `ExampleStore` to look into before each round, or what reads them
                given the bundle; may be None where `learner` brings its own.
            device: the device's name; None makes one up and keeps it in the folder.
            labels: what the server may choose devices by, as in `app=1.4,beta=yes`.
            learner: makes what trains, given the bundle; a `TrainerLearner` by default.
            patience: how to wait for the server.
            may_go_on: asked before every request and every step; where it names a reason, the device stops
                within one step and asks again later.
            feature_bytes: most that features of the frozen part may take in the folder; 0 keeps none.
            bundle_bytes: the longest bundle to accept from the server.
            publishers: public keys, as `edgefl keys new` prints them, one of which must have signed the
                bundle; without any, whatever the server has is taken.
            guard: says when the device may train; by default always, unless the server asks for something.
            limits: what a round may cost, whatever the server asks for.
            checkpoint_s: seconds of training after which it is kept on disk; so much may be lost in a crash.
            holdout: part of the examples that is never trained on, to measure versions on.

        Raises:
            OptionError: a publisher's key is none.
            MissingDependency: there is one, and no `cryptography`.
        """
        self.finished = False
        """Whether the server has said that it has no more rounds."""
        self._home = Path(workdir)
        self._remote = Remote(transport, bundle_bytes, Publishers(publishers))
        self._cache = BundleCache(self._home, targets_for(backend, delegate))
        self._outbox = Outbox(self._home)
        self._name, self._labels = device, labels
        self._limits = limits or LimitOptions()
        self._source = None if isinstance(examples, Examples) or callable(examples) else examples
        if self._source is not None and self._source.sealed:
            feature_bytes = 0  # what is encrypted where it lies is not to lie beside it in another form
        self._features = self._home / "features"
        self._make = learner or partial(
            _trainer,
            examples=examples,
            backend=backend,
            delegate=delegate,
            threads=self._limits.threads,
            holdout=holdout,
            features=FeatureCache(self._features, feature_bytes) if feature_bytes else None,
        )
        self._guard = guard or Guard(self._home, conditions=conditions_here(self._home))

        def name() -> str:
            return self.device

        patience, duty = patience or Patience(), self._limits.duty
        self._going = Going(name, patience, self._guard, may_go_on, duty, self._source)
        self._turns = Turns(
            self._remote, self._going, self._guard, self._outbox, name, self._limits, checkpoint_s
        )

    def run(
        self, max_rounds: int | None = None, until: Callable[[], bool] | None = None
    ) -> Iterator[RoundReport]:
        """Take part until the server has run all its rounds; yields one report per round.

        An update left over from an earlier run is sent first and reported too.

        Args:
            max_rounds: stop after so many reports.
            until: asked before every request and every step; true stops.

        Raises:
            OptionError: another client runs in the same folder.
            DataError, BackendError: this device cannot train the model; the server was told.
            BundleSignature: no publisher that is trusted here has signed the server's bundle.
            Refused: the server will not have this device.
            ServerUnreachable, ServerNonsense: the patience has an end and it came.
        """
        self._going.until = until or never
        with ExitStack() as locked:
            try:
                self._going.on_disk(lambda: locked.enter_context(only_one(self._home)))
                self._name = self._going.on_disk(self._named)
            except Stopped:
                return
            self._guard.begin()
            if self._source is not None:
                self._source.derives(self._features, self._home / CHECKPOINT)
            yield from self._run(max_rounds)

    @property
    def device(self) -> str:
        """The device's name; one is made up and kept where the folder has none yet."""
        if self._name is None and not (self._home / "device").exists():
            with only_one(self._home):
                self._name = self._named()
        return self._name or self._named()

    def _run(self, max_rounds: int | None) -> Iterator[RoundReport]:
        try:
            for count, report in enumerate(self._reports(), start=1):
                self._note(report)
                yield report
                if max_rounds is not None and count >= max_rounds:
                    self._guard.doing("has made as many rounds as asked")
                    return
        except Stopped:
            log.info("%s stops as asked", self.device)
            self._guard.doing("was stopped")
        except EdgeflError as exc:
            self._guard.doing(f"has ended: {exc}"[:MAX_TEXT])
            raise

    # -- the loop

    def _reports(self) -> Iterator[RoundReport]:
        self._outbox.recover()
        left_over = self._outbox.get()
        if left_over is not None and self._is_ours(left_over):
            log.info("round %d: sending the update left over from before", left_over.note.round)
            yield self._turns.send(left_over)
        self._guard.doing("fetches the model")
        ready = self._prepare()
        failures = 0
        while True:
            if self._source is None:
                self._guard.has(ready.learner.examples)
            if not ready.learner.examples:
                self._guard.doing("waits for examples")
                self._going.wait(LOOK_AGAIN_S)
                continue
            self._guard.doing("waits for the server")
            try:
                answer = self._going.insist(partial(self._check_in, ready))
            except Refused as exc:
                if exc.reason != "wrong-schema":
                    raise
                ready = self._renew(ready.bundle, exc)
                continue
            if answer.finished:
                self.finished = True
                self._guard.doing("has finished: the server has no more rounds")
                return
            if answer.evaluation is not None:
                measure(ready, answer.evaluation, self._remote, self._going, self._guard)
                continue
            if answer.task is None:
                self._going.wait(answer.retry_after_s, answer.window_s)
                continue
            try:
                report = self._turns.work(ready, limited(answer.task, self._limits))
            except Interrupted:
                continue
            failures = failures + 1 if report.error else 0
            yield report
            if failures:
                self._going.rest(failures)

    def _is_ours(self, left_over: Pending) -> bool:
        """Whether an update is for this server; another's never sees it."""
        status = self._going.insist(self._remote.status, sending=True)
        if status.federation == left_over.note.federation:
            return True
        self._outbox.set_aside()
        return False

    def _prepare(self) -> Ready:
        bundle = self._going.insist(lambda: self._cache.fetch(self._remote))
        held = HeldVersion(self._home / "held.safetensors", bundle)
        return Ready(bundle, self._make(bundle), held, Belongings.of(self._home, bundle))

    def _renew(self, old: Bundle, refusal: Refused) -> Ready:
        """The server has another model now; Refused again where it says so but offers the same one."""
        self._cache.forget()
        ready = self._prepare()
        if ready.bundle.schema().id == old.schema().id:
            raise refusal
        return ready

    def _check_in(self, ready: Ready) -> CheckInAnswer:
        bundle, learner = ready.bundle, ready.learner
        schema, examples = bundle.schema().id.hex(), max(1, learner.examples)
        held_out = held_out_by(learner)
        message = CheckIn(self.device, schema, learner.engine, examples, self._labels, held_out)
        return self._remote.check_in(message)

    # -- inside

    def _note(self, report: RoundReport) -> None:
        """Leave the owner a line about a round."""
        self._guard.finished_round(
            report.round,
            accepted=report.accepted,
            loss=report.loss,
            bytes_up=report.bytes_up,
            bytes_down=report.bytes_down,
            seconds=report.seconds,
            error=report.error,
        )

    def _named(self) -> str:
        if self._name is not None:
            return self._name
        file = self._home / "device"
        if not file.exists():
            write_atomically(file, f"device-{secrets.token_hex(8)}".encode())
        return file.read_text().strip()


def _trainer(
    bundle: Bundle, examples: Examples | Source | Reader | None, backend: str | Backend, **options: Any
) -> Learner:
    if examples is None:
        raise DataError("there are no examples to train on")
    if not isinstance(backend, str):
        # An app's engine that is wrong must not take a place in a round first.
        backend = proved(bundle, backend)
    if callable(examples):
        examples = examples(bundle)
    return TrainerLearner(bundle, examples, backend=backend, **options)
