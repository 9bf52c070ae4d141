# SPDX-License-Identifier: Apache-2.0
"""The aggregator that options ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from edgefl.errors import OptionError
from edgefl.options import CHOOSING_MODES, NORM_BOUND, SHARED_MODES, FederationOptions
from edgefl.privacy.entropy import SYSTEM, Entropy
from edgefl.server_stub.aggregators.base import Aggregator
from edgefl.server_stub.aggregators.bounds import Bound
from edgefl.server_stub.aggregators.chain import Chain, Rule
from edgefl.server_stub.aggregators.coordinates import Median, TrimmedMean
from edgefl.server_stub.aggregators.distances import GeometricMedian, Krum
from edgefl.server_stub.aggregators.feddyn import FedDyn
from edgefl.server_stub.aggregators.mean import Mean, normalized
from edgefl.server_stub.aggregators.optimizers import ServerOptimizer, adaptive, averaging
from edgefl.server_stub.aggregators.private import PrivateMean
from edgefl.server_stub.aggregators.scaffold import Scaffold
from edgefl.wire import Training

RULES: Mapping[str, Callable[[float], Rule]] = {
    "mean": lambda _: Mean(),
    "fednova": lambda _: Mean(),
    "median": lambda _: Median(),
    "trimmed-mean": TrimmedMean,
    "krum": Krum,
    "multi-krum": partial(Krum, several=True),
    "geometric-median": lambda _: GeometricMedian(),
}
"""A rule by its name, from the part of the updates that may lie."""

STREAMING = ("mean", "fednova")
"""Rules that add updates up; the others compare them."""


def aggregator(
    options: FederationOptions, training: Training, expected: float = 1.0, entropy: Entropy = SYSTEM
) -> Aggregator:
    """The aggregator of a federation.

    Args:
        expected: devices per round, where rounds are private.
        entropy: where their noise comes from.

    Raises:
        OptionError: its rule does not go with how devices train or code their updates.
    """
    check(options, training)
    if options.privacy != "none":
        return PrivateMean(
            # Each round has its own.
            noise=1.0,
            expected=expected,
            clip=options.privacy_clip,
            quantile=options.privacy_quantile or None,
            optimizer=_optimizer(options),
            entropy=entropy,
        )
    bound = Bound(options.norm_bound) if options.norm_bound else None
    if training.fit.algorithm == "feddyn":
        return FedDyn(training.fit.alpha, options.population, bound)
    if training.fit.algorithm == "scaffold":
        assert training.fit.lr is not None  # it is refused without
        return Scaffold(training.fit.lr, options.server_lr, options.population, bound)
    novel = options.aggregator == "fednova"
    return Chain(
        rule=RULES[options.aggregator](options.adversaries),
        optimizer=_optimizer(options),
        bound=bound,
        prepare=partial(normalized, momentum=training.fit.momentum) if novel else None,
    )


def check(options: FederationOptions, training: Training) -> None:
    """Refuse a rule that would be wrong with what devices are asked for; OptionError."""
    if options.privacy != "none":
        _check_private(options, training)
    rule, fit, mode = options.aggregator, training.fit, training.coding.mode
    if rule not in STREAMING and mode not in SHARED_MODES:
        raise OptionError(
            f"{rule} compares updates parameter by parameter, and in mode {mode} every device sends "
            f"a choice of its own, so that zeros would win; {', '.join(SHARED_MODES)} send the same "
            "parameters from all",
            {"aggregator": rule, "mode": mode},
        )
    _check_algorithm(options, training)
    plain = {"optimizer": "sgd", "mu": 0.0, "weight_decay": 0.0, "schedule": "constant"}
    other = {name: getattr(fit, name) for name, value in plain.items() if getattr(fit, name) != value}
    if rule == "fednova" and other:
        raise OptionError(
            "fednova knows how far the steps of SGD reach, with or without momentum",
            {"aggregator": rule, **other},
        )


def _check_algorithm(options: FederationOptions, training: Training) -> None:
    algorithm, mode = training.fit.algorithm, training.coding.mode
    if algorithm == "fedavg":
        if options.population:
            raise OptionError("only feddyn and scaffold have to know it", {"population": options.population})
        return
    step = {"aggregator": "mean", "server_optimizer": "sgd", "server_momentum": 0.0, "staleness": 0}
    if algorithm == "feddyn":
        step["server_lr"] = 1.0
    beside = {name: getattr(options, name) for name, v in step.items() if getattr(options, name) != v}
    if beside:
        raise OptionError(
            f"{algorithm} makes the server's step itself, of the mean of one round's updates",
            {"algorithm": algorithm, **beside},
        )
    if algorithm == "scaffold" and mode in CHOOSING_MODES:
        raise OptionError(
            f"scaffold takes mean gradients out of updates, and in mode {mode} most of them would be zero; "
            f"{', '.join(m for m in SHARED_MODES if m not in CHOOSING_MODES)} send every parameter",
            {"algorithm": algorithm, "mode": mode},
        )


def _check_private(options: FederationOptions, training: Training) -> None:
    """Refuse what would break the bound on what one device can do."""
    allowed = {
        "aggregator": ("mean",),
        "staleness": (0,),
        "norm_bound": (0.0, NORM_BOUND),
        "evaluate_every": (0,),
    }
    reasons = {
        "aggregator": "noise is known for the mean alone, in which all updates count alike",
        "staleness": "a device must have been drawn for the round it counts in",
        "norm_bound": "what the others of a round sent must not decide what an update counts for; it is "
        "privacy_clip that bounds them",
        "evaluate_every": "what devices measure is told without noise",
    }
    for name, values in allowed.items():
        if (value := getattr(options, name)) not in values:
            raise OptionError(reasons[name], {"privacy": options.privacy, name: value})
    if (algorithm := training.fit.algorithm) != "fedavg":
        raise OptionError(
            f"{algorithm} remembers on the server what devices sent in other rounds",
            {"privacy": options.privacy, "algorithm": algorithm},
        )


def _optimizer(options: FederationOptions) -> ServerOptimizer:
    lr, momentum = options.server_lr, options.server_momentum
    if options.server_optimizer == "sgd":
        return averaging(lr, momentum)
    return adaptive(options.server_optimizer, lr, momentum, options.server_beta2, options.server_tau)
