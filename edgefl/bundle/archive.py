# SPDX-License-Identifier: Apache-2.0
"""The bundle's container: the part of ZIP that stores files as they are.

Any unzip tool opens what this writes. The reader takes stored entries only, so a declared size is a real
size, and checks every offset and length against the file before touching it (PKWARE APPNOTE 6.3, sections
4.3 and 4.4).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgefl.errors import BundleEntry, BundleError, BundleHash, BundlePath, BundleTooLarge, BundleTruncated

MAX_BUNDLE_BYTES = (1 << 31) - 1
MAX_ENTRIES = 256

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_SIGN, _CENTRAL_SIGN, _END_SIGN = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"

_ZIP_VERSION = 20
_UNIX = 3 << 8
_MODE = 0o100644 << 16
_DATE, _TIME = (1 << 5) | 1, 0  # 1980-01-01 00:00, the first moment ZIP can name
_UTF8 = 1 << 11

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def check_path(path: str) -> str:
    """The path itself; raises BundlePath unless it is relative, plain ASCII and without `..` segments."""
    if not all(_SEGMENT.fullmatch(segment) for segment in path.split("/")):
        raise BundlePath(
            f"entry name {path!r} is refused: allowed are relative paths of letters, digits, _ . -"
        )
    return path


def pack(files: Mapping[str, bytes]) -> bytes:
    """A ZIP of stored entries, sorted by name, all dated 1980-01-01: equal files give equal bytes.

    Raises:
        BundlePath: a name `check_path` refuses.
        BundleTooLarge: over `MAX_ENTRIES` or `MAX_BUNDLE_BYTES`.
    """
    _check_count(len(files))
    _check_size(sum(map(len, files.values())))
    chunks: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for name, data in sorted(files.items()):
        path, crc = check_path(name).encode(), zlib.crc32(data)
        common = (_ZIP_VERSION, 0, 0, _TIME, _DATE, crc, len(data), len(data), len(path), 0)
        local = _LOCAL.pack(_LOCAL_SIGN, *common) + path
        central = _CENTRAL.pack(_CENTRAL_SIGN, _UNIX | _ZIP_VERSION, *common, 0, 0, 0, _MODE, offset)
        chunks += [local, data]
        directory.append(central + path)
        offset += len(local) + len(data)
    table = b"".join(directory)
    end = _END.pack(_END_SIGN, 0, 0, len(directory), len(directory), len(table), offset, 0)
    return b"".join([*chunks, table, end])


def unpack(data: bytes) -> dict[str, memoryview]:
    """Name -> content (views into `data`) of every entry.

    Raises:
        BundleTruncated: the file ends early, or is no bundle at all.
        BundleTooLarge: over `MAX_ENTRIES` or `MAX_BUNDLE_BYTES`.
        BundlePath: an entry name that could leave the bundle.
        BundleEntry: an entry that is compressed, encrypted, doubled, or disagrees with its own header.
        BundleHash: an entry's bytes differ from its CRC-32.
    """
    _check_size(len(data))
    view = memoryview(data)
    files: dict[str, memoryview] = {}
    total = 0
    for name, size, crc, offset in _directory(view):
        if name in files:
            raise BundleEntry(f"entry {name!r} appears more than once")
        total += size
        if total > len(data):
            raise BundleEntry(
                f"entries up to {name!r} declare {total} bytes in a file of {len(data)}: they overlap"
            )
        files[name] = _content(view, name, size, offset)
        if zlib.crc32(files[name]) != crc:
            raise BundleHash(f"entry {name!r} differs from its CRC-32: the file is damaged")
    return files


def unpack_package(data: bytes, folder: Path) -> Path:
    """Write a Core ML package, which travels as an archive, into a folder and return its path.

    Raises:
        BundleError: the bytes are no package.
    """
    files = unpack(data)
    roots = {name.partition("/")[0] for name in files}
    if len(roots) != 1 or not next(iter(roots)).endswith(".mlpackage"):
        raise BundleError(f"the archive holds {sorted(roots)[:3]}, not one .mlpackage folder")
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / roots.pop()


def _directory(view: memoryview) -> Iterator[tuple[str, int, int, int]]:
    """(name, size, crc, offset of the local header) of each entry."""
    end = len(view) - _END.size
    if end < 0 or view[end : end + 4] != _END_SIGN:
        raise BundleTruncated(
            f"{len(view)} bytes do not end as a bundle does: cut short, or no bundle at all"
        )
    _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(view, end)
    if (disk, first_disk, comment) != (0, 0, 0) or here != count:
        raise BundleEntry("archives in several parts, or with a comment, are no bundles")
    _check_count(count)
    if start + size != end:
        raise BundleTruncated(f"directory of {size} bytes at byte {start} does not end at byte {end}")
    at = start
    for _ in range(count):
        at, row = _directory_row(view, at, end)
        yield row


def _directory_row(view: memoryview, at: int, end: int) -> tuple[int, tuple[str, int, int, int]]:
    if at + _CENTRAL.size > end:
        raise BundleTruncated(f"directory ends at byte {end}, inside the entry at byte {at}")
    sign, _, _, flags, method, _, _, crc, packed, size, name_len, extra, comment, _, _, _, offset = (
        _CENTRAL.unpack_from(view, at)
    )
    stop = at + _CENTRAL.size + name_len + extra + comment
    if sign != _CENTRAL_SIGN or stop > end:
        raise BundleTruncated(f"no directory entry at byte {at}")
    name = _name(view[at + _CENTRAL.size : at + _CENTRAL.size + name_len])
    if method != 0 or packed != size or flags & ~_UTF8:
        raise BundleEntry(
            f"entry {name!r} is compressed, encrypted or streamed; bundles store entries as they are"
        )
    return stop, (name, size, crc, offset)


def _content(view: memoryview, name: str, size: int, offset: int) -> memoryview:
    if offset + _LOCAL.size > len(view):
        raise BundleTruncated(f"entry {name!r} starts at byte {offset} of {len(view)}")
    sign, _, _, method, _, _, _, _, _, name_len, extra = _LOCAL.unpack_from(view, offset)
    start = offset + _LOCAL.size + name_len + extra
    if start + size > len(view):
        raise BundleTruncated(f"entry {name!r} ends at byte {start + size} of {len(view)}")
    own = bytes(view[offset + _LOCAL.size : offset + _LOCAL.size + name_len])
    if sign != _LOCAL_SIGN or method != 0 or own != name.encode():
        raise BundleEntry(f"entry {name!r} disagrees with its own header at byte {offset}")
    return view[start : start + size]


def _name(raw: memoryview) -> str:
    try:
        return check_path(bytes(raw).decode("utf-8"))
    except UnicodeDecodeError as exc:
        raise BundlePath(f"entry name {bytes(raw)!r} is not UTF-8") from exc


def _check_count(count: int) -> None:
    if count > MAX_ENTRIES:
        raise BundleTooLarge(f"bundle has {count} entries, allowed {MAX_ENTRIES}")


def _check_size(size: int) -> None:
    if size > MAX_BUNDLE_BYTES:
        raise BundleTooLarge(f"bundle has {size} bytes, allowed {MAX_BUNDLE_BYTES}")
