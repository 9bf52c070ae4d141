# SPDX-License-Identifier: Apache-2.0
"""Rounds and evaluations written where other programs draw them: TensorBoard's files, an MLflow server.

It only reads, in a thread of its own: a recorder that is slow or down holds no round up, and is tried again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.exc import SQLAlchemyError

from edgefl._version import __version__
from edgefl.errors import MissingDependency, StoreError
from edgefl.server_stub.pages.figures import Figures, Snapshot
from edgefl.wire import EvaluationInfo, RoundInfo, Status

log = logging.getLogger("edgefl.server")
_KINDS = ("round", "evaluation")
_GRACE_S = 15.0
_FLUSH_S = 5
_LOOK_S = 10.0
"""How often it is looked for what nobody tells of: evaluations, and rounds other servers closed."""

_CALM = {
    # It would report the use of itself to its makers.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A server that is down is tried again by us, and must not keep ours from stopping.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


@dataclass(frozen=True)
class Entry:
    """What is written of one round, or of one version.

    Attributes:
        kind: `round` or `evaluation`.
        step: the round's number, or the version's.
        at: when it was over, seconds since the epoch.
        values: by name.
    """

    kind: str
    step: int
    at: float
    values: Mapping[str, float]


class Recorder(Protocol):
    """Somewhere to write."""

    def begin(self, status: Status) -> Mapping[str, int]:
        """Be ready to write; the last step of each kind that is written already."""
        ...

    def write(self, entry: Entry) -> None: ...

    def finish(self) -> None:
        """The rounds are over; what comes after are evaluations."""
        ...

    def close(self) -> None:
        """See that what was written is there, and end."""
        ...


class TensorBoard:
    """Event files in a folder, one run per federation. After a restart all is written anew: what stood there
    before is passed over by whoever reads."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as exc:
            raise MissingDependency("tensorboardX", "tensorboard", "writing for TensorBoard") from exc
        self._folder, self._make = Path(folder), SummaryWriter
        self._writer: Any = None

    def begin(self, status: Status) -> Mapping[str, int]:
        self._writer = self._make(str(self._folder / status.federation), purge_step=0, flush_secs=_FLUSH_S)
        return {}

    def write(self, entry: Entry) -> None:
        for name, value in entry.values.items():
            self._writer.add_scalar(f"{entry.kind}/{name}", value, entry.step, walltime=entry.at)

    def finish(self) -> None:
        pass

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class MLflow:
    """One run per federation on an MLflow server, in the experiment `edgefl`; a restart goes on with it."""

    def __init__(self, uri: str) -> None:
        for name, value in _CALM.items():
            os.environ.setdefault(name, value)
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric, Param
        except ImportError as exc:
            raise MissingDependency("mlflow-skinny", "mlflow", "writing to MLflow") from exc
        self._uri, self._make, self._metric, self._param = uri, MlflowClient, Metric, Param
        self._client: Any = None
        self._run = ""

    def begin(self, status: Status) -> Mapping[str, int]:
        client = self._client = self._make(tracking_uri=self._uri)
        known = client.get_experiment_by_name("edgefl")
        experiment = client.create_experiment("edgefl") if known is None else known.experiment_id
        mine = f"tags.`edgefl.federation` = '{status.federation}'"
        found = client.search_runs([experiment], mine, max_results=1)
        if found:
            self._run = found[0].info.run_id
            last = found[0].data.metrics
            return {kind: int(last[f"{kind}/step"]) for kind in _KINDS if f"{kind}/step" in last}
        tags = {"edgefl.federation": status.federation}
        made = client.create_run(experiment, tags=tags, run_name=f"{status.model} {status.federation}")
        self._run = made.info.run_id
        told = {"model": status.model, "schema": status.schema, "release": __version__}
        client.log_batch(self._run, params=[self._param(name, text) for name, text in told.items()])
        return {}

    def write(self, entry: Entry) -> None:
        values = {**entry.values, "step": float(entry.step)}
        at = int(1000 * entry.at)
        metrics = [self._metric(f"{entry.kind}/{name}", v, at, entry.step) for name, v in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def finish(self) -> None:
        self._client.set_terminated(self._run)

    def close(self) -> None:
        pass


class Recording:
    """Recorders that follow a server until it stops."""

    def __init__(self, figures: Figures, recorders: Sequence[Recorder]) -> None:
        self._figures = figures
        self._following = [_Following(each) for each in recorders]
        self._wake, self._stopping = threading.Event(), False
        self._thread = threading.Thread(target=self._follow, name="recording", daemon=True)

    def start(self) -> None:
        if self._following:
            self._thread.start()

    def tell(self, _: object) -> None:
        """A round was closed."""
        self._wake.set()

    def stop(self) -> None:
        """Write what is still to be written, and end."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_GRACE_S)

    def look(self) -> None:
        """Write what is new."""
        # What becomes of a database that does not answer is the server's to tell.
        with contextlib.suppress(StoreError, SQLAlchemyError):
            now = self._figures.snapshot(fresh=True)
            for each in self._following:
                each.catch_up(now)

    def _follow(self) -> None:
        while True:
            last = self._stopping
            self.look()
            if last:
                for each in self._following:
                    each.recorder.close()
                return
            self._wake.wait(_LOOK_S)
            self._wake.clear()


class _Following:
    """One recorder, and what it has."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._done: dict[str, int] | None = None
        self._failing = False

    def catch_up(self, now: Snapshot) -> None:
        try:
            if self._done is None:
                self._done = {**dict.fromkeys(_KINDS, -1), **self.recorder.begin(now.status)}
            fresh = [entry for entry in entries(now) if entry.step > self._done[entry.kind]]
            for entry in fresh:
                self.recorder.write(entry)
                self._done[entry.kind] = entry.step
            if fresh and now.status.finished:
                self.recorder.finish()
            self._failing = False
        except Exception as exc:
            # Of a library for monitors: nothing it raises may end the server.
            if not self._failing:
                told = {
                    "event": "recording-failed",
                    "recorder": type(self.recorder).__name__,
                    "reason": str(exc),
                }
                log.warning("%(recorder)s cannot be written to, it is tried again: %(reason)s", told)
            self._failing = True


def entries(now: Snapshot) -> Iterator[Entry]:
    """All there is to write of a server."""
    for info in now.closed:
        yield Entry("round", info.round, info.closed_at or 0.0, _of_round(info, now.dense_bytes))
    for each in now.evaluations:
        if each.state == "closed":
            yield Entry("evaluation", each.version, each.until, _of_evaluation(each))


def _of_round(info: RoundInfo, dense_bytes: int) -> dict[str, float]:
    values = {
        "updates": info.updates,
        "assigned": info.assigned,
        "declined": info.declined,
        "refused": sum(each.count for each in info.refused),
        "bounded": info.bounded,
        "seconds": (info.closed_at or info.opened_at) - info.opened_at,
        "bytes_up": info.bytes_up,
        "bytes_down": info.bytes_down,
        "loss": info.loss,
        "times_smaller": info.updates * dense_bytes / info.bytes_up if info.bytes_up else None,
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def _of_evaluation(found: EvaluationInfo) -> dict[str, float]:
    names = ("devices", "examples", "loss", "median_loss", "accuracy")
    return {name: float(value) for name in names if (value := getattr(found, name)) is not None}
