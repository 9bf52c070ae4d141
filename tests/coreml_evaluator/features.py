# SPDX-License-Identifier: Apache-2.0
"""Features: what a model's description says of its inputs and outputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.coreml_evaluator.blobs import Array
from tests.coreml_evaluator.errors import Unsupported
from tests.coreml_evaluator.protos import messages

_DTYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT32": np.int32,
    "DOUBLE": np.float64,
    "INT8": np.int8,
}


def array_feature(feature: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array feature; raises Unsupported for other features and flexible shapes."""
    kind = feature.type.WhichOneof("Type")
    if kind != "multiArrayType":
        raise Unsupported(f"feature {feature.name} of {kind}")
    array = feature.type.multiArrayType
    if array.WhichOneof("ShapeFlexibility"):
        raise Unsupported(f"feature {feature.name} has a flexible shape")
    name = messages("FeatureTypes_pb2").ArrayFeatureType.ArrayDataType.Name(array.dataType)
    if name not in _DTYPES:
        raise Unsupported(f"feature {feature.name} of {name}")
    return tuple(array.shape), np.dtype(_DTYPES[name])


def to_blob(examples: Array) -> Array:
    """`[B, C]` and `[B, C, H, W]` as the classic form's `[B, C, H, W]`."""
    if examples.ndim not in (2, 4):
        raise Unsupported(
            f"examples of rank {examples.ndim - 1}: the classic mapping takes [C] and [C, H, W]"
        )
    blob = examples if examples.ndim == 4 else examples[:, :, None, None]
    return blob.astype(np.float32)
