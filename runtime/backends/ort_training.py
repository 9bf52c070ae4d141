# SPDX-License-Identifier: Apache-2.0
"""Artifacts of onnxruntime-training, whose optimizer is a graph of its own: SGD or Adam, and nothing beside
it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.bundle import Bundle
from edgefl.errors import BackendFailure, BackendUnavailable, NotFinite, NotResumable, OptionError
from edgefl.options import FitOptions
from edgefl.requirements import pip_install
from edgefl.runtime.backends.base import Array, Engine, Program, artifact_of
from edgefl.runtime.backends.onnx import OnnxBackend
from edgefl.runtime.checkpoint import Checkpoint
from edgefl.runtime.optimizer import State
from edgefl.runtime.steps import Begin, Mode

_FILES = ("training", "eval", "checkpoint")
_OPTIMIZERS = {"sgd": "optimizer-sgd", "adam": "optimizer-adamw"}
_STATE = "ort-training"
_INSTEAD = "backend onnx has it, on the same onnxruntime"


class OrtTrainingBackend(Engine):
    """onnxruntime-training: it trains with its own graphs, and runs the bundle's ONNX graphs for all else."""

    name = target = "ort-training"
    own_step = True

    def __init__(self, threads: int = 1) -> None:
        self._engine, self._threads = _import(), threads
        self._plain = OnnxBackend(threads)
        self.version = self._plain.version.replace("onnxruntime", "onnxruntime-training")

    def load(self, bundle: Bundle, kind: str) -> Program:
        """The bundle's ONNX graph of that kind: losses, features and predictions need no training API."""
        return self._plain.load(bundle, kind)

    def start(self, options: FitOptions, begin: Begin) -> OrtSteps:
        """Training from these parameters, with the optimizer's state at zero.

        Raises:
            OptionError: momentum, mu, correction, clip_norm, weight_decay or a schedule, which the optimizer
                graphs do not have.
            BackendUnavailable, BackendFailure: an artifact is missing or refused.
        """
        _check(options, begin)
        return OrtSteps(self._engine, options, begin, self._threads)


class OrtSteps:
    """One `fit`: the parameters live in the engine's checkpoint state until they are asked for.

    Attributes:
        losses: of every step, before its update.
        mode: holds no buffers.
    """

    def __init__(self, engine: Any, options: FitOptions, begin: Begin, threads: int) -> None:
        bundle, resume = begin.bundle, begin.resume
        self.losses, self.mode = list(resume.losses if resume else ()), Mode({})
        self._engine, self._names = engine, list(begin.parameters)
        self._label = (
            f"{engine.__name__.split('.')[0]} on {artifact_of(bundle, 'ort-training', 'training').path}"
        )
        # The engine reads files by path only; it holds nothing open once they are loaded.
        with tempfile.TemporaryDirectory() as folder:
            try:
                self._open(Path(folder), bundle, options, threads, _kept(resume) if resume else None)
                self._load(begin.parameters)
            except (RuntimeError, ValueError, OSError) as exc:
                raise BackendFailure(f"{self._label}: {exc}") from exc

    @property
    def parameters(self) -> dict[str, Array]:
        """The trained parameters as they are now, copied out of the engine, in the bundle's order."""
        return {n: np.array(self._state.get_parameter(n).data.numpy(), np.float32) for n in self._names}

    @property
    def state(self) -> State:
        """The engine's own checkpoint, moments and count of steps of its optimizer included, as a file."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "checkpoint"
            try:
                self._engine.save_checkpoint(self._state, str(file), True)
                data = file.read_bytes()
            except (RuntimeError, OSError) as exc:
                raise BackendFailure(f"{self._label}: {exc}") from exc
        return {_STATE: {"file": np.frombuffer(data, np.uint8)}}

    def step(self, feeds: Mapping[str, Array]) -> float:
        """Loss before the update; raises NotFinite and updates nothing where the loss is not finite."""
        fetches = self._engine.OrtValueVector()
        try:
            self._module.train_step([np.asarray(feeds[name]) for name in self._inputs], fetches)
            loss = float(fetches[0].numpy())
            if not np.isfinite(loss):
                raise NotFinite(f"loss is {loss} at step {len(self.losses) + 1}: a smaller lr may help")
            self._optimizer.optimizer_step()
            self._module.lazy_reset_grad()
        except RuntimeError as exc:
            raise BackendFailure(f"{self._label}: {exc}") from exc
        self.losses.append(loss)
        return loss

    def _open(
        self, folder: Path, bundle: Bundle, options: FitOptions, threads: int, kept: bytes | None
    ) -> None:
        engine, paths = self._engine, {}
        for kind in (*_FILES, _OPTIMIZERS[options.optimizer]):
            artifact_of(bundle, "ort-training", kind)
            paths[kind] = str(folder / kind)
            Path(paths[kind]).write_bytes(bundle.artifact("ort-training", kind))
        session = engine.SessionOptions()
        session.intra_op_num_threads, session.log_severity_level = threads, 3
        device = _cpu(engine)
        if kept is not None:
            Path(paths["checkpoint"]).write_bytes(kept)
        self._state = engine.load_checkpoint(paths["checkpoint"])
        self._module = engine.Module(paths["training"], self._state, paths["eval"], device, session)
        self._inputs = self._module.input_names(True)
        self._optimizer = engine.Optimizer(
            paths[_OPTIMIZERS[options.optimizer]], self._state, device, session
        )
        self._optimizer.set_learning_rate(options.lr)

    def _load(self, parameters: Mapping[str, Array]) -> None:
        for name, value in parameters.items():
            data = np.ascontiguousarray(value, np.float32)
            held = self._engine.OrtValue.ortvalue_from_numpy(data, _cpu(self._engine))
            self._state.get_parameter(name).copy_from(self._state, held)


def _kept(resume: Checkpoint) -> bytes:
    """The engine's checkpoint out of one of training; NotResumable where another engine made it."""
    file = resume.state.get(_STATE, {}).get("file")
    if file is None or file.dtype != np.uint8:
        raise NotResumable("the checkpoint is of another engine than ort-training")
    return file.tobytes()


def _cpu(engine: Any) -> Any:
    return engine.OrtDevice(engine.OrtDevice.cpu(), engine.OrtDevice.default_memory(), 0)


def _check(options: FitOptions, begin: Begin) -> None:
    asked = {name: getattr(options, name) for name in ("momentum", "mu", "clip_norm", "weight_decay")}
    asked["algorithm"] = "" if options.algorithm == "fedavg" else options.algorithm
    asked["schedule"] = "" if options.schedule == "constant" else options.schedule
    if missing := {name: value for name, value in asked.items() if value}:
        raise OptionError(f"backend ort-training has it in none of its optimizers; {_INSTEAD}", missing)
    if begin.correction:
        raise OptionError(
            f"backend ort-training adds no correction such as SCAFFOLD's to gradients; {_INSTEAD}"
        )


def _import() -> Any:
    """The engine's bindings; `onnxruntime.training` itself imports onnx and torch, which devices lack."""
    try:
        from onnxruntime.capi import _pybind_state as bindings
    except ImportError as exc:
        raise BackendUnavailable(
            f"backend 'ort-training' needs onnxruntime-training ({exc}); {_advice()}"
        ) from exc
    if not hasattr(bindings, "Optimizer"):
        raise BackendUnavailable(
            f"backend 'ort-training': this onnxruntime is built without training; {_advice()}"
        )
    return bindings


def _advice() -> str:
    command = pip_install("onnxruntime-training-cpu")
    return f"{command} where it has wheels, or backend onnx, which needs none of it"
