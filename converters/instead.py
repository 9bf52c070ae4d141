# SPDX-License-Identifier: Apache-2.0
"""What to write in a model instead of operators that no training step can have, whoever refuses them."""

from __future__ import annotations

import re

_MATRIX = (
    "what does not change can be computed beforehand and kept as a buffer; small systems can be solved by a "
    "fixed number of steps of products (Newton-Schulz: x = x @ (2 * eye - a @ x))"
)
_FOURIER = "multiply by constant matrices of cosines and sines, which is the same for a fixed length"
_SPECIAL = "write it as a polynomial, or another formula of basic operations"
_CHANCE = "take the random numbers as an input of the model, or use dropout layers with dropout=True"
_CHOSEN = "choose by position, or multiply by a mask"
_STEPS = "use a fixed number of steps that the exporter can unroll, and no branches that depend on data"
_SORTED = "take the wanted place of a sort or of a top-k"

_INSTEAD = {
    _MATRIX: "svd eigh eig inv inverse solve lstsq cholesky qr lu det determinant pinv matrix_exp",
    _FOURIER: "fft ifft rfft irfft fft2 ifft2 rfft2 irfft2 stft dft r2c c2c c2r complex",
    _SPECIAL: "lgamma digamma polygamma erfinv erf_inv igamma igammac bessel zeta ndtri betainc",
    _CHANCE: "rand randn randint random bernoulli multinomial normal uniform poisson",
    _CHOSEN: "nonzero non_zero unique unique2 unique_v2 masked_select where_v2",
    _STEPS: "loop if scan while cond sequence_map",
    _SORTED: "median nanmedian kthvalue mode",
    "use LeakyReLU, which it is at inference": "rrelu",
    "use the exponential of a sum of logarithms, for positive numbers": "cumprod prod",
    "mask copies of it by a triangle and take the maximum of each": "cummax cummin",
    "compare with every boundary and add up: (x[..., None] >= boundaries).sum(-1)": "searchsorted bucketize",
    "write it out: (x[:, None] - y[None]).abs().pow(p).sum(-1).pow(1 / p)": "cdist pdist",
    "multiply by a constant matrix of weights, or resize with a fixed scale": "grid scale_and_translate",
    "use a pool with a fixed window, or amax over the axes for one number": (
        "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d"
    ),
    "use an Embedding, and a sum, mean or maximum over the axis of tokens": "embedding_bag",
    "for experts in transformers set config._experts_implementation = 'batched_mm'": "grouped_mm",
    "multiply by a one-hot matrix of the segments, which adds rows up": "segment bincount histc",
    "compute with the framework's operations, not with Python's or NumPy's": "py_func",
    "turn text into numbers before the model": "string lookup regex",
}
_WORDS = {f"_{word}_": advice for advice, words in _INSTEAD.items() for word in words.split()}


def instead_of(operator: str) -> str:
    """What to do about an operator of PyTorch, TensorFlow or ONNX, such as `aten.linalg_qr` or `Qr`."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", operator.rpartition(".")[2]).lower()
    found = (advice for word, advice in _WORDS.items() if word in f"_{name}_")
    return next(found, "write the layer with other operations")
