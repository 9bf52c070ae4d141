# SPDX-License-Identifier: Apache-2.0
"""`edgefl device`, whatever parses its options: taking part, and telling the owner about it."""

from edgefl.runtime.command.device import run

__all__ = ["run"]
