# SPDX-License-Identifier: Apache-2.0
"""What TensorFlow's converter complains of, said about the model's nodes."""

from __future__ import annotations

import re
from typing import Protocol

from edgefl.errors import ConversionError, UnsupportedOperator
from edgefl.graph import Node

_WITHOUT_COUNTERPART = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")
_PLACES = re.compile(r'"([\w.\-/]+)(?:@[^"]*)?"')
_TYPES = re.compile(r"tf\.\w+\(tensor<([^)]*)>\) ->")
_NOISE = re.compile(r"loc\(.*?\)\)?:?|<unknown>:\d+:|\berror:|\bnote:|see current operation.*", re.DOTALL)
_SHOWN = 160


class Places(Protocol):
    """Where TensorFlow's operators come from."""

    def node(self, operator: str) -> Node | None:
        """The node that an operator of this name was written for."""
        ...


def refusal(exc: Exception, places: Places | None = None) -> ConversionError:
    """The error to raise for one of the converter's: which node it is about, and why, in a sentence."""
    text = str(exc)
    found = (places.node(name) for name in _PLACES.findall(text)) if places else iter(())
    node = next((node for node in found if node is not None), None)
    where = f"node {node}" if node else "a node"
    missing = _WITHOUT_COUNTERPART.search(text)
    if missing:
        types = _TYPES.search(text)
        on = f" of {types[1].replace('tensor<', '').replace('>', '')}" if types else ""
        return UnsupportedOperator(
            f"{where}: TFLite has no builtin operator for TensorFlow's {missing[1]}{on}"
        )
    reason = " ".join(_NOISE.sub(" ", text).split())[:_SHOWN] or type(exc).__name__
    return ConversionError(f"{where}: TensorFlow's converter to TFLite refuses it: {reason}")
