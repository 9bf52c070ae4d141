# SPDX-License-Identifier: Apache-2.0
"""The bundle on disk: downloaded once, asked about afterwards."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

from edgefl.bundle import Bundle
from edgefl.bundle.publisher import Publishers
from edgefl.errors import BundleError, Refused
from edgefl.files import write_atomically
from edgefl.runtime.backends import Backend
from edgefl.runtime.delegates.registry import parse_wish
from edgefl.runtime.remote import Remote

log = logging.getLogger("edgefl.client")
_ENGINES = {"onnx": ("onnxruntime",), "tflite": ("ai_edge_litert", "tflite_runtime")}


def targets_for(backend: str | Backend, delegate: str = "auto") -> tuple[str, ...]:
    """Targets whose artifacts an engine with a delegate runs, the preferred first."""
    if not isinstance(backend, str):
        return (backend.target,)
    wish = parse_wish(delegate)
    if backend == "auto" and wish.named:
        return wish.engines
    if backend in ("numpy", "openvino"):
        return ("onnx",)
    if backend != "auto":
        return (backend,)
    installed = [t for t, modules in _ENGINES.items() if any(map(importlib.util.find_spec, modules))]
    # NumPy interprets the ONNX artifacts where no engine is installed.
    return tuple(dict.fromkeys([*installed, "onnx"]))


def download(remote: Remote, targets: tuple[str, ...], tag: str = "") -> tuple[Bundle, bytes, str] | None:
    """The server's bundle for the first target it has, with its bytes and tag; None where `tag` is current.

    Raises:
        Refused: the server has nothing for any of the targets.
        ServerUnreachable, ServerNonsense: worth a retry.
    """
    *others, last = targets
    for target in others:
        try:
            return remote.bundle(target, tag)
        except Refused as exc:
            if exc.reason != "unknown-target":
                raise
    return remote.bundle(last, tag)


class BundleCache:
    """The current bundle of one device, cut to what its engine runs."""

    def __init__(self, folder: Path, targets: tuple[str, ...]) -> None:
        self._bundle, self._tag = folder / "bundle.edgefl", folder / "bundle.etag"
        self._targets = targets
        self._arrived: tuple[Bundle, bytes, str] | None = None

    def fetch(self, remote: Remote) -> Bundle:
        """The server's bundle, from disk where that is the current one.

        Raises:
            Refused: the server has nothing for any of the targets.
            BundleSignature: no publisher that is trusted here has signed it.
            ServerUnreachable, ServerNonsense: worth a retry.
            DiskFull: worth one too, which downloads nothing again.
        """
        if self._arrived is None:
            kept, tag = self._kept(remote.publishers)
            self._arrived = download(remote, self._targets, tag)
            if self._arrived is None:
                assert kept is not None  # a tag is only sent with a bundle in hand
                return kept
        bundle = self._keep(*self._arrived)
        self._arrived = None
        return bundle

    def forget(self) -> None:
        """Have the next fetch download whatever the server has."""
        self._tag.unlink(missing_ok=True)

    def _kept(self, publishers: Publishers) -> tuple[Bundle | None, str]:
        if not self._tag.exists() or not self._bundle.exists():
            return None, ""
        try:
            return Bundle.open(self._bundle, publishers), self._tag.read_text().strip()
        except (BundleError, OSError, ValueError) as exc:
            log.warning("kept bundle dropped: %s", exc)
            return None, ""

    def _keep(self, bundle: Bundle, data: bytes, tag: str) -> Bundle:
        # The tag last: a crash in between makes the next fetch a download, never the wrong bundle.
        self.forget()
        write_atomically(self._bundle, data)
        if tag and tag.isascii() and tag.isprintable():
            write_atomically(self._tag, tag.encode())
        return bundle
