# SPDX-License-Identifier: Apache-2.0
"""Engines behind one Protocol, and the choice among them."""

from __future__ import annotations

from edgefl.bundle import Bundle
from edgefl.errors import BackendUnavailable, OptionError
from edgefl.runtime.backends.base import Array, Backend, Program

BACKENDS = ("onnx", "tflite", "numpy")
"""Names `open_backend` takes, in the order `auto` tries them."""

_CPU = ("auto", "none", "cpu")

__all__ = ["BACKENDS", "Array", "Backend", "Program", "open_backend"]


def open_backend(bundle: Bundle, name: str = "auto", delegate: str = "auto", threads: int = 1) -> Backend:
    """The engine to run a bundle with.

    Args:
        name: `auto` takes the first of `BACKENDS` that is installed and has artifacts in the bundle.
        delegate: `auto`, `none` or `cpu` for the engine's own CPU code, or the path of a TFLite delegate
            library, which makes `auto` mean `tflite`.
        threads: how many threads the engine uses inside an operator.

    Raises:
        OptionError: there is no backend of that name, or it takes no delegate library.
        BackendUnavailable: what is missing, and what would bring it.
    """
    if name not in ("auto", *BACKENDS):
        raise OptionError(f"backend is {name!r}, allowed auto, {', '.join(BACKENDS)}")
    library = None if delegate in _CPU else delegate
    if library and name not in ("auto", "tflite"):
        raise OptionError(f"delegate library {library!r} works with backend tflite, not with {name}")
    if name != "auto":
        return _open(bundle, name, library, threads)
    reasons = []
    for candidate in ("tflite",) if library else BACKENDS:
        try:
            return _open(bundle, candidate, library, threads)
        except BackendUnavailable as exc:
            reasons.append(f"{candidate}: {exc}")
    raise BackendUnavailable(f"no engine here can run bundle {bundle.manifest.name!r}: " + "; ".join(reasons))


def _open(bundle: Bundle, name: str, library: str | None, threads: int) -> Backend:
    backend = _make(name, library, threads)
    if backend.target not in bundle.manifest.targets:
        have = ", ".join(bundle.manifest.targets) or "none"
        raise BackendUnavailable(
            f"backend {name!r} runs {backend.target} artifacts, bundle {bundle.manifest.name!r} has {have}"
        )
    return backend


def _make(name: str, library: str | None, threads: int) -> Backend:
    # Each engine is imported only when it is chosen.
    if name == "onnx":
        from edgefl.runtime.backends.onnx import OnnxBackend

        return OnnxBackend(threads)
    if name == "tflite":
        from edgefl.runtime.backends.tflite import TfliteBackend

        return TfliteBackend(threads, library)
    from edgefl.runtime.backends.numpy import NumpyBackend

    return NumpyBackend()
