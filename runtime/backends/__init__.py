# SPDX-License-Identifier: Apache-2.0
"""Engines behind one Protocol, and the choice among them."""

from __future__ import annotations

import logging

from edgefl.bundle import Bundle
from edgefl.errors import BackendFailure, BackendUnavailable, OptionError
from edgefl.proof import KINDS
from edgefl.runtime.backends.base import Array, Backend, Program, ProvingBackend
from edgefl.runtime.backends.fastest import Chosen, Speed, speeds
from edgefl.runtime.backends.proving import Proving
from edgefl.runtime.backends.proving import proving as _proving  # a plain name would hide the module
from edgefl.runtime.delegates.registry import ENGINES, Wish, parse_wish

log = logging.getLogger("edgefl.backends")

BACKENDS = ("onnx", "openvino", "tflite", "numpy")
"""Names `open_backend` takes, in the order `auto` tries them."""

BY_NAME = ("ort-training",)
"""Backends that `auto` leaves alone: they are there for apps that have the engine already."""

_CPU = parse_wish("cpu")

__all__ = ["BACKENDS", "Array", "Backend", "Program", "open_backend", "proved"]


def open_backend(bundle: Bundle, name: str = "auto", delegate: str = "auto", threads: int = 1) -> Backend:
    """The engine to run a bundle with.

    Args:
        name: `auto` takes the first of `BACKENDS` that is installed and has artifacts in the bundle; of
            engines that run the same graphs the fastest on the golden batch (see `fastest`). An engine that
            does not give the results the bundle was made with is passed over; named, that is an error where
            the graph is loaded.
        delegate: `auto` gives each graph the fastest delegate that is here and proves right; `cpu` or `none`
            is the engine's own code; a name of `edgefl.runtime.delegates.REGISTRY` or the path of a TFLite
            delegate library, with options as in `cuda;device_id=1`, is that or an error.
        threads: how many threads the engine uses inside an operator.

    Raises:
        OptionError: there is no backend or delegate of that name, or the two do not go together.
        BackendUnavailable: what is missing, and what would bring it.
    """
    if name not in ("auto", *BACKENDS, *BY_NAME):
        raise OptionError(f"backend is {name!r}, allowed auto, {', '.join((*BACKENDS, *BY_NAME))}")
    wish = parse_wish(delegate)
    if name != "auto":
        return _open(bundle, name, wish, threads)
    reasons, passed = list[str](), list[Speed]()
    measured = () if wish.named else speeds(bundle, threads, lambda engine: _make(engine, _CPU, threads))
    known = {speed.engine for speed in measured}
    faster = [speed.engine for speed in measured if not speed.reason]
    for candidate in wish.engines if wish.named else dict.fromkeys((*faster, *BACKENDS)):
        try:
            backend = _open(bundle, candidate, wish, threads)
            _prove(bundle, backend)
        except BackendUnavailable as exc:
            reasons.append(f"{candidate}: {exc}")
        except BackendFailure as exc:
            log.warning("%s is passed over: %s", candidate, exc)
            reasons.append(f"{candidate}: {exc}")
            passed.append(Speed(candidate, float("inf"), str(exc)))
        else:
            others = (*measured, *(speed for speed in passed if speed.engine not in known))
            return Chosen(backend, others) if others else backend
    raise BackendUnavailable(f"no engine here can run bundle {bundle.manifest.name!r}: " + "; ".join(reasons))


def proved(bundle: Bundle, backend: Backend) -> Backend:
    """An application's own engine, once it has proved right; BackendFailure where it is wrong."""
    found = _proving(backend)
    _prove(bundle, found)
    return found


def _prove(bundle: Bundle, backend: ProvingBackend) -> None:
    """Raise BackendFailure where an engine gets one of the bundle's graphs wrong."""
    for kind in KINDS:
        if bundle.manifest.find(backend.target, kind) is not None:
            backend.prove(bundle, kind)


def _open(bundle: Bundle, name: str, wish: Wish, threads: int) -> ProvingBackend:
    backend = _make(name, wish, threads)
    if backend.target not in bundle.manifest.targets:
        have = ", ".join(bundle.manifest.targets) or "none"
        raise BackendUnavailable(
            f"backend {name!r} runs {backend.target} artifacts, bundle {bundle.manifest.name!r} has {have}"
        )
    return backend


def _make(name: str, wish: Wish, threads: int) -> ProvingBackend:
    # Each engine is imported only when it is chosen.
    if name in ENGINES:
        from edgefl.runtime.delegates.backend import delegated

        return delegated(name, wish, threads)
    if wish.named:
        allowed = ", ".join(wish.engines)
        raise OptionError(f"delegate {wish.name!r} works with backend {allowed}, not with {name}")
    if name == "openvino":
        from edgefl.runtime.backends.openvino import OpenVinoBackend

        return Proving(OpenVinoBackend(threads), threads)
    if name == "ort-training":
        from edgefl.runtime.backends.ort_training import OrtTrainingBackend

        return Proving(OrtTrainingBackend(threads), threads)
    from edgefl.runtime.backends.numpy import NumpyBackend

    return Proving(NumpyBackend())
