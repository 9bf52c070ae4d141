# SPDX-License-Identifier: Apache-2.0
"""Reverse-mode differentiation of graphs: one vector-Jacobian function per operator.

Only standard operators come out, with static shapes, and broadcasting never at a rank above 4. An operator
that is not registered is refused wherever it lies between the loss and a wanted tensor.
"""

from edgefl.converters.autodiff import (
    convolution,
    elementwise,
    indexing,
    linear,
    pooling,
    reduction,
    shape,
)
from edgefl.converters.autodiff.expression import Expr
from edgefl.converters.autodiff.registry import VJPS, NoGradient, Op, vjp
from edgefl.converters.autodiff.reverse import gradients

__all__ = ["VJPS", "Expr", "NoGradient", "Op", "gradients", "vjp"]

_REGISTERED = (convolution, elementwise, indexing, linear, pooling, reduction, shape)
