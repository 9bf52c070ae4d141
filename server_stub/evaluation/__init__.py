# SPDX-License-Identifier: Apache-2.0
"""Versions measured by devices on examples they hold out: who is asked, and what they found."""

from edgefl.server_stub.evaluation.desk import Desk
from edgefl.server_stub.evaluation.records import Records
from edgefl.server_stub.evaluation.state import Evaluation, Seat

__all__ = ["Desk", "Evaluation", "Records", "Seat"]
