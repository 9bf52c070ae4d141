# SPDX-License-Identifier: Apache-2.0
"""Write the vectors again: `python -m tests.conformance.make`. They change only where a format does."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.bundle import Bundle
from edgefl.converters.targets.coreml import with_coreml
from edgefl.delta import encode_delta
from edgefl.proof import golden_feeds
from edgefl.runtime.host import HostBackend, run_round
from edgefl.tensorfile import _CODES, write_tensors
from tests.host.doubles import NumpyEngine, Phone
from tests.host.evaluator import Evaluator

SEED = 3
VECTORS = Path(__file__).parent / "vectors"
MODEL = Path(__file__).parents[1] / "fixtures" / "mlp.edgefl"


def packs() -> dict[str, dict[str, Any]]:
    """Tensors of every type and shape that hosts get wrong first."""
    rng = np.random.default_rng(1)
    every = {f"of {d.name}": rng.integers(0, 2, (2, 3)).astype(d.newbyteorder("=")) for d in _CODES}
    return {
        "nothing": {},
        "a scalar": {"loss": np.array(0.25, np.float32)},
        "no element": {"empty": np.zeros((0, 4), np.float32)},
        "every type": every,
        "names": {name: np.ones(1, np.int32) for name in ("a", "\uffee", "\U0001f600", 'é\n"\\\x01/')},
        "floats": {"x": np.array([0.0, -0.0, 1e-45, 3.4e38, np.inf, -np.inf], np.float32)},
    }


def refused() -> dict[str, bytes]:
    """Bytes that no host may take for tensors."""

    def pack(header: str, body: bytes = b"") -> bytes:
        return len(header.encode()).to_bytes(8, "little") + header.encode() + body

    row = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    return {
        "short": b"\0" * 7,
        "endless header": (1 << 62).to_bytes(8, "little"),
        "no object": pack("[]"),
        "twice the same name": pack(f'{{"a":{row},"a":{row}}}', b"abcd"),
        "left over": pack("{}", b"x"),
        "overlap": pack(f'{{"a":{row},"b":{row}}}', b"abcd"),
        "another size": pack('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', b"abcd"),
        "no type": pack('{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}', b"abcd"),
        "truth of two": pack('{"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}}', b"\x02"),
        "deep": pack('{"a":' + "[" * 40),
    }


def main() -> None:
    shutil.rmtree(VECTORS, ignore_errors=True)
    VECTORS.mkdir()
    index: dict[str, Any] = {"format": 2, "packs": [], "refused": [], "frames": [], "files": [], "rounds": []}
    for i, (name, tensors) in enumerate(packs().items()):
        file = f"pack-{i}.safetensors"
        (VECTORS / file).write_bytes(write_tensors(tensors))
        rows = [
            {"name": n, "dtype": _CODES[a.dtype], "shape": list(a.shape), "hex": a.tobytes().hex()}
            for n, a in tensors.items()
        ]
        index["packs"].append({"name": name, "tensors": rows, "file": file})
    for i, data in enumerate(refused().values()):
        (VECTORS / f"refused-{i}.bin").write_bytes(data)
        index["refused"].append(f"refused-{i}.bin")
    _frames(index)
    with_coreml(Bundle.open(MODEL)).save(VECTORS / "mlp.edgefl")
    _files(index)
    _rounds(index)
    (VECTORS / "index.json").write_text(json.dumps(index, indent=1) + "\n")


def _frames(index: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    delta = {
        "kernel": rng.normal(size=(40, 25)).astype(np.float32),
        "bias": rng.normal(size=25).astype(np.float32),
    }
    (VECTORS / "delta.safetensors").write_bytes(write_tensors(delta))
    options: dict[str, Any]
    for options in (
        {"mode": "topk", "density": 0.05},
        {"mode": "float32"},
        {"mode": "dense8"},
        {"mode": "unbiased", "density": 0.1},
    ):
        # Compressors differ between releases, and zstd is not everywhere.
        options["coders"] = ["stored"]
        name = f"{options['mode']} {options.get('density', '')}".strip()
        file = f"frame-{len(index['frames'])}.eflu"
        (VECTORS / file).write_bytes(encode_delta(delta, None, rng=np.random.default_rng(SEED), **options))
        index["frames"].append(
            {"name": name, "delta": "delta.safetensors", "options": options, "seed": SEED, "file": file}
        )


def _files(index: dict[str, Any]) -> None:
    """What each target's files give on the golden batch: Core ML's by the evaluator, the others' by NumPy."""
    bundle = Bundle.open(VECTORS / "mlp.edgefl")
    for kind in ("step", "infer"):
        feeds = golden_feeds(bundle, kind)
        (VECTORS / f"{kind}-feeds.safetensors").write_bytes(write_tensors(feeds))
        engines = {"onnx": NumpyEngine(), "coreml": Evaluator()}
        for target, engine in engines.items():
            with tempfile.TemporaryDirectory() as folder:
                made = HostBackend(engine, Path(folder)).load(bundle, kind)(feeds)
            (VECTORS / f"{kind}-{target}.safetensors").write_bytes(write_tensors(made))
        for target in ("onnx", "tflite", "coreml"):
            by = "coreml" if target == "coreml" else "onnx"
            index["files"].append(
                {"name": f"{kind} for {target}", "bundle": "mlp.edgefl", "target": target, "kind": kind,
                 "feeds": f"{kind}-feeds.safetensors", "results": f"{kind}-{by}.safetensors",
                 "tolerance": 1e-3}
            )  # fmt: skip


def _rounds(index: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(40, 6)).astype(np.float32), rng.integers(0, 3, 40).astype(np.int32)
    np.savez(VECTORS / "examples.npz", x=x, y=y)
    training = {"fit": {"epochs": 2, "lr": 0.1}, "coding": {"mode": "topk", "density": 1.0}}
    momentum = {"fit": {"epochs": 1, "lr": 0.05, "momentum": 0.9}, "coding": {"density": 1.0}}
    when = {"charging": True, "battery": 30, "unmetered": True, "cool": True}
    well = {"charging": True, "battery": 80, "metered": False, "thermal": "light"}
    for name, settings, readings in (
        ("trains", {"training": training}, [{}]),
        ("trains with momentum", {"training": momentum}, [{}]),
        ("all is well", {"training": training, "when": when}, [well]),
        ("low battery", {"training": training, "when": when}, [{**well, "battery": 12}]),
        ("hot", {"training": training, "when": when}, [{**well, "thermal": "severe"}]),
        ("nothing can be read", {"training": training, "when": when}, [{}]),
    ):
        phone = Phone(*readings)
        with tempfile.TemporaryDirectory() as folder:
            shutil.copyfile(VECTORS / "examples.npz", Path(folder) / "examples.npz")
            frame = run_round(str(MODEL), folder, NumpyEngine(), phone, json.dumps(settings))
        file = f"round-{len(index['rounds'])}.eflu" if frame else ""
        if frame:
            (VECTORS / file).write_bytes(frame)
        reasons = [event["reason"] for event in phone.events if event["event"] == "paused"]
        index["rounds"].append(
            {"name": name, "bundle": "mlp.edgefl", "examples": "examples.npz", "settings": settings,
             "readings": readings, "file": file, "reasons": reasons, "tolerance": 1e-3}
        )  # fmt: skip


if __name__ == "__main__":
    main()
