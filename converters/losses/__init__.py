# SPDX-License-Identifier: Apache-2.0
"""What a model is trained for: losses by name or traced from a framework, for one output or several."""

from edgefl.converters.losses import contrastive, named  # noqa: F401  imported for their registrations
from edgefl.converters.losses.objective import LossSpec, Term, make_objective
from edgefl.converters.losses.registry import LOSSES, Loss, find_loss, weighted_mean

__all__ = ["LOSSES", "Loss", "LossSpec", "Term", "find_loss", "make_objective", "weighted_mean"]
