# SPDX-License-Identifier: Apache-2.0
"""What a device keeps to itself belongs to one model in one federation, and to whoever holds the lock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.runtime.algorithms import Drift
from edgefl.runtime.belongings import Belongings
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.owned import OwnedFile, model_key
from edgefl.runtime.transport import LoopbackTransport
from edgefl.tensorfile import read_tensors, write_tensors
from tests.runtime.crashes import Crash
from tests.runtime.fakes import FakeServer, ScriptedLearner, failure
from tests.runtime.test_crashes import NORM, examples

pytestmark = pytest.mark.device

FILES = ("personal.safetensors", "residual.safetensors", "drift.safetensors")


def server(federation: str, bundle: Bundle = NORM, rounds: int = 1) -> FakeServer:
    made = FakeServer(rounds, bundle, epochs=2, density=0.2, algorithm="feddyn")
    made.federation = federation
    return made


def take_part(server: FakeServer, folder: Path) -> list:
    return list(DeviceClient(LoopbackTransport(server), examples(), folder, backend="numpy").run())


def bytes_of(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def another_start() -> Bundle:
    """The same architecture, names and schema, from other values."""
    values = {name: value + 1 for name, value in NORM.parameters().items() if name == "0.bias"}
    return NORM.with_parameters(values, 0)


@pytest.mark.parametrize(
    "after",
    [lambda: server("b" * 16), lambda: server("a" * 16, another_start()), lambda: server("")],
    ids=["federation", "model", "unnamed"],
)
def test_what_belongs_to_another_is_set_aside_and_never_used(tmp_path, caplog, after):
    take_part(server("a" * 16), tmp_path / "device")
    before = bytes_of(tmp_path / "device")

    take_part(after(), tmp_path / "device")
    take_part(after(), tmp_path / "fresh")

    assert bytes_of(tmp_path / "device") == bytes_of(tmp_path / "fresh")
    assert bytes_of(tmp_path / "device" / "set-aside") == before
    told = [r.getMessage() for r in caplog.records if "set aside" in r.getMessage()]
    assert len(told) == len(FILES) and all("another model or federation" in text for text in told)


def test_same_model_in_the_same_federation_goes_on(tmp_path):
    take_part(server("a" * 16), tmp_path / "device")
    before = bytes_of(tmp_path / "device")

    take_part(server("a" * 16, rounds=2), tmp_path / "device")

    assert bytes_of(tmp_path / "device") != before and not (tmp_path / "device" / "set-aside").exists()


def test_what_one_algorithm_remembers_is_nothing_to_another(tmp_path, caplog):
    schema = NORM.schema()
    belongings = Belongings.of(tmp_path, NORM).of_federation("a" * 16)
    kept = Drift("feddyn", np.arange(schema.size, dtype=np.float32))
    belongings.put(None, {}, kept)

    again = belongings.drift(schema, "feddyn")
    assert again is not None and np.array_equal(again.vector, kept.vector)
    assert belongings.drift(schema, "fedavg") is None and "go by fedavg now" in caplog.text
    assert belongings.drift(schema, "feddyn") is None and not (tmp_path / "drift.safetensors").exists()


def test_update_for_another_federation_is_never_sent(tmp_path, caplog):
    first = server("a" * 16)

    def crash(method, path):
        if "/updates/" in path:
            raise Crash

    first.before = crash
    with pytest.raises(Crash):
        take_part(first, tmp_path)
    other = server("b" * 16)

    [report] = take_part(other, tmp_path)

    assert report.accepted and other.uploads == list(other.frames.values())
    assert (tmp_path / "set-aside" / "pending" / "update.eflu").exists()
    assert "pending is of another model or federation" in caplog.text


@pytest.mark.parametrize("content", [b"", b"junk" * 9, write_tensors({"4.bias": np.zeros(3, np.float32)})])
def test_personal_file_that_is_damaged_is_dropped_and_never_fatal(tmp_path, caplog, content):
    take_part(server("a" * 16), tmp_path / "fresh")
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / FILES[0]).write_bytes(content)

    take_part(server("a" * 16), tmp_path / "device")

    assert bytes_of(tmp_path / "device") == bytes_of(tmp_path / "fresh")
    assert "dropped" in caplog.text


def test_personal_file_with_other_parameters_of_its_owner_is_dropped(tmp_path, caplog):
    mine = Belongings.of(tmp_path, NORM).of_federation("a")
    OwnedFile(tmp_path / FILES[0], mine.owner).save({"4.bias": np.zeros(4, np.float32)}, {})

    assert mine.personal() is None and "not the model's" in caplog.text


def test_slices_of_a_bundle_are_one_model():
    keys = {model_key(b) for b in (NORM, NORM.slice("onnx"), NORM.slice("tflite"))}

    assert len(keys) == 1 and model_key(another_start()) not in keys


def test_a_client_touches_nothing_before_it_has_the_lock(tmp_path):
    running = DeviceClient(
        LoopbackTransport(server("", rounds=2)),
        None,
        tmp_path,
        learner=lambda b: ScriptedLearner(b.schema().size),
    )
    rounds = running.run()
    next(rounds)
    (tmp_path / "pending.new").mkdir()
    before = sorted(tmp_path.rglob("*"))

    second = DeviceClient(LoopbackTransport(server("")), None, tmp_path)

    assert second.device == running.device
    assert sorted(tmp_path.rglob("*")) == before
    DeviceClient(LoopbackTransport(server("")), None, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_refused_update_keeps_what_is_personal_and_nothing_of_the_others(tmp_path):
    take_part(server("a" * 16), tmp_path)
    before = bytes_of(tmp_path)
    refusing = server("a" * 16, rounds=2)
    refusing.over = 1
    refusing.before = lambda method, path: failure(409, "round-closed") if "/updates/" in path else None
    client = DeviceClient(LoopbackTransport(refusing), examples(), tmp_path, backend="numpy")

    [report] = client.run(max_rounds=1)

    personal, *others = bytes_of(tmp_path)
    assert not report.accepted and personal != before[0] and others == before[1:]
    assert set(read_tensors(personal)) == {"4.weight", "4.bias", "1.running_mean", "1.running_var"}
