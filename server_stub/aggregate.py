# SPDX-License-Identifier: Apache-2.0
"""Updates by hand: the weighted mean of payloads, and what a step does to parameters.

Updates are added in the order of their digests: the same updates give the same bits, whoever sent them and
in whatever order they came.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from edgefl.bundle import Bundle
from edgefl.delta import Limits, decode
from edgefl.errors import DataError, NotFinite
from edgefl.parameters import Schema
from edgefl.server_stub.aggregators.base import Array, Contribution, Vector64
from edgefl.server_stub.aggregators.mean import weighted_mean


def digest(frame: bytes) -> str:
    """The id of an update: SHA-256 of its frame in hexadecimal."""
    return hashlib.sha256(frame).hexdigest()


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


def _decoded(pairs: Iterable[tuple[bytes, float]], schema: Schema, version: int) -> Iterator[Contribution]:
    for frame, weight in pairs:
        limits = Limits(
            schema_id=schema.id,
            size=schema.size,
            max_nonzeros=schema.size,
            versions=frozenset({version}),
            max_bytes=len(frame),
        )
        yield Contribution(decode(frame, limits=limits), weight)


def _shared(schema: Schema, values: Mapping[str, Array]) -> dict[str, Array]:
    return {p.name: values[p.name] for p in schema.parameters}
