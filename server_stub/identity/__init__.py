# SPDX-License-Identifier: Apache-2.0
"""Who may ask what of the server: enrolled devices, its administrators, and how often."""

from edgefl.server_stub.identity.gate import Caller, Gate
from edgefl.server_stub.identity.register import Device, Register, Token

__all__ = ["Caller", "Device", "Gate", "Register", "Token"]
