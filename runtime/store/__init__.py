# SPDX-License-Identifier: Apache-2.0
"""Examples as things happen: one SQLite file that an app adds to while a device trains from it."""

from edgefl.runtime.store.cipher import AesGcm, Cipher, cipher_from
from edgefl.runtime.store.layout import Layout
from edgefl.runtime.store.source import Source
from edgefl.runtime.store.store import ExampleStore, Stored, StoreInfo

__all__ = ["AesGcm", "Cipher", "ExampleStore", "Layout", "Source", "StoreInfo", "Stored", "cipher_from"]
