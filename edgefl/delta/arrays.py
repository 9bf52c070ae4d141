# SPDX-License-Identifier: Apache-2.0
"""Updates as named arrays: the two functions most callers need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgefl.delta.codec import Encoded, decode, encode
from edgefl.delta.feedback import Residual, apply_feedback, carry
from edgefl.delta.frame import Limits
from edgefl.errors import DeltaOption
from edgefl.options import STATELESS_MODES
from edgefl.parameters import Arrays, Schema, Vector


class HasVersion(Protocol):
    """A manifest, as far as the codec reads one."""

    @property
    def model_version(self) -> int: ...


class HasSchema(Protocol):
    """A bundle, as far as the codec reads one."""

    @property
    def manifest(self) -> HasVersion: ...

    def schema(self) -> Schema: ...


def encode_delta(
    delta: Arrays, bundle: HasSchema | None, *, mode: str = "topk", density: float = 0.01, **options: Any
) -> bytes:
    """Code named arrays of differences, once; what is left out is lost (see `encode_with_feedback`).

    Args:
        delta: new minus base parameters by name, floating point.
        bundle: the model they belong to; None takes the names in sorted order and version 0.
        mode, density, options: as `edgefl.delta.encode` takes them.

    Raises:
        DataShape, DataType: the arrays do not fit the bundle's schema.
        DeltaOption, NotFinite: as `edgefl.delta.encode` raises them.
    """
    schema, version = _belongs(delta, bundle)
    return _coder(schema, version, {"mode": mode, "density": density, **options})(schema.flatten(delta)).frame


def encode_with_feedback(
    delta: Arrays,
    bundle: HasSchema | None,
    residual: Residual | None,
    *,
    mode: str = "topk",
    decay: float = 1.0,
    momentum: float = 0.0,
    **options: Any,
) -> tuple[bytes, Residual | None]:
    """Code named arrays of differences together with what earlier frames left out, as devices do.

    Args:
        delta: new minus base parameters by name, floating point.
        bundle: the model they belong to; None takes the names in sorted order and version 0.
        residual: what the call before gave; None for the first. One of another schema or of a later version
            no longer means anything and is dropped.
        mode, options: as `encode_delta` takes them.
        decay, momentum: as `apply_feedback` takes them.

    Returns:
        The frame, and the residual for the next call; None in modes of `STATELESS_MODES`, which need none.

    Raises:
        DataShape, DataType, DeltaOption, NotFinite: as `encode_delta` raises them.
    """
    if mode in STATELESS_MODES:
        return encode_delta(delta, bundle, mode=mode, **options), None
    schema, version = _belongs(delta, bundle)
    encoded, left = apply_feedback(
        schema.flatten(delta),
        carry(residual, schema.id, version, version),
        _coder(schema, version, {"mode": mode, **options}),
        schema_id=schema.id,
        base_version=version,
        decay=decay,
        momentum=momentum,
    )
    return encoded.frame, left


def decode_delta(payload: bytes, bundle: HasSchema | Schema) -> dict[str, npt.NDArray[Any]]:
    """The dense named arrays of a frame, zero where nothing was sent.

    Args:
        payload: the frame.
        bundle: the model it belongs to, whose version must be the frame's base; or only a schema, such as
            `Schema.of_arrays(delta)`, which takes any version.

    Raises:
        DeltaError: its subclass for the first thing found wrong with the frame.
    """
    if bundle is None:
        raise DeltaOption("decoding needs a bundle or a schema: a frame carries no names and shapes")
    schema = bundle if isinstance(bundle, Schema) else bundle.schema()
    versions = None if isinstance(bundle, Schema) else (bundle.manifest.model_version,)
    update = decode(payload, Limits(schema.id, schema.size, versions=versions))
    with np.errstate(over="ignore"):
        return schema.unflatten(update.dense())


def _belongs(delta: Arrays, bundle: HasSchema | None) -> tuple[Schema, int]:
    """The schema and base version of an update."""
    if bundle is None:
        return Schema.of_arrays(delta), 0
    return bundle.schema(), bundle.manifest.model_version


def _coder(schema: Schema, version: int, options: Mapping[str, Any]) -> Callable[[Vector], Encoded]:
    tensors = [(start, stop) for _, start, stop in schema.ranges()]
    return partial(encode, schema_id=schema.id, base_version=version, tensors=tensors, **options)
