# SPDX-License-Identifier: Apache-2.0
"""A graph as an ML Program in coremltools' MIL. Importing this imports coremltools."""

from edgefl.converters.targets.coreml.lowering import (
    convolution,
    elementwise,
    indexing,
    linear,
    pooling,
    reduction,
    resize,
    shape,
)
from edgefl.converters.targets.coreml.lowering.trace import trace

__all__ = ["trace"]

# Importing the families is what registers their lowerings.
_FAMILIES = (convolution, elementwise, indexing, linear, pooling, reduction, resize, shape)
