# SPDX-License-Identifier: Apache-2.0
"""Weights of PyTorch models: drawn so that every layer matters."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def redraw(model: Any) -> None:
    """Normal weights scaled by their fan-in, and noise on vectors.

    The models' own initial values leave whole layers without influence (zero biases, layer scales of 1e-6,
    running means of 0 and variances of 1), where a wrong gradient would not show.
    """
    model.eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.dim() > 1:
                gain = 2.0 if value.dim() == 4 else 1.0
                value.normal_(0, math.sqrt(gain / max(math.prod(value.shape[1:]), 1)))
            else:
                value.add_(0.1 * torch.randn_like(value))
        for name, value in model.named_buffers():
            if name.endswith("running_mean"):
                value.normal_(0, 0.1)
            elif name.endswith("running_var"):
                value.uniform_(0.7, 1.4)
