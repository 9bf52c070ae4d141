# SPDX-License-Identifier: Apache-2.0
"""The version of the model a device holds, moved on step by step instead of downloaded again.

Every task names the fingerprint of the parameters it starts from. Steps, all steps since the first version,
and the whole parameters are tried in this order until it fits; a device never trains from anything else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from edgefl.bundle import Bundle
from edgefl.delta import SparseDelta
from edgefl.delta.lattice import Doubles, fingerprint, weights
from edgefl.errors import Refused, ServerNonsense, TensorFileError
from edgefl.files import write_atomically
from edgefl.parameters import Arrays, Vector
from edgefl.runtime.remote import Remote
from edgefl.tensorfile import read_metadata, read_tensors, write_tensors

log = logging.getLogger("edgefl.client")


class Start(Protocol):
    """What work starts from: a version, and the fingerprint of its parameters. A task says both."""

    @property
    def base_version(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class Position:
    """A version and the sum of all steps that led to it, float64 of shape `(d,)`."""

    version: int
    moved: Doubles


class Ways:
    """How a device of one bundle gets from the version it holds to the one a task starts from.

    Attributes:
        origin: the version the bundle itself holds.
        key: the fingerprint of its parameters.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._schema, values = bundle.schema(), bundle.parameters()
        self._start: Vector = self._schema.flatten({p.name: values[p.name] for p in self._schema.parameters})
        self.origin = Position(bundle.manifest.model_version, np.zeros(len(self._start)))
        self.key = fingerprint(self._start)

    def lead(self, remote: Remote, held: Position, task: Start) -> tuple[Arrays, Position]:
        """The shared parameters a task starts from, and what the device holds then.

        Raises:
            Refused: the server does not have them.
            ServerUnreachable, ServerNonsense: worth a retry.
        """
        if not task.fingerprint:
            return remote.parameters(task.base_version, self._schema), held
        for start in (held, self.origin):
            try:
                found = self._follow(remote, start, task)
            except Refused as exc:
                log.info("version %d: %s", task.base_version, exc)
                continue
            if found is not None:
                return found
        log.warning("no steps lead to version %d", task.base_version)
        return self._whole(remote, task), held

    def _follow(self, remote: Remote, held: Position, task: Start) -> tuple[Arrays, Position] | None:
        """The parameters after the steps from a position; None where they are not the task's."""
        position = held
        if held.version != task.base_version:
            position = self._moved(held, remote.moves(task.base_version, held.version, self._schema), task)
        made = weights(self._start, position.moved)
        if fingerprint(made) != task.fingerprint:
            return None
        return self._schema.unflatten(made), position

    def _moved(self, held: Position, steps: Iterator[SparseDelta], task: Start) -> Position:
        moved: Doubles | None = None
        for step in steps:
            if moved is None:
                # The server leads devices too far behind from the first version on.
                base = held if step.base_version == held.version else self.origin
                moved = base.moved.copy()
            moved[step.indices] += step.values
        assert moved is not None  # a body without any frame is an error
        return Position(task.base_version, moved)

    def _whole(self, remote: Remote, task: Start) -> Arrays:
        values = remote.parameters(task.base_version, self._schema)
        if fingerprint(weights(self._schema.flatten(values), np.zeros(1))) != task.fingerprint:
            raise ServerNonsense(f"version {task.base_version} of the parameters is not the task's")
        return values


class HeldVersion:
    """What one device holds of one bundle's model, in one file."""

    def __init__(self, path: Path, bundle: Bundle) -> None:
        self._path, self._ways = path, Ways(bundle)
        self._at = self._kept = self._restored() or self._ways.origin

    def fetch(self, remote: Remote, task: Start) -> Arrays:
        """The shared parameters a task starts from.

        Raises:
            Refused, ServerUnreachable, ServerNonsense: as `Ways.lead`.
            DiskFull: what was fetched is not on disk yet; the next call asks the server for no step again.
        """
        values, self._at = self._ways.lead(remote, self._at, task)
        if self._at is not self._kept:
            self._keep(self._at)
        return values

    def _keep(self, position: Position) -> None:
        short = position.moved.astype(np.float32)
        kept = short if np.array_equal(short, position.moved) else position.moved
        write_atomically(
            self._path,
            write_tensors({"moved": kept}, {"version": str(position.version), "start": self._ways.key}),
        )
        self._kept = position

    def _restored(self) -> Position | None:
        """What the file says; a file in doubt counts as none, and is found out by the next fingerprint."""
        try:
            data = self._path.read_bytes()
            metadata, moved = read_metadata(data), read_tensors(data)["moved"]
            if metadata["start"] != self._ways.key or moved.shape != self._ways.origin.moved.shape:
                return None
            return Position(int(metadata["version"]), moved.astype(np.float64))
        except FileNotFoundError:
            return None
        except (OSError, TensorFileError, KeyError, ValueError) as exc:
            log.warning("held version in %s dropped: %s", self._path, exc)
            return None
