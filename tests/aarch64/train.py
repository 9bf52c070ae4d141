# SPDX-License-Identifier: Apache-2.0
"""Whether this machine's engines train as NumPy does on the machine that made the models.

    python tests/aarch64/train.py make FOLDER            models and NumPy's losses; needs torch for the CNN
    python tests/aarch64/train.py check FOLDER ENGINE    trains, a line per model; 0 if all are equal

`check` needs edgefl, NumPy and the engine, so that an emulated machine can run it.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from edgefl.bundle import Bundle  # noqa: E402
from edgefl.runtime.trainer import Trainer  # noqa: E402

FIXTURES, LOSSES = ("mlp", "head"), "losses.json"
TOLERANCE = 1e-5
EXAMPLES, EPOCHS = 48, 4


def losses(path: Path, engine: str) -> list[float]:
    """Of each step of some epochs, on examples that are the same everywhere."""
    bundle = Bundle.open(path)
    shape = bundle.manifest.inputs[0].shape[1:]
    random = np.random.Generator(np.random.PCG64(5))
    y = random.integers(0, 3, EXAMPLES).astype(np.int32)
    centres = random.standard_normal((3, *shape))
    x = (centres[y] + 3 * random.standard_normal((EXAMPLES, *shape))).astype(np.float32)
    # The engine's own code: what else there is would be tried in processes, which an emulator cannot start.
    trainer = Trainer(bundle, engine, delegate="auto" if engine == "numpy" else "cpu")
    return list(trainer.fit(x, y, epochs=EPOCHS, lr=0.02, momentum=0.5).losses)


def make(folder: Path) -> None:
    """Models by name, and what NumPy makes of them here."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FIXTURES:
        shutil.copy(ROOT / "tests" / "fixtures" / f"{name}.edgefl", folder)
    _cnn().save(folder / "cnn.edgefl")
    found = {path.stem: losses(path, "numpy") for path in sorted(folder.glob("*.edgefl"))}
    (folder / LOSSES).write_text(json.dumps(found, indent=1))


def check(folder: Path, engine: str) -> int:
    """How far each model's losses are from NumPy's; the number that are too far."""
    wrong = 0
    for name, expected in json.loads((folder / LOSSES).read_text()).items():
        found = losses(folder / f"{name}.edgefl", engine)
        apart = max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))
        wrong += not apart <= TOLERANCE
        print(
            f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}, {engine}: "
            f"{name} trained {len(found)} steps, losses {apart:.1e} apart (relative)",
            flush=True,
        )
    return wrong


def _cnn() -> Bundle:
    """Convolutions, a pool and dense layers, all trained."""
    import torch

    import edgefl

    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(4, 8, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(72, 3),
    )
    example = np.zeros((1, 1, 16, 16), np.float32)
    return edgefl.convert(model, example, batch_size=8, targets=("onnx", "tflite"), name="cnn")


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"] and len(sys.argv) == 3:
        make(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["check"] and len(sys.argv) == 4:
        sys.exit(check(Path(sys.argv[2]), sys.argv[3]))
    else:
        sys.exit(__doc__)
