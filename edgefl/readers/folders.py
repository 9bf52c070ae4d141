# SPDX-License-Identifier: Apache-2.0
"""Folders: one folder per class with images or recordings, or `.npy` files as an `.npz` would hold them."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.bundle.manifest import TensorSpec
from edgefl.data import Examples, Wanted, named_examples, read_npy
from edgefl.errors import DataError, DataShape, MissingDependency
from edgefl.options import DataOptions
from edgefl.readers.classes import class_names, numbered

Array = npt.NDArray[Any]

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
SOUNDS = (".wav",)
CHANNELS = (1, 3, 4)
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def read_folder(
    path: Path, wanted: Wanted | None, how: DataOptions, labelled: bool, max_bytes: int
) -> Examples:
    """Examples of a folder; errors as for `edgefl.readers.read`."""
    if arrays := sorted(path.glob("*.npy")):
        return _arrays(arrays, max_bytes)
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in (*IMAGES, *SOUNDS) and p.is_file())
    if not found:
        raise DataError(
            f"{path} holds no .npy, and no folders of images ({', '.join(IMAGES)}) or recordings (.wav)"
        )
    values, taken = [], 0
    for file in found:
        values.append(_value(file, wanted, how))
        taken += values[-1].nbytes
        if taken > max_bytes:
            raise DataError(f"{path} holds more than {max_bytes} bytes of examples")
        if values[-1].shape != values[0].shape:
            raise DataShape(
                f"{file} has shape {values[-1].shape}, {found[0]} {values[0].shape}: "
                "bring them to one size with `resize`"
            )
    return Examples(np.stack(values), _labels(path, found, wanted, how) if labelled else None)


def _labels(path: Path, files: Sequence[Path], wanted: Wanted | None, how: DataOptions) -> Array:
    """The class of each file: the folder it is in, right below the path."""
    loose = next((file for file in files if file.parent == path), None)
    if loose is not None:
        raise DataError(f"{loose} lies in no folder of a class")
    texts = [file.relative_to(path).parts[0] for file in files]
    return numbered(texts, class_names(texts, how.classes, wanted, str(path)), [str(f) for f in files])


def _value(file: Path, wanted: Wanted | None, how: DataOptions) -> Array:
    spec = wanted.inputs[0] if wanted is not None else None
    return _sound(file, spec, how) if file.suffix.lower() in SOUNDS else _image(file, spec, how)


# -- images


def _image(file: Path, spec: TensorSpec | None, how: DataOptions) -> Array:
    """An image as the model's channels, 0 to 255: `[height, width, channels]` unless the model says."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as exc:
        raise MissingDependency("pillow", "data", f"reading {file}") from exc
    shape = spec.example_shape if spec is not None else None
    first, channels = _channels(shape, how)
    try:
        with Image.open(file) as opened:
            image = opened.convert(_MODES[channels])
            if how.resize is not None:
                height, width = _size(how.resize)
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as exc:
        raise DataError(f"{file} is no image that can be read: {exc}") from exc
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    if shape is not None and len(shape) == 2:
        pixels = pixels[..., 0]
    elif first:
        pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    if shape is not None and pixels.shape != shape:
        raise DataShape(f"{file} has shape {pixels.shape}, the model wants {shape}: see `resize`")
    return pixels


def _channels(shape: tuple[int, ...] | None, how: DataOptions) -> tuple[bool, int]:
    """Whether channels come first, and how many there are."""
    if shape is None:
        return how.channels_first, 3
    if len(shape) == 2:
        return False, 1
    if len(shape) == 3 and (shape[0] in CHANNELS or shape[-1] in CHANNELS):
        # Where both ends could be channels, such as of a tiny image, the fewer ones are.
        first = shape[-1] not in CHANNELS or (shape[0] in CHANNELS and shape[0] < shape[-1])
        return first, shape[0] if first else shape[-1]
    raise DataShape(f"the model takes examples of shape {shape}, which are no images")


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not width:
        raise DataError(f"resize is {text}: images need height x width, such as 96x96")
    return int(height), int(width)


# -- recordings


def _sound(file: Path, spec: TensorSpec | None, how: DataOptions) -> Array:
    """A recording as float32 in [-1, 1): `[samples]`, or `[samples, channels]`, or as the model has it."""
    try:
        with wave.open(str(file)) as opened:
            channels, width, rate = opened.getnchannels(), opened.getsampwidth(), opened.getframerate()
            data = opened.readframes(opened.getnframes())
    except (OSError, EOFError, wave.Error) as exc:
        raise DataError(f"{file} is no recording that can be read: {exc}") from exc
    if how.rate and rate != how.rate:
        raise DataError(f"{file} has {rate} samples a second, expected {how.rate}; nothing is resampled")
    values = _samples(data, width).reshape(-1, channels)
    if how.resize is not None:
        values = _cut(values, how.resize)
    made = values[:, 0] if channels == 1 else values
    if spec is None:
        return made
    if len(spec.example_shape) == 2 and spec.example_shape[0] == channels and channels > 1:
        made = np.ascontiguousarray(values.T)
    if made.size != int(np.prod(spec.example_shape)):
        raise DataShape(
            f"{file} has {len(values)} samples of {channels} channels, the model wants {spec.example_shape}: "
            "`resize` cuts recordings or fills them up"
        )
    return made.reshape(spec.example_shape)


def _samples(data: bytes, width: int) -> Array:
    """PCM as float32; one byte is unsigned, more are signed."""
    if width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    if width == 3:
        parts = np.frombuffer(data, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(parts), 4), np.uint8)
        wide[:, 1:] = parts
        return wide.view("<i4")[:, 0].astype(np.float32) / 2.0**31
    return np.frombuffer(data, f"<i{width}").astype(np.float32) / 2.0 ** (8 * width - 1)


def _cut(values: Array, text: str) -> Array:
    """The first samples, or all of them and zeros behind."""
    if not text.isdigit():
        raise DataError(f"resize is {text}: recordings need a number of samples, such as 16000")
    length = int(text)
    made = np.zeros((length, values.shape[1]), values.dtype)
    made[: len(values)] = values[:length]
    return made


# -- arrays


def _arrays(files: Sequence[Path], max_bytes: int) -> Examples:
    """`x.npy`, `y.npy` and so on; `y_<output>.npy` where there are several outputs."""

    total = sum(file.stat().st_size for file in files)
    if total > max_bytes:
        raise DataError(f"{files[0].parent} holds {total} bytes, allowed {max_bytes}")
    arrays = {}
    for file in files:
        name = file.stem.replace("y_", "y/", 1) if file.stem.startswith("y_") else file.stem
        arrays[name] = read_npy(file)
    return named_examples(arrays, str(files[0].parent), labelled=False)
