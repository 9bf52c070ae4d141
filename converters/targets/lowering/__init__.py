# SPDX-License-Identifier: Apache-2.0
"""A graph as TensorFlow operations with TFLite builtin counterparts. Importing this imports TensorFlow."""

from edgefl.converters.targets.lowering import (
    convolution,
    elementwise,
    indexing,
    linear,
    pooling,
    reduction,
    resize,
    shape,
)
from edgefl.converters.targets.lowering.trace import Drawn, draw, trace

__all__ = ["Drawn", "draw", "trace"]

# Importing the families is what registers their lowerings.
_FAMILIES = (convolution, elementwise, indexing, linear, pooling, reduction, resize, shape)
