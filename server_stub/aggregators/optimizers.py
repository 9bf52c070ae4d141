# SPDX-License-Identifier: Apache-2.0
"""Server optimizers: a round's mean as if it were the negative of a gradient.

FedAvgM is Hsu et al., 2019 (arXiv:1909.06335); FedAdagrad, FedAdam and FedYogi are algorithm 2 of Reddi et
al., 2021 (arXiv:2003.00295).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgefl.server_stub.aggregators.base import Array, State, Vector64


@dataclass(frozen=True)
class ServerOptimizer:
    """A pair of pure functions.

    Attributes:
        init: size -> the first state.
        apply: (mean update of shape `(size,)`, state) -> (step of shape `(size,)`, state).
    """

    init: Callable[[int], State]
    apply: Callable[[Vector64, State], tuple[Vector64, State]]


def averaging(lr: float = 1.0, momentum: float = 0.0) -> ServerOptimizer:
    """`v = momentum * v + mean`, `step = lr * v`. Without momentum there is no state."""

    def init(size: int) -> State:
        return {"velocity": np.zeros(size, np.float32)} if momentum else {}

    def apply(mean: Vector64, state: State) -> tuple[Vector64, State]:
        if not momentum:
            return lr * mean, {}
        # Kept in float32, the precision it is stored in, so that a restart changes nothing.
        velocity = (momentum * state["velocity"].astype(np.float64) + mean).astype(np.float32)
        return lr * velocity.astype(np.float64), {"velocity": velocity}

    return ServerOptimizer(init, apply)


Second = Callable[[Vector64, Vector64, float], Vector64]
"""(second moment, squared mean, beta 2) -> the next second moment."""


def _adagrad(v: Vector64, square: Vector64, beta2: float) -> Vector64:
    return v + square


def _adam(v: Vector64, square: Vector64, beta2: float) -> Vector64:
    return beta2 * v + (1 - beta2) * square


def _yogi(v: Vector64, square: Vector64, beta2: float) -> Vector64:
    return np.asarray(v - (1 - beta2) * square * np.sign(v - square))


SECONDS: dict[str, Second] = {"adagrad": _adagrad, "adam": _adam, "yogi": _yogi}


def adaptive(
    kind: str, lr: float = 1.0, beta1: float = 0.0, beta2: float = 0.99, tau: float = 1e-3
) -> ServerOptimizer:
    """`m = beta1 * m + (1 - beta1) * mean`, `step = lr * m / (sqrt(v) + tau)` with a second moment `v`.

    Args:
        kind: which second moment: `adagrad`, `adam` or `yogi`.
        tau: how adaptive it is, less is more; `v` begins with its square.
    """
    second = SECONDS[kind]

    def init(size: int) -> State:
        first = {"m": np.zeros(size, np.float32)} if beta1 else {}
        return {**first, f"v-{kind}": np.full(size, tau * tau, np.float32)}

    def apply(mean: Vector64, state: State) -> tuple[Vector64, State]:
        after: dict[str, Array] = {}
        direction = mean
        if beta1:
            after["m"] = (beta1 * state["m"].astype(np.float64) + (1 - beta1) * mean).astype(np.float32)
            direction = after["m"].astype(np.float64)
        name = f"v-{kind}"
        after[name] = second(state[name].astype(np.float64), mean * mean, beta2).astype(np.float32)
        return lr * direction / (np.sqrt(after[name].astype(np.float64)) + tau), after

    return ServerOptimizer(init, apply)
