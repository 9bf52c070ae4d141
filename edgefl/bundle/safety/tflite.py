# SPDX-License-Identifier: Apache-2.0
"""TFLite files: no external buffers, no buffer beyond the file, no custom operators.

Field numbers are those of TensorFlow Lite's schema version 3 (schema.fbs).
"""

from __future__ import annotations

from edgefl.bundle.safety.flatbuffer import Table, root
from edgefl.errors import BundleUnsafe

IDENTIFIER = b"TFL3"
CUSTOM = 32

_CODES, _BUFFERS, _GROUPS, _EXTERNAL = 1, 4, 8, 9
_OLD_CODE, _CUSTOM_CODE, _CODE = 0, 1, 3
_OFFSET, _SIZE = 1, 2


def check(data: memoryview, where: str) -> None:
    """Raise BundleUnsafe."""
    model = root(data, IDENTIFIER, where)
    for field in (_GROUPS, _EXTERNAL):
        if model.tables(field):
            raise BundleUnsafe(f"{where} keeps buffers in other files; a bundle's files are whole")
    for code in model.tables(_CODES):
        _check_operator(code, where)
    for i, buffer in enumerate(model.tables(_BUFFERS)):
        start, size = buffer.integer(_OFFSET, "<Q"), buffer.integer(_SIZE, "<Q")
        if start + size > len(data):
            raise BundleUnsafe(f"{where}: buffer {i} ends at byte {start + size} of {len(data)}")


def _check_operator(code: Table, where: str) -> None:
    # The older, narrower field holds the code where it fits, the newer one all codes.
    number = max(code.integer(_OLD_CODE, "<b"), code.integer(_CODE, "<i"))
    if number == CUSTOM:
        name = code.text(_CUSTOM_CODE)
        raise BundleUnsafe(f"{where} has the custom operator {name[:80]!r}; allowed are TFLite's own")
