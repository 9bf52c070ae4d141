# SPDX-License-Identifier: Apache-2.0
"""Delegates and execution providers: which there are, which to trust, and what ran where."""

from edgefl.runtime.delegates.choice import Choice, Placement, Verdict
from edgefl.runtime.delegates.registry import REGISTRY, Known

__all__ = ["REGISTRY", "Choice", "Known", "Placement", "Verdict"]
