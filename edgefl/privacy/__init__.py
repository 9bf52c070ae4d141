# SPDX-License-Identifier: Apache-2.0
"""Differential privacy: how much noise, what it promises, and where the noise comes from."""

from __future__ import annotations

from edgefl.privacy.accounting import epsilon, noise_multiplier

__all__ = ["epsilon", "noise_multiplier"]
