# SPDX-License-Identifier: Apache-2.0
"""Everything a server is told when it starts."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from edgefl.errors import OptionError
from edgefl.options import FIRST_DENSITY, MAX_BYTES, ServerOptions
from edgefl.parameters import Schema
from edgefl.privacy.entropy import SYSTEM, Entropy
from edgefl.rules import integer, number, optional
from edgefl.server_stub.aggregators.asked import check
from edgefl.server_stub.drawing import Drawing
from edgefl.server_stub.private import WINDOW_S, Poisson, calibrated
from edgefl.server_stub.rounds import Plan
from edgefl.server_stub.selection import pairs
from edgefl.server_stub.terms import Terms
from edgefl.wire import Training

_AS_DENSE_AS_ASKED = ("topk", "ternary", "subset")


@dataclass(frozen=True)
class Settings(ServerOptions):
    """Settings of one server: its options, and what they are about.

    Attributes:
        bundle: the model file, or its bytes.
        database: path of an SQLite file, or a database URL. A server started again with more rounds goes on.
        training: how devices train; the seed is that of round 1 and counts up with the rounds.
        max_update_bytes: the largest frame taken, None for what the training settings can need.
        long_poll_s: seconds a check-in without work is held in the hope of some.
        retry_after_s: seconds a device waits before it checks in again.
        admin_file: where the admin token is, or is to be written; None for the database's path with `.admin`.
    """

    bundle: str | os.PathLike[str] | bytes
    database: str | os.PathLike[str]
    training: Training = field(default_factory=Training)
    max_update_bytes: Annotated[int | None, optional(integer(1, MAX_BYTES))] = None
    long_poll_s: Annotated[float, number(0.0, 3600.0)] = 5.0
    retry_after_s: Annotated[float, number(0.0, 86_400.0)] = 1.0
    admin_file: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, self.training)
        if self.private and self.parties:
            raise OptionError(
                "rounds that all parties take part in draw nobody, and hide nobody",
                {"privacy": self.privacy, "parties": self.parties},
            )

    def plan(self) -> Plan:
        """What each round asks for."""
        if names := self.party_names:
            return Plan(len(names), len(names), self.deadline_s, len(names), 0, self.extensions or 0, names)
        minimum = math.ceil(self.goal / 2) if self.minimum is None else self.minimum
        places = self.goal + math.ceil(self.goal * self.surplus)
        return Plan(self.goal, minimum, self.deadline_s, places, self.staleness, self.extensions)

    @property
    def private(self) -> bool:
        """Whether models tell little of any device."""
        return self.privacy != "none"

    def poisson(self, entropy: Entropy = SYSTEM) -> Poisson | None:
        """How private rounds are drawn, with the noise they need; None where rounds are not private.

        Raises:
            OptionError: the noise does not follow from what is given, or there is none that would do.
            MissingDependency: it is to follow from epsilon, and dp-accounting is not installed.
        """
        if not self.private:
            return None
        noise = calibrated(self, self.goal, self.rounds)
        return Poisson(self.goal, self.privacy_devices or self.goal, noise, entropy)

    def drawing(self, entropy: Entropy = SYSTEM) -> Drawing:
        """How the places of a round are drawn; raises as `poisson` does."""
        return Drawing(
            window=self.selection_window_s or (WINDOW_S if self.private else 0.0),
            selection=self.selection,
            only=pairs(self.only),
            seed=self.training.fit.seed,
            max_examples=self.max_examples,
            poisson=self.poisson(entropy),
        )

    def terms(self, schema: Schema, number: int) -> Terms:
        """What the devices of a round are told and held to."""
        return Terms(
            training=self.training.in_round(number),
            max_nonzeros=self.max_nonzeros(schema),
            max_bytes=self.max_frame_bytes(schema),
            max_norm=self.max_norm,
            private=self.private,
        )

    def max_nonzeros(self, schema: Schema) -> int:
        """The most elements an update may send."""
        t = self.training.coding
        if t.payload or t.mode not in _AS_DENSE_AS_ASKED:
            # All of them, or as many as fit the bytes or keep the noise in bounds.
            return schema.size
        density = max(t.density, FIRST_DENSITY) if t.warm_up else t.density
        # Every tensor sends at least one; small ones may be sent whole.
        each = len(schema.parameters) if t.per_tensor else 1
        small = sum(p.size for p in schema.parameters if p.size < t.whole_below)
        return min(schema.size, math.ceil(density * schema.size) + each + small)

    def max_frame_bytes(self, schema: Schema) -> int:
        """The largest frame taken."""
        t = self.training.coding
        if t.payload and t.mode != "unbiased" and not self.max_update_bytes:
            return t.payload
        # A gap takes at most 6 bytes and a value at most 9 before any coding; a section up to 128.
        sections = len(schema.parameters) if t.per_tensor or t.whole_below else 0
        return self.max_update_bytes or 4096 + 128 * sections + 16 * self.max_nonzeros(schema)

    def admin_path(self) -> Path:
        """Where the admin token is."""
        if self.admin_file is not None:
            return Path(self.admin_file)
        text = os.fspath(self.database)
        return Path("edgefl.admin" if "://" in text else f"{text}.admin")

    def database_url(self) -> str:
        text = os.fspath(self.database)
        return text if "://" in text else f"sqlite:///{Path(text).absolute()}"
