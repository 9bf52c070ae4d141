# SPDX-License-Identifier: Apache-2.0
"""The server. Importing it costs NumPy only; the modules `app` and `serve` need the extra `server`."""

from __future__ import annotations

from edgefl.server_stub.aggregate import aggregate

__all__ = ["aggregate"]
