# SPDX-License-Identifier: Apache-2.0
"""Methods that send something for every parameter, or a matrix as a product, from their papers."""

from __future__ import annotations

import struct
from functools import partial

import numpy as np

from benchmarks.peers.codec import Array, Arrays, Codec, Shapes, flat, sizes, unflat

_RANGE = struct.Struct("<ff")
_SCALE = struct.Struct("<f")
_SEED = 7
_TFF_THRESHOLD = 20_000


def tff8_encode(update: Arrays) -> bytes:
    """8-bit uniform quantization between least and largest value, of tensors over 20,000 elements.

    What TensorFlow Federated's compression_aggregator does; smaller tensors stay float32.
    """
    parts, rng = [], np.random.default_rng(_SEED)
    for value in update.values():
        if value.size <= _TFF_THRESHOLD:
            parts.append(value.astype("<f4").tobytes())
            continue
        low, high = float(value.min()), float(value.max())
        exact = (value.ravel() - low) / ((high - low) / 255 or 1.0)
        levels = np.clip(np.floor(exact + rng.random(value.size)), 0, 255).astype(np.uint8)
        parts.append(_RANGE.pack(low, high) + levels.tobytes())
    return b"".join(parts)


def tff8_decode(data: bytes, shapes: Shapes) -> dict[str, Array]:
    arrays, at = {}, 0
    for name, size in zip(shapes, sizes(shapes), strict=True):
        if size <= _TFF_THRESHOLD:
            value = np.frombuffer(data, "<f4", size, at)
            at += 4 * size
        else:
            low, high = _RANGE.unpack_from(data, at)
            levels = np.frombuffer(data, np.uint8, size, at + _RANGE.size)
            value = (low + levels * ((high - low) / 255)).astype(np.float32)
            at += _RANGE.size + size
        arrays[name] = value.reshape(shapes[name])
    return arrays


def sign_encode(update: Arrays) -> bytes:
    """signSGD with the mean magnitude of each tensor (Bernstein et al. 2018; Karimireddy et al. 2019)."""
    return b"".join(
        _SCALE.pack(float(np.abs(v).mean())) + np.packbits(v.ravel() < 0).tobytes() for v in update.values()
    )


def sign_decode(data: bytes, shapes: Shapes) -> dict[str, Array]:
    arrays, at = {}, 0
    for name, size in zip(shapes, sizes(shapes), strict=True):
        (scale,) = _SCALE.unpack_from(data, at)
        packed = np.frombuffer(data, np.uint8, -(-size // 8), at + _SCALE.size)
        signs = 1 - 2 * np.unpackbits(packed)[:size].astype(np.float32)
        arrays[name] = (scale * signs).reshape(shapes[name])
        at += _SCALE.size + len(packed)
    return arrays


def drive_encode(update: Arrays) -> bytes:
    """DRIVE (Vargaftik et al. 2021), which is EDEN's one bit: signs of a randomly rotated vector, one scale.

    The vector is cut into powers of two, so that none is padded but the last.
    """
    vector, parts = flat(update), []
    for start, length in _pieces(vector.size):
        piece = np.zeros(length, np.float64)
        given = vector[start : start + length]
        piece[: len(given)] = given
        rotated = hadamard(piece * _signs(start, length))
        first = float(np.abs(rotated).sum())
        # The scale that makes the estimate unbiased (theorem 3 there).
        scale = float(rotated @ rotated) / first if first else 0.0
        parts.append(_SCALE.pack(scale) + np.packbits(rotated < 0).tobytes())
    return b"".join(parts)


def drive_decode(data: bytes, shapes: Shapes) -> dict[str, Array]:
    total, parts, at = sum(sizes(shapes)), [], 0
    for start, length in _pieces(total):
        (scale,) = _SCALE.unpack_from(data, at)
        packed = np.frombuffer(data, np.uint8, -(-length // 8), at + _SCALE.size)
        signs = 1 - 2 * np.unpackbits(packed)[:length].astype(np.float64)
        parts.append(scale * hadamard(signs) * _signs(start, length))
        at += _SCALE.size + len(packed)
    return unflat(np.concatenate(parts)[:total].astype(np.float32), shapes)


def hadamard(vector: Array) -> Array:
    """The orthonormal Walsh-Hadamard transform of `2**n` values, its own inverse."""
    made, width = vector.copy(), 1
    while width < len(made):
        pairs = made.reshape(-1, 2, width)
        made = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).ravel()
        width *= 2
    result: Array = made / np.sqrt(len(made))
    return result


def _pieces(size: int) -> list[tuple[int, int]]:
    """Starts and lengths: powers of two from the largest down; the last, of 256 or more, may reach over."""
    pieces, start = [], 0
    while start < size:
        length = max(1 << (size - start).bit_length() - 1, 256)
        pieces.append((start, length))
        start += length
    return pieces


def _signs(start: int, length: int) -> Array:
    """Both sides draw the same from a shared seed."""
    return 1.0 - 2.0 * np.random.default_rng([_SEED, start]).integers(0, 2, length)


def power_encode(rank: int, update: Arrays) -> bytes:
    """PowerSGD (Vogels et al. 2019): every matrix as a product of rank r, vectors as they are.

    The paper's warm start comes with training; four rounds of power iteration stand in for it here.
    """
    parts, rng = [], np.random.default_rng(_SEED)
    for value in update.values():
        matrix = _matrix(value)
        if not _pays(matrix.shape, rank):
            parts.append(value.astype("<f4").tobytes())
            continue
        right = rng.standard_normal((matrix.shape[1], rank))
        for _ in range(4):
            left, _ = np.linalg.qr(matrix @ right)
            right = matrix.T @ left
        parts += [left.astype("<f4").tobytes(), right.astype("<f4").tobytes()]
    return b"".join(parts)


def power_decode(rank: int, data: bytes, shapes: Shapes) -> dict[str, Array]:
    arrays, at = {}, 0
    for name, shape in shapes.items():
        rows, columns = _matrix(np.empty(shape, np.bool_)).shape
        counts = [rows * rank, columns * rank] if _pays((rows, columns), rank) else [rows * columns]
        found = []
        for count in counts:
            found.append(np.frombuffer(data, "<f4", count, at))
            at += 4 * count
        value = (
            found[0] if len(found) == 1 else found[0].reshape(rows, rank) @ found[1].reshape(columns, rank).T
        )
        arrays[name] = value.reshape(shape)
    return arrays


def _matrix(value: Array) -> Array:
    return value.reshape(value.shape[0], -1) if value.ndim > 1 else value.reshape(1, -1)


def _pays(shape: tuple[int, ...], rank: int) -> bool:
    return min(shape) > rank and (shape[0] + shape[1]) * rank < shape[0] * shape[1]


CODECS = (
    Codec("8-bit uniform (TFF)", "paper", tff8_encode, tff8_decode),
    Codec("signSGD, scaled", "paper", sign_encode, sign_decode),
    Codec("DRIVE / EDEN, 1 bit", "paper", drive_encode, drive_decode),
    Codec("PowerSGD, rank 1", "paper", partial(power_encode, 1), partial(power_decode, 1)),
    Codec("PowerSGD, rank 4", "paper", partial(power_encode, 4), partial(power_decode, 4)),
)
