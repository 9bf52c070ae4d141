# SPDX-License-Identifier: Apache-2.0
"""What a device may have, and how it is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass

from edgefl.errors import OptionError
from edgefl.runtime.delegates.choice import CPU, Choice

ENGINES = ("onnx", "tflite")
"""Backends that take delegates."""

EXTRA = "EDGEFL_DELEGATES"
"""Environment variable: delegate libraries that `auto` tries too, separated as in PATH."""

LIMIT = "EDGEFL_PROBE_SECONDS"
"""Environment variable: seconds a trial may take, in place of the registry's."""

AUTO, NONE = ("auto",), ("cpu", "none")
_SLOW_S = 900.0


@dataclass(frozen=True)
class Known:
    """A delegate or execution provider.

    Attributes:
        engine: `tflite` or `onnx`.
        name: how users ask for it.
        drives: the hardware.
        libraries: file names of an external TFLite delegate, the preferred first.
        provider: onnxruntime's name.
        options: given where the user gives none.
        dtype: the coarsest arithmetic it may use.
        integers_only: takes int8 graphs alone.
        advice: what brings it.
        limit_s: seconds a trial may take.
    """

    engine: str
    name: str
    drives: str
    advice: str
    libraries: tuple[str, ...] = ()
    provider: str = ""
    options: tuple[tuple[str, str], ...] = ()
    dtype: str = "float32"
    integers_only: bool = False
    limit_s: float = 60.0

    def choice(self, library: str = "", options: tuple[tuple[str, str], ...] = ()) -> Choice:
        return Choice(
            self.engine,
            self.name,
            library,
            self.provider,
            options or self.options,
            self.dtype,
            _limit(self.limit_s),
        )


REGISTRY = (
    Known(
        "tflite",
        "edgetpu",
        "Coral Edge TPU",
        "install libedgetpu from Coral; graphs must be int8 and compiled by edgetpu_compiler",
        ("libedgetpu.so.1", "libedgetpu.1.dylib", "edgetpu.dll"),
        dtype="int8",
        integers_only=True,
    ),
    Known(
        "tflite",
        "qnn",
        "Qualcomm Hexagon NPU, by way of AI Engine Direct",
        "put libQnnTFLiteDelegate.so and libQnnHtp.so of Qualcomm's SDK on the library path",
        ("libQnnTFLiteDelegate.so",),
        options=(("backend_type", "htp"),),
        dtype="float16",
    ),
    Known(
        "tflite",
        "hexagon",
        "older Qualcomm Hexagon DSPs",
        "put libhexagon_delegate.so and libhexagon_nn_skel of the SDK on the library path; newer phones: qnn",
        ("libhexagon_delegate.so",),
        dtype="int8",
        integers_only=True,
    ),
    Known(
        "tflite",
        "vx",
        "VeriSilicon NPUs and GPUs (NXP i.MX 8, Amlogic)",
        "install the board's tflite-vx-delegate",
        ("libvx_delegate.so",),
        dtype="int8",
    ),
    Known(
        "tflite",
        "ethosu",
        "Arm Ethos-U NPUs (NXP i.MX 93)",
        "install the board's ethos-u delegate; graphs must be int8",
        ("libethosu_delegate.so",),
        dtype="int8",
        integers_only=True,
    ),
    Known(
        "tflite",
        "armnn",
        "Arm Mali GPUs and Cortex-A, by way of Arm NN",
        "install Arm NN and put libarmnnDelegate.so on the library path",
        ("libarmnnDelegate.so",),
        options=(("backends", "GpuAcc,CpuAcc"),),
        dtype="float16",
    ),
    Known(
        "tflite",
        "gpu",
        "mobile GPUs, by OpenCL or OpenGL",
        "build TFLite's GPU delegate as an external delegate library; in an Android app: its Java class",
        ("libtensorflowlite_gpu_delegate.so", "libtensorflowlite_gpu_external_delegate.so"),
        dtype="float16",
    ),
    Known(
        "tflite",
        "nnapi",
        "whatever drives NNAPI on Android 8.1 to 14",
        "build TFLite's NNAPI delegate as an external delegate library; gone from Android 15 on: qnn, gpu",
        ("libnnapi_external_delegate.so", "libnnapi_delegate.so"),
        dtype="float16",
    ),
    Known("tflite", "xnnpack", "the CPU, by XNNPACK's kernels", "comes with LiteRT and tflite-runtime"),
    Known(
        "onnx",
        "tensorrt",
        "NVIDIA GPUs, by TensorRT (Jetson)",
        "install onnxruntime-gpu (on a Jetson: NVIDIA's wheel) and TensorRT",
        provider="TensorrtExecutionProvider",
        dtype="float16",
        limit_s=_SLOW_S,
    ),
    Known(
        "onnx",
        "cuda",
        "NVIDIA GPUs",
        "install onnxruntime-gpu 1.18 or newer (on a Jetson: NVIDIA's wheel), CUDA and cuDNN",
        provider="CUDAExecutionProvider",
        # Its own choice is TensorFloat-32, whose ten bits are too few for gradients.
        options=(("use_tf32", "0"),),
    ),
    Known(
        "onnx",
        "qnn",
        "Qualcomm Hexagon NPU",
        "install onnxruntime-qnn",
        provider="QNNExecutionProvider",
        options=(("backend_path", "libQnnHtp.so"),),
        dtype="float16",
        limit_s=_SLOW_S,
    ),
    Known(
        "onnx",
        "coreml",
        "Apple's Neural Engine, GPU and CPU",
        "comes with onnxruntime for macOS and iOS",
        provider="CoreMLExecutionProvider",
        dtype="float16",
    ),
    Known(
        "onnx",
        "nnapi",
        "whatever drives NNAPI on Android 8.1 to 14",
        "use an onnxruntime built for Android with NNAPI",
        provider="NnapiExecutionProvider",
        dtype="float16",
    ),
    Known(
        "onnx",
        "openvino",
        "Intel CPUs, GPUs and NPUs",
        "install onnxruntime-openvino",
        provider="OpenVINOExecutionProvider",
        dtype="float16",
    ),
    Known(
        "onnx",
        "acl",
        "Arm CPUs, by the Arm Compute Library",
        "use an onnxruntime built with --use_acl",
        provider="ACLExecutionProvider",
    ),
    Known(
        "onnx",
        "xnnpack",
        "the CPU, by XNNPACK's kernels",
        "use an onnxruntime built with --use_xnnpack",
        provider="XnnpackExecutionProvider",
    ),
)
"""In order of preference per engine."""


