# SPDX-License-Identifier: Apache-2.0
"""The example store: adding, limits, forgetting, and what a round trains on."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Bundle
from edgefl.data import Examples, Inputs, Labels, check_examples, check_weight
from edgefl.errors import DataError, OptionError, StoreError
from edgefl.options import StoreOptions
from edgefl.runtime.feature_cache import example_digests
from edgefl.runtime.pause import Interrupted
from edgefl.runtime.rows import Rows
from edgefl.runtime.store.cipher import Cipher
from edgefl.runtime.store.database import Database
from edgefl.runtime.store.derived import Derived
from edgefl.runtime.store.layout import Layout
from edgefl.strictjson import canonical, parse

Array = npt.NDArray[Any]

LOAD_BYTES = 256 << 20
"""Memory that one round's examples may take by default; of more, each round draws others."""
MAX_KEY = 200
_CHUNK = 500
_KEY_ABOUT, _EVERYTHING = b"edgefl store key", "1"


@dataclass(frozen=True, eq=False)
class Stored:
    """One example of a store.

    Attributes:
        tensors: inputs, labels and `weight` by name, without the examples' dimension.
        key: what the app tagged it with.
        label: its class, as text; "" where it has no single one.
        added: seconds since the epoch.
    """

    tensors: Mapping[str, Array]
    key: str
    label: str
    added: float


@dataclass(frozen=True)
class StoreInfo:
    """A store at a glance.

    Attributes:
        examples: how many there are.
        ever_added: how many there have ever been.
        bytes: of the examples.
        file_bytes: of the file.
        oldest, newest: when those were added, seconds since the epoch; None in an empty store.
        labels: examples by class.
        sealed: they are encrypted.
        tensors: names, dtypes and shapes of one example.
        limits: what is kept.
    """

    examples: int
    ever_added: int
    bytes: int
    file_bytes: int
    oldest: float | None
    newest: float | None
    labels: Mapping[str, int]
    sealed: bool
    tensors: str
    limits: Mapping[str, Any]


