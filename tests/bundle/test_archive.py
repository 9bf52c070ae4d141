# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.bundle.archive import MAX_ENTRIES, check_path, pack, unpack
from edgefl.errors import BundlePath, BundleTooLarge

pytestmark = pytest.mark.device

NAMES = st.from_regex(r"[a-z0-9_]{1,8}(/[a-z0-9_]{1,8}){0,2}(\.[a-z]{1,4})?", fullmatch=True)


def test_exact_bytes() -> None:
    assert pack({"a": b"hi"}) == bytes.fromhex(
        "504b0304 1400 0000 0000 0000 2100 ac2a93d8 02000000 02000000 0100 0000 61 6869"
        "504b0102 1403 1400 0000 0000 0000 2100 ac2a93d8 02000000 02000000 0100 0000 0000 0000 0000"
        "0000a481 00000000 61"
        "504b0506 0000 0000 0100 0100 2f000000 21000000 0000"
    )


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=5))
def test_round_trip(files: dict[str, bytes]) -> None:
    assert {name: bytes(data) for name, data in unpack(pack(files)).items()} == files


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=5))
def test_ordinary_zip_tools_read_it(files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(io.BytesIO(pack(files))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(files)
        assert {name: archive.read(name) for name in archive.namelist()} == files


def test_what_ordinary_zip_tools_store_is_read() -> None:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("b/c.bin", b"123")
        archive.writestr("a", b"")

    assert {n: bytes(d) for n, d in unpack(memory.getvalue()).items()} == {"b/c.bin": b"123", "a": b""}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "../a",
        "a/../b",
        "a/..",
        ".",
        "./a",
        "a//b",
        "a/",
        "a\\b",
        "C:a",
        "a b",
        ".hidden",
        "ä",
        "a\x00b",
        "-a",
    ],
)
def test_names_that_could_leave_the_bundle_are_refused(name: str) -> None:
    with pytest.raises(BundlePath):
        check_path(name)
    with pytest.raises(BundlePath):
        pack({name: b""})


def test_too_many_entries_are_not_written() -> None:
    with pytest.raises(BundleTooLarge):
        pack({f"f{i}": b"" for i in range(MAX_ENTRIES + 1)})
