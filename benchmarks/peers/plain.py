# SPDX-License-Identifier: Apache-2.0
"""Files and compressors anyone would try first, and edgefl itself."""

from __future__ import annotations

import importlib.metadata
import io
import struct
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.peers.codec import Array, Arrays, Codec, Shapes, sizes
from edgefl import __version__
from edgefl.delta import decode_delta, encode_delta
from edgefl.delta.coders import zstandard
from edgefl.parameters import Schema

_SCALE = struct.Struct("<f")
_LEVEL = 3


def _npz_encode(save: Callable[..., None], update: Arrays) -> bytes:
    file = io.BytesIO()
    save(file, **update)
    return file.getvalue()


def _npz_decode(data: bytes, shapes: Shapes) -> dict[str, Array]:
    with np.load(io.BytesIO(data)) as file:
        return {name: file[name] for name in shapes}


def _safetensors_encode(update: Arrays) -> bytes:
    from safetensors.numpy import save

    data: bytes = save({name: np.array(value, order="C") for name, value in update.items()})
    return data


def _safetensors_decode(data: bytes, shapes: Shapes) -> dict[str, Array]:
    from safetensors.numpy import load

    found = load(data)
    return {name: found[name] for name in shapes}


def _half_encode(update: Arrays) -> bytes:
    return _squeezed(b"".join(value.astype("<f2").tobytes() for value in update.values()))


def _half_decode(data: bytes, shapes: Shapes) -> dict[str, Array]:
    raw, arrays, at = _restored(data), {}, 0
    for name, size in zip(shapes, sizes(shapes), strict=True):
        arrays[name] = np.frombuffer(raw, "<f2", size, at).astype(np.float32).reshape(shapes[name])
        at += 2 * size
    return arrays


def _int8_encode(update: Arrays) -> bytes:
    parts = []
    for value in update.values():
        scale = float(np.abs(value).max(initial=0)) / 127 or 1.0
        parts.append(_SCALE.pack(scale) + np.rint(value / scale).astype(np.int8).tobytes())
    return _squeezed(b"".join(parts))


def _int8_decode(data: bytes, shapes: Shapes) -> dict[str, Array]:
    raw, arrays, at = _restored(data), {}, 0
    for name, size in zip(shapes, sizes(shapes), strict=True):
        (scale,) = _SCALE.unpack_from(raw, at)
        levels = np.frombuffer(raw, np.int8, size, at + _SCALE.size)
        arrays[name] = (levels * np.float32(scale)).astype(np.float32).reshape(shapes[name])
        at += _SCALE.size + size
    return arrays


def _squeezed(data: bytes) -> bytes:
    made: bytes = zstandard().ZstdCompressor(level=_LEVEL).compress(data)
    return made


def _restored(data: bytes) -> bytes:
    made: bytes = zstandard().ZstdDecompressor().decompress(data)
    return made


def _edgefl_encode(mode: str, density: float, update: Arrays) -> bytes:
    return encode_delta(_sorted(update), None, mode=mode, density=density, rng=0)


def _edgefl_decode(data: bytes, shapes: Shapes) -> dict[str, Array]:
    template = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    found = decode_delta(data, Schema.of_arrays(_sorted(template)))
    return {name: found[name] for name in shapes}


def _sorted(update: Arrays) -> dict[str, Array]:
    return {name: update[name] for name in sorted(update)}


def edgefl(mode: str, density: float = 1.0) -> Codec:
    """A mode of this project's codec."""
    name = f"edgefl {mode}" + (f", {100 * density:g} %" if density < 1 else "")
    return Codec(name, f"edgefl {__version__}", partial(_edgefl_encode, mode, density), _edgefl_decode)


def _release(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


CODECS = (
    Codec("npz", _release("numpy"), partial(_npz_encode, np.savez), _npz_decode),
    Codec("npz, compressed", _release("numpy"), partial(_npz_encode, np.savez_compressed), _npz_decode),
    Codec("safetensors", _release("safetensors"), _safetensors_encode, _safetensors_decode),
    Codec("float16 + zstd", _release("zstandard"), _half_encode, _half_decode),
    Codec("int8 per tensor + zstd", _release("zstandard"), _int8_encode, _int8_decode),
)
OURS = (
    edgefl("topk", 0.01),
    edgefl("topk", 0.1),
    edgefl("ternary", 0.01),
    edgefl("unbiased", 0.01),
    edgefl("unbiased", 0.001),
    edgefl("dense4"),
    edgefl("dense8"),
    edgefl("float16"),
)
