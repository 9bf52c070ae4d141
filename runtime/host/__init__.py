# SPDX-License-Identifier: Apache-2.0
"""The seam to an app's own language: only text, bytes and numbers cross it.

An app in Java or Swift brings an engine, the state of the phone and its examples. All else, from eligibility
to the update on its way, is the code every other device runs.
"""

from edgefl.runtime.host.conformance import self_test
from edgefl.runtime.host.device import HostConditions, HostDevice
from edgefl.runtime.host.engine import HostBackend, HostEngine
from edgefl.runtime.host.entry import device_status, run_round, take_part
from edgefl.runtime.host.examples import HostCipher, add_example, collect_for, forget_examples

__all__ = [
    "HostBackend",
    "HostCipher",
    "HostConditions",
    "HostDevice",
    "HostEngine",
    "add_example",
    "collect_for",
    "device_status",
    "forget_examples",
    "run_round",
    "self_test",
    "take_part",
]
