# SPDX-License-Identifier: Apache-2.0
"""Updates as named arrays: the two functions most callers need."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgefl.delta.codec import decode, encode
from edgefl.delta.frame import Limits
from edgefl.errors import DeltaOption
from edgefl.parameters import Arrays, Schema


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
    """Code named arrays of differences.

    Args:
        delta: new minus base parameters by name, floating point.
        bundle: the model they belong to; None takes the names in sorted order and version 0.
        mode, density, options: as `edgefl.delta.encode` takes them.

    Raises:
        DataShape, DataType: the arrays do not fit the bundle's schema.
        DeltaOption, NotFinite: as `edgefl.delta.encode` raises them.
    """
    schema = Schema.of_arrays(delta) if bundle is None else bundle.schema()
    version = 0 if bundle is None else bundle.manifest.model_version
    vector = schema.flatten(delta)
    tensors = [(start, stop) for _, start, stop in schema.ranges()]
    return encode(
        vector,
        schema_id=schema.id,
        base_version=version,
        mode=mode,
        density=density,
        tensors=tensors,
        **options,
    ).frame


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
