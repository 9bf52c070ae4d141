# SPDX-License-Identifier: Apache-2.0
"""An app's examples: kept as things happen in the device's folder, sealed by its keystore if asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from edgefl.bundle import Bundle
from edgefl.data import Examples, load_examples, named_examples
from edgefl.errors import DataError, StoreError
from edgefl.runtime.store import Cipher, ExampleStore, Source
from edgefl.tensorfile import read_tensors

STORE, FILE = "examples.db", "examples.npz"


class HostCipher(Protocol):
    """What an app implements whose key never leaves the phone's keystore. Results may be of its own types."""

    def seal(self, plain: bytes, about: bytes) -> bytes:
        """Encrypted and authenticated bytes, other ones each time, that belong to `about`."""
        ...

    def open(self, sealed: bytes, about: bytes) -> bytes:
        """What was sealed; throws where a bit of it or of `about` is another."""
        ...


def collect_for(workdir: str, bundle: str, cipher: HostCipher | None = None) -> None:
    """Make the store for a model's examples, or see that there is one that fits it.

    Args:
        bundle: the file of a bundle.

    Raises:
        BundleError: as its name says.
        StoreError: the store is of another model, or wants another key.
    """
    folder = Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    ExampleStore(folder / STORE, Bundle.open(bundle), cipher=_cipher(cipher)).close()


def add_example(workdir: str, tensors: bytes, key: str, cipher: HostCipher | None = None) -> bool:
    """Keep one example; on return it survives a crash.

    Args:
        tensors: inputs and labels (`y`, or `y/<output>`) by name, perhaps `weight`, all without the examples'
            dimension.
        key: what it belongs to, for `forget_examples`.

    Returns:
        False where the same example was there already.

    Raises:
        StoreError: `collect_for` made no store, or the file cannot be written.
        DataError: the example does not fit the model.
        TensorFileError: the bytes are no tensors.
    """
    one = named_examples(read_tensors(tensors), "the example")
    weight = 1.0 if one.weight is None else float(one.weight)
    with _store(workdir, cipher) as store:
        return store.add(one.x, one.y, weight=weight, key=key)


def forget_examples(workdir: str, key: str, cipher: HostCipher | None = None) -> int:
    """Forget the examples of a key and what was derived from them; how many there were."""
    with _store(workdir, cipher) as store:
        return store.forget(key=key)


@contextmanager
def opened(workdir: Path, cipher: HostCipher | None) -> Iterator[Examples | Source]:
    """What a device trains from: its store, or the file `examples.npz` of apps that bring one.

    Raises:
        DataError: there is neither.
    """
    if (workdir / STORE).exists():
        with _store(str(workdir), cipher) as store:
            yield store
    elif (workdir / FILE).exists():
        yield load_examples(workdir / FILE)
    else:
        raise DataError(f"there are no examples in {workdir}: add some first")


def _store(workdir: str, cipher: HostCipher | None) -> ExampleStore:
    return ExampleStore(Path(workdir) / STORE, cipher=_cipher(cipher))


def _cipher(cipher: HostCipher | None) -> Cipher | None:
    return None if cipher is None else _Foreign(cipher)


class _Foreign:
    """An app's cipher, whose failures are those of a store."""

    def __init__(self, cipher: HostCipher) -> None:
        self._cipher = cipher

    def seal(self, plain: bytes, about: bytes) -> bytes:
        try:
            return bytes(self._cipher.seal(plain, about))
        except Exception as exc:  # what a foreign language throws has no common base
            raise StoreError(f"the phone's keystore does not seal: {exc}") from exc

    def open(self, sealed: bytes, about: bytes) -> bytes:
        try:
            return bytes(self._cipher.open(sealed, about))
        except Exception as exc:  # as above
            raise StoreError(f"the phone's keystore does not open what was sealed: {exc}") from exc
