# SPDX-License-Identifier: Apache-2.0
"""Many sparse updates into one step: weighted mean (FedAvg) and server optimizer (FedAvgM).

Updates are added straight from their (indices, values) into one float64 accumulator, so memory does not grow
with the number of devices. They are added in the order of their digests: the same updates give the same bits,
whoever sent them and in whatever order they came.

FedAvg is McMahan et al., 2017 (arXiv:1602.05629); FedAvgM is Hsu et al., 2019 (arXiv:1909.06335).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Bundle
from edgefl.delta import Limits, SparseDelta, decode
from edgefl.errors import DataError, NotFinite
from edgefl.parameters import Schema

Array = npt.NDArray[Any]
Vector64 = npt.NDArray[np.float64]
State = Mapping[str, Array]
"""What a server optimizer remembers between rounds, by name."""


@dataclass(frozen=True)
class ServerOptimizer:
    """A pair of pure functions.

    Attributes:
        init: size -> the first state.
        apply: (mean update of shape `(size,)`, state) -> (step of shape `(size,)`, state).
    """

    init: Callable[[int], State]
    apply: Callable[[Vector64, State], tuple[Vector64, State]]


def averaging(lr: float = 1.0, momentum: float = 0.0) -> ServerOptimizer:
    """`v = momentum * v + mean`, `step = lr * v`. Without momentum there is no state."""

    def init(size: int) -> State:
        return {"velocity": np.zeros(size, np.float32)} if momentum else {}

    def apply(mean: Vector64, state: State) -> tuple[Vector64, State]:
        if not momentum:
            return lr * mean, {}
        # Kept in float32, the precision it is stored in, so that a restart changes nothing.
        velocity = (momentum * state["velocity"].astype(np.float64) + mean).astype(np.float32)
        return lr * velocity.astype(np.float64), {"velocity": velocity}

    return ServerOptimizer(init, apply)


def digest(frame: bytes) -> str:
    """The id of an update: SHA-256 of its frame in hexadecimal."""
    return hashlib.sha256(frame).hexdigest()


def weighted_mean(updates: Iterable[tuple[SparseDelta, float]], size: int) -> Vector64:
    """Mean of sparse updates, shape `(size,)`, added in the order given.

    Raises:
        DataError: no update, or a weight that is not positive and finite.
    """
    total = 0.0
    mean = np.zeros(size, np.float64)
    for update, weight in updates:
        if not (weight > 0 and np.isfinite(weight)):
            raise DataError(f"an update has weight {weight}, allowed are positive finite weights")
        # Indices within one update are distinct, so this adds each of them.
        mean[update.indices] += weight * update.values.astype(np.float64)
        total += weight
    if total == 0.0:
        raise DataError("there are no updates to aggregate")
    mean /= total
    return mean


def stepped(schema: Schema, parameters: Mapping[str, Array], step: Vector64) -> dict[str, Array]:
    """The shared parameters after a step.

    Raises:
        NotFinite: the result has NaN or infinity.
    """
    with np.errstate(over="ignore"):
        moved = schema.unflatten(schema.flatten(parameters).astype(np.float64) + step)
    for name, value in moved.items():
        if not np.isfinite(value).all():
            raise NotFinite(f"the aggregated parameter {name!r} has NaN or infinity")
    return moved


def aggregate(bundle: Bundle, payloads: Sequence[bytes], weights: Sequence[float] | None = None) -> Bundle:
    """The bundle one version on, moved by the weighted mean of updates made against it.

    Args:
        payloads: frames as `encode_delta` makes them, in any order.
        weights: one per payload, such as numbers of examples; None weighs all the same.

    Raises:
        DeltaError: a payload is malformed, or made for another schema or version.
        DataError: no payloads, or weights that are not positive, finite and one per payload.
    """
    factors = [1.0] * len(payloads) if weights is None else [float(w) for w in weights]
    if len(factors) != len(payloads):
        raise DataError(f"{len(payloads)} payloads with {len(factors)} weights, one each is needed")
    schema, version = bundle.schema(), bundle.manifest.model_version
    ordered = sorted(zip(payloads, factors, strict=True), key=lambda pair: (digest(pair[0]), pair[1]))
    mean = weighted_mean(_decoded(ordered, schema, version), schema.size)
    values = bundle.parameters()
    return bundle.with_parameters(stepped(schema, _shared(schema, values), mean), version + 1)


def _decoded(
    pairs: Iterable[tuple[bytes, float]], schema: Schema, version: int
) -> Iterator[tuple[SparseDelta, float]]:
    for frame, weight in pairs:
        limits = Limits(
            schema_id=schema.id,
            size=schema.size,
            max_nonzeros=schema.size,
            versions=frozenset({version}),
            max_bytes=len(frame),
        )
        yield decode(frame, limits=limits), weight


def _shared(schema: Schema, values: Mapping[str, Array]) -> dict[str, Array]:
    return {p.name: values[p.name] for p in schema.parameters}
