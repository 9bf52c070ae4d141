# SPDX-License-Identifier: Apache-2.0
"""The update rules checked against torch.optim."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgefl.runtime.optimizer import Optimizer, adam, sgd


def ours(optimizer: Optimizer, start: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    parameters, state = {"p": start}, optimizer.init({"p": start})
    for gradient in gradients:
        parameters, state = optimizer.apply(parameters, {"p": gradient}, state)
    return parameters["p"]


def torchs(
    make: Callable[[Any, list[Any]], Any], start: np.ndarray, gradients: list[np.ndarray]
) -> np.ndarray:
    import torch

    p = torch.nn.Parameter(torch.tensor(start))
    optimizer = make(torch, [p])
    for gradient in gradients:
        p.grad = torch.tensor(gradient)
        optimizer.step()
    return p.detach().numpy()


@pytest.mark.parametrize(
    ("optimizer", "make"),
    [
        (sgd(0.1), lambda t, p: t.optim.SGD(p, lr=0.1)),
        (sgd(0.1, 0.9), lambda t, p: t.optim.SGD(p, lr=0.1, momentum=0.9)),
        (sgd(0.1, 0.9, 0.01), lambda t, p: t.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01)),
        (adam(0.01), lambda t, p: t.optim.Adam(p, lr=0.01)),
        (adam(0.01, 0.8, 0.9, 1e-3), lambda t, p: t.optim.Adam(p, lr=0.01, betas=(0.8, 0.9), eps=1e-3)),
        (adam(0.01, mu=0.1), lambda t, p: t.optim.Adam(p, lr=0.01, weight_decay=0.1)),
    ],
    ids=["sgd", "momentum", "decay", "adam", "adam-settings", "adam-decay"],
)
def test_same_path_as_torch(optimizer: Optimizer, make) -> None:
    random = np.random.Generator(np.random.PCG64(0))
    start, *gradients = random.normal(size=(30, 50)).astype(np.float32)

    np.testing.assert_allclose(
        ours(optimizer, start, gradients), torchs(make, start, gradients), rtol=1e-5, atol=1e-6
    )
