# SPDX-License-Identifier: Apache-2.0
"""Features of examples kept on disk, so that the frozen part runs once per example and not once per round.

A folder per features graph holds segments: files in the safetensors layout with the digests of some examples,
`keys` `[n, 16]`, and their features, `[n, ...]`. A segment's name is its bytes' digest, so damage shows.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.errors import OptionError, TensorFileError
from edgefl.files import write_atomically
from edgefl.tensorfile import read_tensors, write_tensors

log = logging.getLogger("edgefl.features")
Array = npt.NDArray[Any]
Arrays = dict[str, Array]

LIMIT_BYTES = 256 << 20
SEGMENT_BYTES = 4 << 20
_KEYS, _DIGEST, _SUFFIX = "keys", 16, ".features"


class FeatureCache:
    """Features on disk up to a limit; where it is reached, what was longest unused goes."""

    def __init__(self, folder: str | os.PathLike[str], limit_bytes: int = LIMIT_BYTES) -> None:
        """
        Args:
            folder: made when first needed; nothing else may live in it.
            limit_bytes: most that is kept, over all features graphs; 0 keeps nothing.
        """
        if limit_bytes < 0:
            raise OptionError(f"limit_bytes is {limit_bytes}, allowed 0 or more")
        self._folder, self._limit = Path(folder), limit_bytes

    def through(
        self, subject: str, inputs: Arrays, compute: Callable[[Arrays], Arrays]
    ) -> tuple[Arrays, int]:
        """Features of examples, from disk where they are there, computed and kept where not.

        Args:
            subject: hexadecimal digest of what makes the features.
            inputs: examples by input name, `[examples, ...]`.
            compute: features of examples, by output name; only called where some are missing.

        Returns:
            Features by output name, and of how many examples they were on disk.
        """
        keys = example_digests(inputs)
        found, used = self._find(subject, set(keys))
        missing = [i for i, key in enumerate(keys) if key not in found]
        if not missing:
            return _gather(keys, found), len(keys)
        made = compute({name: value[missing] for name, value in inputs.items()})
        for row, i in enumerate(missing):
            found[keys[i]] = {name: value[row] for name, value in made.items()}
        self._keep(subject, [keys[i] for i in missing], found, used)
        return _gather(keys, found), len(keys) - len(missing)

    def forget(self, keys: Collection[bytes]) -> None:
        """Delete the features of some examples, by `example_digests`, whatever made them.

        Raises:
            OSError: they cannot be deleted.
        """
        for file in self._folder.glob(f"*/*{_SUFFIX}"):
            found = dict(_read(file, file.stat().st_size))
            left = [key for key in found if key not in keys]
            if found and len(left) == len(found):
                continue
            if left:
                data = _segment(left, found)
                write_atomically(file.parent / (_digest(data) + _SUFFIX), data)
            file.unlink(missing_ok=True)  # one that cannot be read may hold them too

    # -- reading

    def _find(self, subject: str, wanted: set[bytes]) -> tuple[dict[bytes, Arrays], set[Path]]:
        """Features on disk of the examples wanted, and the segments they were in, which count as used now."""
        found: dict[bytes, Arrays] = {}
        used: set[Path] = set()
        for file in _segments(self._folder / subject):
            for key, features in _read(file, self._limit):
                if key in wanted:
                    found[key] = features
                    used.add(file)
            if file in used:
                _touch(file)
            if len(found) == len(wanted):
                break
        return found, used

    # -- writing

    def _keep(self, subject: str, keys: list[bytes], features: dict[bytes, Arrays], used: set[Path]) -> None:
        home, unique = self._folder / subject, list(dict.fromkeys(keys))
        each = sum(value.nbytes for value in features[unique[0]].values()) + _DIGEST
        # Small beside the limit, so that little is lost with one and the room is used to the end.
        count = max(1, min(SEGMENT_BYTES, self._limit // 8) // each)
        try:
            home.mkdir(parents=True, exist_ok=True)
            for start in range(0, len(unique), count):
                part = unique[start : start + count]
                data = _segment(part, features)
                if not self._make_room(len(data), used):
                    log.info(
                        "features of %d examples are not kept: %s is full", len(unique) - start, self._folder
                    )
                    return
                file = home / (_digest(data) + _SUFFIX)
                write_atomically(file, data)
                used.add(file)
        except OSError as exc:
            log.warning("features are not kept in %s: %s", home, exc)

    def _make_room(self, needed: int, used: set[Path]) -> bool:
        """Delete what was longest unused, but nothing this call used: it would only come back next time."""
        files = sorted((*_times(self._folder),), key=lambda row: row[1])
        room = self._limit - sum(size for _, _, size in files)
        for file, _, size in files:
            if room >= needed:
                break
            if file not in used:
                file.unlink(missing_ok=True)
                room += size
        return room >= needed


@dataclass
class Room:
    """Memory that caches share, in bytes left."""

    bytes: int


class MemoryFeatures(FeatureCache):
    """The same in memory, for one of many devices in one process; once the room is full, no more is kept."""

    def __init__(self, room: Room) -> None:
        self._room, self._kept = room, dict[str, dict[bytes, Arrays]]()

    def _find(self, subject: str, wanted: set[bytes]) -> tuple[dict[bytes, Arrays], set[Path]]:
        kept = self._kept.get(subject, {})
        return {key: kept[key] for key in wanted & kept.keys()}, set()

    def _keep(self, subject: str, keys: list[bytes], features: dict[bytes, Arrays], used: set[Path]) -> None:
        for key in dict.fromkeys(keys):
            size = sum(value.nbytes for value in features[key].values()) + _DIGEST
            if size > self._room.bytes:
                return
            self._room.bytes -= size
            copied = {name: value.copy() for name, value in features[key].items()}
            self._kept.setdefault(subject, {})[key] = copied


def example_digests(inputs: Mapping[str, Array], key: bytes = b"") -> list[bytes]:
    """16 bytes per example that depend on every value, shape and dtype of its inputs and on their names.

    Args:
        key: secret that makes them tell nothing to whoever lacks it.
    """
    names = sorted(inputs)
    head = repr([(n, inputs[n].shape[1:], inputs[n].dtype.str) for n in names]).encode()
    rows = [np.ascontiguousarray(inputs[n]) for n in names]
    digests = []
    for i in range(len(rows[0])):
        digest = hashlib.blake2b(head, digest_size=_DIGEST, key=key)
        for array in rows:
            digest.update(array[i].data if array.ndim > 1 else array[i].tobytes())
        digests.append(digest.digest())
    return digests


def _gather(keys: list[bytes], features: Mapping[bytes, Arrays]) -> Arrays:
    return {name: np.stack([features[key][name] for key in keys]) for name in features[keys[0]]}


def _segment(keys: list[bytes], features: Mapping[bytes, Arrays]) -> bytes:
    return write_tensors(
        {_KEYS: np.frombuffer(b"".join(keys), np.uint8).reshape(-1, _DIGEST)}
        | {f"f/{name}": value for name, value in _gather(keys, features).items()}
    )


def _segments(home: Path) -> list[Path]:
    return sorted(home.glob(f"*{_SUFFIX}")) if home.is_dir() else []


def _read(file: Path, limit: int) -> Iterator[tuple[bytes, Arrays]]:
    """Examples' digests and features; a damaged segment is deleted, so its features are made again."""
    try:
        if file.stat().st_size > limit:
            return
        data = file.read_bytes()
        if _digest(data) + _SUFFIX != file.name:
            raise TensorFileError("its bytes are not those its name promises")
        tensors = read_tensors(data)
        keys = tensors.pop(_KEYS)
    except (TensorFileError, KeyError) as exc:
        log.warning("%s is dropped, its features are made again: %s", file, exc)
        file.unlink(missing_ok=True)
        return
    except OSError as exc:
        log.info("%s cannot be read: %s", file, exc)
        return
    for i, key in enumerate(keys):
        yield key.tobytes(), {name.removeprefix("f/"): value[i] for name, value in tensors.items()}


def _touch(file: Path) -> None:
    try:
        os.utime(file)
    except OSError as exc:
        log.debug("%s is not marked as used: %s", file, exc)


def _times(folder: Path) -> Iterator[tuple[Path, int, int]]:
    """Every segment, when it was last used and its size."""
    for file in folder.glob(f"*/*{_SUFFIX}"):
        try:
            found = file.stat()
        except FileNotFoundError:
            continue
        yield file, found.st_mtime_ns, found.st_size


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=_DIGEST).hexdigest()