class ExampleStore:
    """Labelled examples in one SQLite file, for any number of threads and processes at once.

    An example that was added is there after any crash; one that was forgotten is nowhere in the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        wanted: Bundle | Layout | None = None,
        limits: StoreOptions | None = None,
        *,
        cipher: Cipher | None = None,
        memory_bytes: int = LOAD_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open a store, or make one where there is no such file.

        Args:
            wanted: the model the examples are for; None opens a store that exists.
            limits: how much is kept; kept in the file, so None goes on with what was said last.
            cipher: seals examples, keys and labels; the same for as long as the file lives.
            memory_bytes: most that the examples of one round take.
            clock: seconds since the epoch.

        Raises:
            StoreError: the file cannot be used, was made for another model, or needs a cipher, or another.
        """
        self._path, self._cipher, self._clock = Path(path), cipher, clock
        self._memory = memory_bytes
        layout = Layout.of(wanted) if isinstance(wanted, Bundle) else wanted
        self._db = Database(self._path, create=layout is not None)
        try:
            with self._db.writing():
                self.layout = self._agreed(layout)
                self._secret = self._agreed_secret()
                if limits is not None:
                    self._db.keep("limits", canonical(limits.to_json()))
        except BaseException:
            self._db.close()
            raise
        self._derived = Derived(self._db)
        self._seen = self._derived.forgettings()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> ExampleStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def limits(self) -> StoreOptions:
        """How much is kept."""
        found = self._db.fact("limits")
        return StoreOptions() if found is None else StoreOptions(**parse(found, StoreError, "limits"))

    @property
    def sealed(self) -> bool:
        """See `Source`."""
        return self._cipher is not None

    # -- adding

    def add(self, x: Inputs, y: Labels, *, weight: float = 1.0, key: str = "") -> bool:
        """Keep one example; on return it survives a crash.

        Args:
            x: one example's input, or inputs by name, without the examples' dimension.
            y: its label, or labels by output.
            weight: how much it counts, over 0.
            key: what it belongs to, such as a recording or a person, for `forget`.

        Returns:
            False where the same example was there already.

        Raises:
            DataError: it does not fit the model.
            StoreError: the file cannot be written, such as on a full disk.
        """
        return self.extend(Examples(_one(x), _one(y), np.asarray([weight], np.float32)), key=key) == 1

    def extend(self, examples: Examples, *, key: str = "") -> int:
        """Keep many examples in one transaction; how many of them were new. Errors as for `add`."""
        if len(key) > MAX_KEY:
            raise OptionError(f"the key has {len(key)} characters, allowed {MAX_KEY}")
        inputs, labels = check_examples(examples.x, examples.y, self.layout)
        weight = check_weight(examples.weight, len(examples))
        size = self.layout.nbytes + len(key.encode())
        limits, now = self.limits, self._clock()
        if limits.keep_bytes and size > limits.keep_bytes:
            raise DataError(f"one example has {size} bytes, the store keeps {limits.keep_bytes}")
        digests = example_digests({**inputs, **labels}, self._secret)
        arrays, new = {**inputs, **labels, "weight": weight}, 0
        with self._db.writing():
            self._trim(limits, now)
            for row, digest in enumerate(digests):
                label = self.layout.label(labels, row)
                data = self._sealed(self.layout.pack(arrays, row, key), digest)
                new += self._db.change(
                    "INSERT OR IGNORE INTO examples (added, key, label, digest, size, data) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (now, self._veiled("key", key), self._veiled("label", label), digest, len(data), data),
                )
            if new:
                self._trim(limits, now)
        return new

    # -- forgetting

    def forget(
        self,
        *,
        key: str | None = None,
        label: int | str | None = None,
        before: float | None = None,
        where: Callable[[Stored], bool] | None = None,
    ) -> int:
        """Delete every example that fits all that is given; how many there were.

        On return they are in no page of the file, their features in no cache that devices of this store
        keep, and no checkpoint of a training that saw them is left. A training under way in another process
        stops within a step and starts anew without them.

        Args:
            key, label: as they were added.
            before: added before this moment, in seconds since the epoch; `math.inf` for all.
            where: asked with each example that fits the rest.

        Raises:
            OptionError: nothing is given.
            StoreError: the file cannot be written.
        """
        conditions: list[tuple[str, Any]] = []
        if key is not None:
            conditions.append(("key = ?", self._veiled("key", key)))
        if label is not None:
            conditions.append(("label = ?", self._veiled("label", str(label))))
        if before is not None:
            conditions.append(("added < ?", before))
        if not conditions and where is None:
            raise OptionError("say what to forget: key, label, before or where")
        clause = " AND ".join(text for text, _ in conditions) or _EVERYTHING
        with self._db.writing():
            found = self._ids(clause, [value for _, value in conditions])
            if where is not None:
                found = np.asarray([i for i, one in self._stored(found) if where(one)], np.int64)
            self._delete(found)
            if len(found):
                self._derived.count_forgetting()
        if len(found):
            self._derived.purge()
        return len(found)

    # -- looking

    def __len__(self) -> int:
        """How many there are, without those past their age."""
        return int(self._db.value("SELECT COUNT(*) FROM examples WHERE added >= ?", (self._since(),)))

    def ever_added(self) -> int:
        """See `Source`."""
        return int(self._db.value("SELECT ever FROM totals"))

    def added_since(self, moment: float) -> int:
        """How many of the examples were added at this moment or later, in seconds since the epoch."""
        return int(
            self._db.value("SELECT COUNT(*) FROM examples WHERE added >= ?", (max(moment, self._since()),))
        )

    def info(self) -> StoreInfo:
        """The store at a glance."""
        since = (self._since(),)
        count, size, oldest, newest = self._db.rows(
            "SELECT COUNT(*), COALESCE(SUM(size), 0), MIN(added), MAX(added) FROM examples "
            "WHERE added >= ?", since,
        )[0]  # fmt: skip
        groups = self._db.rows(
            "SELECT MIN(id), COUNT(*) FROM examples WHERE added >= ? GROUP BY label", since
        )
        counts = dict(groups)
        named = {one.label: counts[i] for i, one in self._stored(np.asarray(list(counts), np.int64))}
        return StoreInfo(
            count,
            self.ever_added(),
            size,
            self._path.stat().st_size,
            oldest,
            newest,
            dict(sorted(named.items(), key=lambda item: (len(item[0]), item[0]))),
            self.sealed,
            str(self.layout),
            self.limits.to_json(),
        )

    # -- training

    def take(self, seed: int = 0) -> Examples:
        """See `Source`: all examples in the order they came, or a seeded draw of as many as fit in memory."""
        found = self._settled()
        if len(found) > self._room:
            found = np.sort(_shuffled(found, seed)[: self._room])
        return self._examples(found)

    def stream(self) -> Rows | None:
        """See `Source`."""
        found = self._settled()
        return _Stored(self._examples, found) if len(found) > self._room else None

    def batches(self, size: int, seed: int = 0) -> Iterator[Examples]:
        """One pass over all examples in a random order that the seed decides, a batch in memory at a time."""
        order = _shuffled(self._ids(), seed)
        for start in range(0, len(order), size):
            found = self._examples(order[start : start + size])
            if len(found):  # others may have been forgotten meanwhile
                yield found

    def forgotten_since(self) -> bool:
        """See `Source`."""
        return self._derived.forgettings() != self._seen

    def derives(self, features: Path | None, checkpoints: Path | None) -> None:
        """See `Source`."""
        self._derived.register(features, checkpoints)

    # -- inside

    @property
    def _room(self) -> int:
        """Examples that fit in memory."""
        return max(1, self._memory // self.layout.nbytes)

    def _settled(self) -> Array:
        """All examples within the limits, oldest first; DataError where there are none."""
        with self._db.writing():
            self._trim(self.limits, self._clock())
        self._seen = self._derived.settle()
        found = self._ids()
        if not len(found):
            raise DataError(f"store {self._path} holds no examples")
        return found

    def _agreed(self, layout: Layout | None) -> Layout:
        """The file's layout, which becomes what is wanted in a new file."""
        found = self._db.fact("layout")
        if found is None:
            if layout is None:
                raise StoreError(f"{self._path} is no store of examples")
            self._db.keep("layout", layout.to_bytes())
            return layout
        kept = Layout.from_bytes(found)
        if layout is None or layout == kept:
            return kept
        if layout.tensors != kept.tensors:
            raise StoreError(f"store {self._path} holds {kept}; the model wants {layout}")
        self._db.keep("layout", layout.to_bytes())  # another loss, or another number of classes
        return layout

    def _agreed_secret(self) -> bytes:
        """What digests of examples, keys and labels are keyed with where the store is sealed."""
        kept = self._db.fact("secret")
        if self._cipher is None:
            if kept is not None:
                raise StoreError(f"store {self._path} is encrypted: it opens with its key only")
            return b""
        if kept is None:
            if self._db.value("SELECT COUNT(*) FROM examples"):
                raise StoreError(f"store {self._path} is not encrypted, and holds examples")
            secret = os.urandom(32)
            self._db.keep("secret", self._cipher.seal(secret, _KEY_ABOUT))
            return secret
        return self._cipher.open(kept, _KEY_ABOUT)

    def _sealed(self, data: bytes, digest: bytes) -> bytes:
        return data if self._cipher is None else self._cipher.seal(data, digest)

    def _opened(self, data: bytes, digest: bytes) -> bytes:
        return data if self._cipher is None else self._cipher.open(data, digest)

    def _veiled(self, what: str, text: str) -> bytes:
        """A key or label as a column has it: a keyed digest where the store is sealed."""
        if not self._secret:
            return text.encode()
        return hashlib.blake2b(text.encode(), key=self._secret, digest_size=16, person=what.encode()).digest()

    def _since(self) -> float:
        """Examples added before this are past their age."""
        days = self.limits.keep_days
        return self._clock() - days * 86_400 if days else -math.inf

    def _ids(self, clause: str = _EVERYTHING, given: Sequence[Any] = ()) -> Array:
        found = self._db.rows(f"SELECT id FROM examples WHERE {clause} ORDER BY id", given)
        return np.asarray([row[0] for row in found], np.int64)

    def _stored(self, ids: Array) -> Iterator[tuple[int, Stored]]:
        for i, key, added, data in self._read(ids):
            arrays = self.layout.unpack([data])
            tensors = {name: value[0] for name, value in arrays.items()}
            yield i, Stored(tensors, key, self.layout.label(arrays, 0), added)

    def _read(self, ids: Array) -> Iterator[tuple[int, str, float, bytes]]:
        """Number, key, time and opened bytes of examples, in the order of `ids`."""
        for start in range(0, len(ids), _CHUNK):
            part = [int(i) for i in ids[start : start + _CHUNK]]
            marks = ",".join("?" * len(part))
            rows = self._db.rows(f"SELECT id, added, digest, data FROM examples WHERE id IN ({marks})", part)
            found = {row[0]: row for row in rows}
            for i in part:
                if i in found:
                    _, added, digest, data = found[i]
                    opened = self._opened(data, digest)
                    yield i, self.layout.key(opened), added, opened

    def _examples(self, ids: Array) -> Examples:
        parts = [self.layout.unpack([row[3] for row in chunk]) for chunk in _chunks(self._read(ids))]
        if not parts:
            return Examples(np.empty(0), np.empty(0), np.empty(0, np.float32))
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        x = {spec.name: arrays[spec.name] for spec in self.layout.inputs}
        y = {head.label.name: arrays[head.label.name] for head in self.layout.heads}
        return Examples(x, y, arrays["weight"])

    def _trim(self, limits: StoreOptions, now: float) -> None:
        """Delete what is beyond a limit, the oldest first; within a transaction."""
        if limits.keep_days:
            self._delete(self._ids("added < ?", [now - limits.keep_days * 86_400]))
        if limits.keep_per_label:
            crowded = self._db.rows(
                "SELECT label FROM examples GROUP BY label HAVING COUNT(*) > ?", [limits.keep_per_label]
            )
            for (label,) in crowded:
                self._delete(self._ids("label = ?", [label])[: -limits.keep_per_label])
        count, size = self._db.rows("SELECT examples, bytes FROM totals")[0]
        if limits.keep_examples and count > limits.keep_examples:
            self._delete(self._oldest(count - limits.keep_examples))
            size = self._db.value("SELECT bytes FROM totals")
        if limits.keep_bytes and size > limits.keep_bytes:
            self._delete(self._oldest_bytes(size - limits.keep_bytes))

    def _oldest(self, count: int) -> Array:
        found = self._db.rows("SELECT id FROM examples ORDER BY id LIMIT ?", (count,))
        return np.asarray([row[0] for row in found], np.int64)

    def _oldest_bytes(self, size: int) -> Array:
        """The oldest examples that have so many bytes together."""
        found: list[int] = []
        for i, each in self._db.rows("SELECT id, size FROM examples ORDER BY id"):
            if size <= 0:
                break
            found.append(i)
            size -= each
        return np.asarray(found, np.int64)

    def _delete(self, ids: Array) -> None:
        """Delete examples; what was derived from them is noted, to be deleted too. In a transaction."""
        if len(ids) and self._derived.has_features():
            names = [spec.name for spec in self.layout.inputs]
            for chunk in _chunks(self._read(ids)):
                arrays = self.layout.unpack([row[3] for row in chunk])
                self._derived.note(example_digests({name: arrays[name] for name in names}))
        for start in range(0, len(ids), _CHUNK):
            part = [int(i) for i in ids[start : start + _CHUNK]]
            self._db.change(f"DELETE FROM examples WHERE id IN ({','.join('?' * len(part))})", part)


class _Stored(Rows):
    """Examples of a store as they were when this was made."""

    def __init__(self, read: Callable[[Array], Examples], ids: Array) -> None:
        self._read, self._ids = read, ids

    def __len__(self) -> int:
        return len(self._ids)

    def take(self, places: Array) -> Examples:
        found = self._read(self._ids[places])
        if len(found) != len(places):
            raise Interrupted  # some were forgotten: what was learnt so far is not to be kept
        return found


def _one(value: Any) -> Any:
    """One example with an examples' dimension."""
    if isinstance(value, Mapping):
        return {name: np.asarray(each)[None] for name, each in value.items()}
    return np.asarray(value)[None]


def _shuffled(ids: Array, seed: int) -> Array:
    order: Array = np.random.Generator(np.random.PCG64(seed)).permutation(ids)
    return order


def _chunks(rows: Iterable[tuple[int, str, float, bytes]]) -> Iterator[list[tuple[int, str, float, bytes]]]:
    chunk: list[tuple[int, str, float, bytes]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