def known(engine: str) -> tuple[Known, ...]:
    """What an engine may have, in order of preference."""
    return tuple(row for row in REGISTRY if row.engine == engine)


@dataclass(frozen=True)
class Wish:
    """What a user asked for: `auto`, `cpu`, a name of the registry or a library, with options.

    Attributes:
        name: lower-case name, or the library's path as given.
        options: key and value pairs behind semicolons.
        engines: those that can grant it; all for `auto` and `cpu`.
    """

    name: str
    options: tuple[tuple[str, str], ...] = ()
    engines: tuple[str, ...] = ENGINES

    @property
    def is_library(self) -> bool:
        return _is_path(self.name)

    @property
    def named(self) -> bool:
        return self.name not in (*AUTO, CPU)


def parse_wish(text: str) -> Wish:
    """Read `auto`, `cpu`, `xnnpack`, `cuda;device_id=1` or `./libmine.so;key=value`.

    Raises:
        OptionError: neither a name nor a path, or options that are no `key=value`.
    """
    name, *rest = text.split(";")
    options = tuple(_option(part, text) for part in rest if part)
    if name in AUTO or name in NONE:
        if options:
            raise OptionError(f"delegate {text!r}: {name} takes no options")
        return Wish("auto" if name in AUTO else CPU)
    if _is_path(name):
        return Wish(name, options, ("tflite",))
    engines = tuple(e for e in ENGINES if any((row.engine, row.name) == (e, name) for row in REGISTRY))
    if not engines:
        names = ", ".join(dict.fromkeys(row.name for row in REGISTRY))
        raise OptionError(
            f"delegate is {text!r}, allowed auto, cpu, {names}, or the path of a TFLite delegate library"
        )
    return Wish(name, options, engines)


def extra_libraries() -> tuple[Wish, ...]:
    """Libraries the environment names for `auto`."""
    parts = os.environ.get(EXTRA, "").split(os.pathsep)
    return tuple(parse_wish(part) for part in parts if part)


def library_choice(wish: Wish) -> Choice:
    """An external TFLite delegate by path."""
    return Choice(
        "tflite", wish.name, wish.name, options=wish.options, dtype="float16", limit_s=_limit(Choice.limit_s)
    )


def _is_path(name: str) -> bool:
    return any(mark in name for mark in ("/", os.sep, ".so", ".dylib", ".dll"))


def _option(part: str, text: str) -> tuple[str, str]:
    key, sign, value = part.partition("=")
    if not sign or not key:
        raise OptionError(f"delegate {text!r}: option {part!r} is no key=value")
    return key, value


def _limit(default: float) -> float:
    text = os.environ.get(LIMIT, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not value > 0:
        raise OptionError(f"{LIMIT} is {text!r}, allowed a number of seconds over 0")
    return value
