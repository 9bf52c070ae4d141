# SPDX-License-Identifier: Apache-2.0
"""What every refusal owes to who reads it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgefl.errors import ConversionError

_LONGEST = 500  # characters; a paragraph, not a dump
_FOREIGN = ("Traceback", "mlir", "MLIR", "loc(", "\n", "\x1b", 'File "')


def refused(convert: Callable[[], object], layer: str, todo: str) -> ConversionError:
    """The refusal of a conversion: one of ours, one line, with the layer and what to do."""
    with pytest.raises(ConversionError) as caught:
        convert()
    said = str(caught.value)
    assert layer in said
    assert todo in said
    assert not [foreign for foreign in _FOREIGN if foreign in said]
    assert len(said) < _LONGEST
    return caught.value
