# SPDX-License-Identifier: Apache-2.0
"""Update rules as pure functions `(parameters, gradients, state) -> (parameters, state)`.

One rule underlies them all: the direction is `g + mu * p + v`. With `mu = v = 0` it is plain SGD, with
`v = -mu * p_global` FedProx (Li et al., MLSys 2020), with `mu = alpha` and `v = -alpha * p_global - h_i`
FedDyn (Acar et al., ICLR 2021), with `v = c - c_i` SCAFFOLD (Karimireddy et al., ICML 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.errors import OptionError

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
State = dict[str, dict[str, Array]]
"""Arrays of the parameters' shapes by purpose, such as `momentum`; empty before the first step."""


@dataclass(frozen=True)
class Optimizer:
    """A pair of functions: `init(parameters) -> state` and `apply(parameters, gradients, state)`."""

    init: Callable[[Arrays], State]
    apply: Callable[[Arrays, Arrays, State], tuple[dict[str, Array], State]]


def sgd(lr: float, momentum: float = 0.0, mu: float = 0.0, v: Arrays | None = None) -> Optimizer:
    """`m = momentum * m + (g + mu * p + v)`, `p -= lr * m`.

    Args:
        lr: step length, over 0.
        momentum: in `[0, 1)`.
        mu: pull towards zero, or with `v = -mu * p_global` towards the global parameters.
        v: a constant direction for some or all parameters.
    """
    _check(lr > 0, "lr", lr, "over 0")
    _check(0 <= momentum < 1, "momentum", momentum, "in [0, 1)")
    _check(mu >= 0, "mu", mu, "0 or more")

    def init(parameters: Arrays) -> State:
        return {"momentum": _zeros(parameters)} if momentum else {}

    def apply(parameters: Arrays, gradients: Arrays, state: State) -> tuple[dict[str, Array], State]:
        direction = drift(parameters, gradients, mu, v)
        if momentum:
            direction = {n: _axpy(momentum, state["momentum"][n], d) for n, d in direction.items()}
        updated = {n: _axpy(-lr, direction[n], p) for n, p in parameters.items()}
        return updated, {"momentum": direction} if momentum else {}

    return Optimizer(init, apply)


def adam(
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    mu: float = 0.0,
    v: Arrays | None = None,
) -> Optimizer:
    """Adam (Kingma and Ba, ICLR 2015, algorithm 1) on the direction `g + mu * p + v`."""
    _check(lr > 0, "lr", lr, "over 0")
    _check(0 <= beta1 < 1 and 0 <= beta2 < 1, "betas", (beta1, beta2), "in [0, 1)")
    _check(mu >= 0, "mu", mu, "0 or more")

    def init(parameters: Arrays) -> State:
        return {"m": _zeros(parameters), "s": _zeros(parameters), "t": {"steps": np.zeros((), np.int64)}}

    def apply(parameters: Arrays, gradients: Arrays, state: State) -> tuple[dict[str, Array], State]:
        steps = int(state["t"]["steps"]) + 1
        direction = drift(parameters, gradients, mu, v)
        m = {n: _mix(beta1, state["m"][n], d) for n, d in direction.items()}
        s = {n: _mix(beta2, state["s"][n], np.square(d)) for n, d in direction.items()}
        # The two bias corrections folded into the step length and epsilon.
        root = float(np.sqrt(1 - beta2**steps))
        length = lr * root / (1 - beta1**steps)
        updated = {
            n: _axpy(-length, m[n] / (np.sqrt(s[n]) + epsilon * root), p) for n, p in parameters.items()
        }
        return updated, {"m": m, "s": s, "t": {"steps": np.asarray(steps, np.int64)}}

    return Optimizer(init, apply)


def drift(parameters: Arrays, gradients: Arrays, mu: float, v: Arrays | None) -> dict[str, Array]:
    """`g + mu * p + v` by name; the gradients themselves where there is nothing to add."""
    direction = {n: gradients[n] for n in parameters}
    if mu:
        direction = {n: _axpy(mu, parameters[n], g) for n, g in direction.items()}
    if v:
        direction = {n: g + v[n] if n in v else g for n, g in direction.items()}
    return direction


def proximal(mu: float, base: Arrays, correction: Arrays | None = None) -> dict[str, Array]:
    """The `v` that turns `mu` into FedProx's pull towards `base`, plus a correction such as SCAFFOLD's."""
    v = {n: np.multiply(p, np.float32(-mu)) for n, p in base.items()} if mu else {}
    for name, value in (correction or {}).items():
        v[name] = v[name] + value if name in v else value
    return v


def clip_by_norm(gradients: Arrays, limit: float) -> dict[str, Array]:
    """Gradients scaled down together so that their joint Euclidean norm is at most `limit`."""
    norm = float(np.sqrt(sum(float(np.vdot(g, g)) for g in gradients.values())))
    if norm <= limit:
        return dict(gradients)
    scale = np.float32(limit / norm)
    return {n: np.multiply(g, scale) for n, g in gradients.items()}


def _axpy(a: float, x: Array, y: Array) -> Array:
    """`a * x + y` in the dtype of `y`, with one new array."""
    out = np.empty_like(y)
    np.multiply(x, np.asarray(a, y.dtype), out=out)
    np.add(out, y, out=out)
    return out


def _mix(beta: float, old: Array, new: Array) -> Array:
    return _axpy(beta, old, np.multiply(new, np.asarray(1 - beta, old.dtype)))


def _zeros(parameters: Arrays) -> dict[str, Array]:
    return {n: np.zeros_like(p) for n, p in parameters.items()}


def _check(good: bool, name: str, value: object, allowed: str) -> None:
    if not good:
        raise OptionError(f"{name} is {value}, allowed {allowed}")
