# SPDX-License-Identifier: Apache-2.0
"""A whole federation in one process: the devices' own training and codec, the server's own rounds.

Only time and distance are missing: virtual devices share one engine, and requests go straight into the
server's coordinator. What they would have been over HTTP is counted.
"""

from edgefl.simulation.partition import divide
from edgefl.simulation.plan import DeviceRow, Plan, RoundRow, Simulated
from edgefl.simulation.run import simulate

__all__ = ["DeviceRow", "Plan", "RoundRow", "Simulated", "divide", "simulate"]
