# SPDX-License-Identifier: Apache-2.0
"""What an uploaded frame must be before it may count. Nothing about the update is believed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgefl.delta import Limits, SparseDelta, decode
from edgefl.delta.origin import UNKNOWN, stamp, stamp_of
from edgefl.errors import DeltaBase, DeltaError, DeltaSchema, DeltaTooLarge, DeltaValue, Refused
from edgefl.parameters import Schema
from edgefl.server_stub.terms import Terms
from edgefl.wire import MAX_LOSS


@dataclass(frozen=True)
class Checks:
    """The bounds of one round.

    Attributes:
        schema_id: the 8 bytes of the parameter schema.
        size: shared elements of the model.
        max_nonzeros: the most elements an update may send.
        max_bytes: the largest frame.
        max_norm: the largest L2 norm, None for no bound.
    """

    schema_id: bytes
    size: int
    max_nonzeros: int
    max_bytes: int
    max_norm: float | None = None

    @staticmethod
    def of(schema: Schema, terms: Terms) -> Checks:
        """What a round's terms ask for."""
        return Checks(schema.id, schema.size, terms.max_nonzeros, terms.max_bytes, terms.max_norm)

    @staticmethod
    def passed(schema: Schema, frame: bytes) -> Checks:
        """For a frame that was accepted: it counts, whatever is asked for today."""
        return Checks(schema.id, schema.size, schema.size, len(frame))

    def decode(self, frame: bytes, base_version: int) -> SparseDelta:
        """The update in a frame.

        Raises:
            Refused: `too-large`, `wrong-schema`, `stale-version`, `not-finite`, `norm-exceeded` or
                `malformed-frame`.
        """
        limits = Limits(
            schema_id=self.schema_id,
            size=self.size,
            max_nonzeros=self.max_nonzeros,
            versions=(base_version,),
            max_bytes=self.max_bytes,
        )
        try:
            update = decode(frame, limits=limits)
        except DeltaError as exc:
            raise _refusal(exc) from exc
        self._check_values(update)
        return update

    @staticmethod
    def check_origin(frame: bytes, base: str) -> None:
        """Refused (`other-base`) where an update says that it starts from other parameters."""
        if stamp_of(frame) not in (UNKNOWN, stamp(base)):
            raise Refused(
                409,
                "other-base",
                "the update starts from other parameters than this server's version of that number: it was "
                "made for another federation",
            )

    def _check_values(self, update: SparseDelta) -> None:
        norm = float(np.linalg.norm(update.values.astype(np.float64)))
        if not math.isfinite(norm):
            raise Refused(422, "not-finite", "the update has NaN or infinity")
        if self.max_norm is not None and norm > self.max_norm:
            raise Refused(
                422, "norm-exceeded", f"the update's L2 norm is {norm:.6g}, allowed is {self.max_norm:.6g}"
            )


def reported_loss(update: SparseDelta) -> float | None:
    """The training loss a device put in the frame's metadata, for display only; None where there is none."""
    loss = update.meta.get("loss")
    if isinstance(loss, bool) or not isinstance(loss, (int, float)) or not abs(loss) <= MAX_LOSS:
        return None
    return float(loss)


def _refusal(exc: DeltaError) -> Refused:
    if isinstance(exc, DeltaTooLarge):
        return Refused(413, "too-large", str(exc))
    if isinstance(exc, DeltaSchema):
        return Refused(409, "wrong-schema", str(exc))
    if isinstance(exc, DeltaBase):
        return Refused(409, "stale-version", str(exc))
    if isinstance(exc, DeltaValue):
        return Refused(422, "not-finite", str(exc))
    return Refused(400, "malformed-frame", str(exc))
