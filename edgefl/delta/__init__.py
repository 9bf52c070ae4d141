# SPDX-License-Identifier: Apache-2.0
"""The payload codec: updates of kilobytes instead of megabytes. The format is docs/codec.md."""

from __future__ import annotations

from edgefl.delta.anatomy import FrameAnatomy, inspect_frame, tensor_norms
from edgefl.delta.arrays import decode_delta, encode_delta, encode_with_feedback
from edgefl.delta.budget import warm_up
from edgefl.delta.codec import Encoded, SparseDelta, decode, encode
from edgefl.delta.feedback import Residual, apply_feedback, carry
from edgefl.delta.frame import Limits
from edgefl.delta.modes import MODES
from edgefl.options import STATELESS_MODES

__all__ = [
    "MODES",
    "STATELESS_MODES",
    "Encoded",
    "FrameAnatomy",
    "Limits",
    "Residual",
    "SparseDelta",
    "apply_feedback",
    "carry",
    "decode",
    "decode_delta",
    "encode",
    "encode_delta",
    "encode_with_feedback",
    "inspect_frame",
    "tensor_norms",
    "warm_up",
]
