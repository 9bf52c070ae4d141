# SPDX-License-Identifier: Apache-2.0
"""NumPy kernels: one function per ONNX operator.

They are the reference every other engine is compared with, the fallback where no engine is installed,
and what the converter uses to infer types and to fold constants.
"""

from edgefl.graph.kernels import (
    activation,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    quantization,
    reduction,
    resize,
    shape,
)
from edgefl.graph.kernels.registry import BATCHWISE, ELEMENTWISE, FULL_KERNELS, KERNELS, Kernel, kernel

__all__ = [
    "BATCHWISE",
    "ELEMENTWISE",
    "FULL_KERNELS",
    "KERNELS",
    "Kernel",
    "activation",
    "convolution",
    "elementwise",
    "indexing",
    "kernel",
    "linear",
    "normalization",
    "pooling",
    "quantization",
    "reduction",
    "resize",
    "shape",
]
