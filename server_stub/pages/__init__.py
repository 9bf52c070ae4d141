# SPDX-License-Identifier: Apache-2.0
"""What people and their monitors see of a server. Everything here only reads."""

from __future__ import annotations

from edgefl.server_stub.pages.routes import routes as routes
