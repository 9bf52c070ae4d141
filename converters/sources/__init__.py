# SPDX-License-Identifier: Apache-2.0
"""Models of other frameworks as graphs with their parameters as inputs."""

from edgefl.converters.sources.forward import Forward
from edgefl.converters.sources.load import load_forward

__all__ = ["Forward", "load_forward"]
