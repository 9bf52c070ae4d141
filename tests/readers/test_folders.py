# SPDX-License-Identifier: Apache-2.0
"""Images, recordings and arrays in folders."""

from __future__ import annotations

import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from edgefl.errors import DataError, DataShape, MissingDependency
from edgefl.options import DataOptions
from edgefl.readers import read
from tests.readers.conftest import model


def image(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def sound(path: Path, samples: np.ndarray, width: int = 2, channels: int = 1, rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("cat", "dog", "owl"):
        for i in range(2):
            image(tmp_path / "p" / name / f"{i}.png", random.integers(0, 256, (6, 4, 3), np.uint8))
    return tmp_path / "p"


def test_images_as_the_model_wants_them(pictures: Path) -> None:
    from PIL import Image

    last, first = read(pictures, model(6, 4, 3)), read(pictures, model(3, 6, 4))
    grey = read(pictures, model(6, 4))

    with Image.open(pictures / "dog" / "1.png") as opened:
        np.testing.assert_array_equal(last.x[3], np.asarray(opened))
        np.testing.assert_array_equal(grey.x[3], np.asarray(opened.convert("L")))
    np.testing.assert_array_equal(first.x, last.x.transpose(0, 3, 1, 2))
    assert last.y.tolist() == [0, 0, 1, 1, 2, 2] and last.x.dtype == np.uint8


def test_images_are_resized_and_scaled_when_asked(pictures: Path) -> None:
    how = DataOptions(resize="3x2", scale=1 / 255)

    found = read(pictures, model(3, 2, 3), how)

    assert found.x.shape == (6, 3, 2, 3) and found.x.dtype == np.float32 and 0 <= found.x.min() <= 1
    with pytest.raises(DataShape, match=r"0.png has shape \(6, 4, 3\), the model wants \(3, 2, 3\)"):
        read(pictures, model(3, 2, 3))
    assert read(pictures, None, DataOptions(resize="3x2", channels_first=True)).x.shape == (6, 3, 3, 2)


def test_images_that_are_none(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pictures / "cat" / "broken.png").write_bytes(b"\x89PNG nothing")

    with pytest.raises(DataError, match=r"broken.png is no image that can be read"):
        read(pictures, model(6, 4, 3))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependency, match="needs the package 'pillow'"):
        read(pictures, model(6, 4, 3))


@pytest.mark.device
@pytest.mark.parametrize(("width", "dtype"), [(1, "u1"), (2, "<i2"), (4, "<i4")])
def test_recordings_are_from_minus_one_to_one(tmp_path: Path, width: int, dtype: str) -> None:
    top = 2 ** (8 * width - 1)
    values = np.array([-top, 0, top // 2, top - 1], np.int64) + (128 if width == 1 else 0)
    for name in ("no", "yes"):
        sound(tmp_path / name / "a.wav", values.astype(dtype), width)

    found = read(tmp_path, model(4, 1, classes=2))

    assert found.x.dtype == np.float32 and found.x.shape == (2, 4, 1)
    np.testing.assert_allclose(found.x[0, :, 0], [-1, 0, 0.5, 1 - 1 / top], rtol=1e-6)


@pytest.mark.device
def test_recordings_of_three_bytes(tmp_path: Path) -> None:
    data = b"".join(v.to_bytes(3, "little", signed=True) for v in (-(2**23), 0, 2**22, -1))
    sound(tmp_path / "a" / "a.wav", np.frombuffer(data, np.uint8), 3)

    np.testing.assert_allclose(read(tmp_path).x[0], [-1, 0, 0.5, -(2.0**-23)])


@pytest.mark.device
def test_recordings_are_cut_and_filled_and_have_channels(tmp_path: Path) -> None:
    sound(tmp_path / "a" / "short.wav", np.arange(6, dtype="<i2"), channels=2)
    sound(tmp_path / "b" / "long.wav", np.arange(20, dtype="<i2"), channels=2)

    found = read(tmp_path, model(2, 5, classes=2), DataOptions(resize="5"))

    np.testing.assert_array_equal(found.x[0] * 2**15, [[0, 2, 4, 0, 0], [1, 3, 5, 0, 0]])
    np.testing.assert_array_equal(found.x[1] * 2**15, [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]])
    with pytest.raises(DataShape, match=r"short.wav has 3 samples of 2 channels, the model wants"):
        read(tmp_path, model(2, 5, classes=2))
    with pytest.raises(DataError, match="has 8000 samples a second, expected 16000"):
        read(tmp_path, model(2, 5, classes=2), DataOptions(rate=16000, resize="5"))
    with pytest.raises(DataError, match="recordings need a number of samples"):
        read(tmp_path, model(2, 5, classes=2), DataOptions(resize="5x5"))


@pytest.mark.device
def test_folders_of_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 3), np.float32))
    np.save(tmp_path / "y.npy", np.arange(4))

    found = read(tmp_path, model(3))

    assert found.x.shape == (4, 3) and found.y.tolist() == [0, 1, 2, 3]
    (tmp_path / "y.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match="cannot read examples from"):
        read(tmp_path, model(3))


@pytest.mark.device
def test_folders_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")

    with pytest.raises(DataError, match=r"holds no .npy, and no folders of images"):
        read(tmp_path)
    sound(tmp_path / "loose.wav", np.zeros(4, "<i2"))
    with pytest.raises(DataError, match=r"loose.wav lies in no folder of a class"):
        read(tmp_path)
    assert read(tmp_path, labelled=False).y is None
