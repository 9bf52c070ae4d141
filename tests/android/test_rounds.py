# SPDX-License-Identifier: Apache-2.0
"""Whole rounds through the bridge: Java's door and engines, Python behind it, a real server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl import Bundle
from edgefl.data import load_examples
from edgefl.runtime.client import DeviceClient
from tests.android.host import Host
from tests.host.doubles import fill

FIXTURES = Path(__file__).parents[1] / "fixtures"
MODEL = FIXTURES / "mlp.edgefl"
LOCAL = json.dumps({"training": {"fit": {"epochs": 2, "lr": 0.1}, "coding": {"density": 0.5}}})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A device's folder, of the kind a user's name makes."""
    folder = tmp_path / "Gerät von Zoë 📱"
    fill(folder)
    return folder


def phone(jvm: Any, dev: Any, home: Path, stop: Any = None, heard: list[Any] | None = None) -> Any:
    """Android's own readings, by the bridge's class."""
    listener = jvm.JProxy(
        "java.util.function.Consumer", dict={"accept": (heard if heard is not None else []).append}
    )
    flag = stop if stop is not None else jvm.JClass("java.util.concurrent.atomic.AtomicBoolean")()
    return dev.AndroidDevice(dev.test.TestContext(str(home)), flag, listener)


def file(jvm: Any, path: Path) -> Any:
    return jvm.JClass("java.io.File")(str(path))


def test_a_round_without_a_server(jvm: Any, dev: Any, host: Host, home: Path) -> None:
    engine, heard = dev.LiteRtEngine(1), list[Any]()
    door = dev.EdgeFl(file(jvm, home))
    frame = bytes(door.runRound(file(jvm, MODEL), engine, phone(jvm, dev, home, heard=heard), LOCAL))
    assert frame[:4] == b"EFLU"
    assert json.loads(str(heard[-1]))["event"] == "trained"
    engine.close()


def test_rounds_with_a_server_are_those_of_a_python_device(
    jvm: Any, dev: Any, host: Host, server: Callable[..., Any], home: Path, tmp_path: Path
) -> None:
    made = []
    for kind in ("android", "python"):
        running = server(rounds=2, goal=1, training={"epochs": 1, "lr": 0.1, "density": 0.5})
        folder = home if kind == "android" else tmp_path / "python"
        fill(folder)
        (folder / "device").write_text("one-device")
        if kind == "android":
            engine = dev.LiteRtEngine(1)
            answer = dev.EdgeFl(file(jvm, folder)).takePart(
                running.url, engine, phone(jvm, dev, folder), "{}"
            )
            found = json.loads(str(answer))
            assert found["finished"] and found["engine"].startswith("litert "), found
            assert [row["accepted"] for row in found["rounds"]] == [True, True]
            engine.close()
        else:
            examples = load_examples(folder / "examples.npz")
            client = DeviceClient(running.transport(), examples, folder, backend="tflite", delegate="xnnpack")
            assert all(report.accepted for report in client.run())
        made.append(running.remote().parameters(2, Bundle.open(MODEL).schema()))
    for name, value in made[0].items():
        np.testing.assert_allclose(value, made[1][name], rtol=1e-5, atol=1e-6)
    assert not host.open_models


def test_what_python_raises_arrives_as_an_exception(jvm: Any, dev: Any, host: Host, tmp_path: Path) -> None:
    door, engine = dev.EdgeFl(file(jvm, tmp_path)), dev.LiteRtEngine(1)
    with pytest.raises(jvm.JClass("dev.edgefl.EdgeFlException"), match="DataError: there are no examples"):
        door.runRound(file(jvm, MODEL), engine, phone(jvm, dev, tmp_path), "{}")
    with pytest.raises(jvm.JClass("dev.edgefl.EdgeFlException"), match=r"ProtocolError: .*rounds"):
        door.takePart("http://127.0.0.1:9", engine, phone(jvm, dev, tmp_path), '{"rounds": -1}')
    engine.close()


def test_what_a_listener_throws_harms_nothing(jvm: Any, dev: Any, host: Host, home: Path) -> None:
    def deaf(_event: Any) -> None:
        raise ValueError("the app's own affair")

    listener = jvm.JProxy("java.util.function.Consumer", dict={"accept": deaf})
    flag = jvm.JClass("java.util.concurrent.atomic.AtomicBoolean")()
    device = dev.AndroidDevice(dev.test.TestContext(str(home)), flag, listener)
    engine = dev.LiteRtEngine(1)
    assert len(bytes(dev.EdgeFl(file(jvm, home)).runRound(file(jvm, MODEL), engine, device, LOCAL)))
    engine.close()


def test_readings_are_androids(jvm: Any, dev: Any, host: Host, home: Path) -> None:
    reading = json.loads(str(phone(jvm, dev, home).reading()))
    assert reading.pop("free_storage") > 0
    assert reading == {
        "charging": True, "battery": 80, "metered": False, "power_save": False, "free_memory": 2 << 30,
        "thermal": "light",
    }  # fmt: skip


def test_status_says_what_the_device_did(
    jvm: Any, dev: Any, host: Host, server: Callable[..., Any], home: Path
) -> None:
    running = server(rounds=1, goal=1, training={"epochs": 1, "lr": 0.1})
    door, engine, device = dev.EdgeFl(file(jvm, home)), dev.LiteRtEngine(1), phone(jvm, dev, home)
    door.takePart(running.url, engine, device, "{}")
    status = json.loads(str(door.status(device)))
    assert status["eligible"] and status["accepted"] == 1 and not status["running"]
    engine.close()


def test_a_job_trains_and_tells_android_when_it_is_done(
    jvm: Any, dev: Any, host: Host, server: Callable[..., Any], home: Path
) -> None:
    running = server(rounds=2, goal=1, training={"epochs": 1, "lr": 0.1})
    service = dev.test.TestJobService(str(home), running.url)
    job = jvm.JClass("android.app.job.JobParameters")(7)
    assert service.onStartJob(job)
    assert not service.onStartJob(job), "a job runs once at a time"
    assert job.finished.await_(60, jvm.JClass("java.util.concurrent.TimeUnit").SECONDS)
    assert running.status().version == 2
    assert [json.loads(str(event))["event"] for event in service.events] == ["round", "round", "ended"]
    assert not host.open_models


def test_a_job_that_is_told_to_stop_does_within_a_second(
    jvm: Any, dev: Any, host: Host, server: Callable[..., Any], home: Path
) -> None:
    running = server(rounds=1, goal=1, training={"epochs": 10_000, "lr": 1e-6})
    service = dev.test.TestJobService(str(home), running.url)
    job = jvm.JClass("android.app.job.JobParameters")(8)
    assert service.onStartJob(job)
    deadline = time.monotonic() + 60
    while not host.open_models and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)
    told = time.monotonic()
    assert service.onStopJob(job), "Android runs the job again"
    while any(thread.isAlive() for thread in service.threads()) and time.monotonic() < told + 30:
        time.sleep(0.01)
    assert not any(thread.isAlive() for thread in service.threads())
    assert time.monotonic() - told < 5, "training went on"
    assert job.finished.getCount() == 1, "a job that was stopped is not reported as done"
    assert not host.open_models


def test_a_job_may_be_started_and_stopped_again_and_again(
    jvm: Any, dev: Any, host: Host, server: Callable[..., Any], home: Path
) -> None:
    """What was cut short each time is done in the end, and nothing is left behind."""
    running = server(rounds=1, goal=1, training={"epochs": 40, "lr": 1e-3})
    service = dev.test.TestJobService(str(home), running.url)
    for number in range(10):
        job = jvm.JClass("android.app.job.JobParameters")(20 + number)
        assert service.onStartJob(job)
        assert service.onStopJob(job)
        for thread in service.threads():
            thread.join(60_000)
        assert not service.threads() and not host.open_models
    last = jvm.JClass("android.app.job.JobParameters")(40)
    assert service.onStartJob(last)
    assert last.finished.await_(60, jvm.JClass("java.util.concurrent.TimeUnit").SECONDS)
    assert running.status().version == 1
    assert not host.open_models


def test_the_job_waits_for_power_rest_and_a_free_network(jvm: Any, dev: Any, host: Host, home: Path) -> None:
    context = dev.test.TestContext(str(home))
    kind = jvm.JClass("dev.edgefl.test.TestJobService").class_
    assert jvm.JClass("dev.edgefl.TrainJobService").schedule(context, kind, 3)
    (job,) = context.jobs
    assert job.isRequireCharging() and job.isRequireDeviceIdle() and job.isPersisted()
    assert job.getNetworkType() == 2 and job.getIntervalMillis() == 86_400_000
    assert str(job.getService().getClassName()) == "dev.edgefl.test.TestJobService"


def test_two_threads_of_one_app_do_not_share_a_folder(jvm: Any, dev: Any, host: Host, home: Path) -> None:
    """The second is refused; the first is not harmed."""
    door, engine = dev.EdgeFl(file(jvm, home)), dev.LiteRtEngine(1)
    slow = json.dumps({"training": {"fit": {"epochs": 200, "lr": 0.01}}})
    frames, refused = list[bytes](), list[str]()

    def one() -> None:
        try:
            frames.append(bytes(door.runRound(file(jvm, MODEL), engine, phone(jvm, dev, home), slow)))
        except jvm.JClass("dev.edgefl.EdgeFlException") as exc:
            refused.append(str(exc.getMessage()))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(frames) == 1 and frames[0][:4] == b"EFLU"
    assert len(refused) == 1 and "OptionError" in refused[0]
    engine.close()


@pytest.mark.parametrize("sealed", [False, True])
def test_an_app_keeps_examples_and_forgets_them(
    jvm: Any, dev: Any, host: Host, tmp_path: Path, sealed: bool
) -> None:
    cipher = dev.test.PlainCipher() if sealed else None
    door, engine = dev.EdgeFl(file(jvm, tmp_path), cipher), dev.LiteRtEngine(1)
    door.collectFor(file(jvm, MODEL))
    floats, longs, ints = (jvm.JArray(kind) for kind in (jvm.JFloat, jvm.JLong, jvm.JInt))
    for number in range(16):
        example = jvm.JClass("java.util.HashMap")()
        values = np.random.default_rng(number).normal(size=6).astype(np.float32)
        example.put("x", dev.Tensor.of(floats(values), longs([6])))
        example.put("y", dev.Tensor.of(ints([number % 3]), longs([])))
        assert door.add(example, f"walk {number % 2}")
    assert not door.add(example, "walk 1")
    frames = [bytes(door.runRound(file(jvm, MODEL), engine, phone(jvm, dev, tmp_path), LOCAL))]
    assert door.forget("walk 1") == 8
    frames.append(bytes(door.runRound(file(jvm, MODEL), engine, phone(jvm, dev, tmp_path), LOCAL)))
    assert all(frames) and frames[0] != frames[1]
    engine.close()


@pytest.mark.parametrize("name", ["LiteRtEngine", "OrtEngine"])
def test_the_self_test_replays_the_vectors(jvm: Any, dev: Any, host: Host, tmp_path: Path, name: str) -> None:
    engine = getattr(dev, name)(1)
    vectors = Path(__file__).parents[1] / "conformance" / "vectors"
    report = str(dev.EdgeFl(file(jvm, tmp_path)).selfTest(file(jvm, vectors), engine))
    assert "36 of 36 vectors as expected" in report, report
    engine.close()


@pytest.mark.slow
def test_a_thousand_rounds_leak_nothing(jvm: Any, dev: Any, host: Host, home: Path) -> None:
    import psutil

    door, engine, device = dev.EdgeFl(file(jvm, home)), dev.LiteRtEngine(1), phone(jvm, dev, home)
    settings = json.dumps({"training": {"fit": {"steps": 1, "lr": 0.1}}})
    process, sizes = psutil.Process(), list[int]()
    for number in range(1000):
        door.runRound(file(jvm, MODEL), engine, device, settings)
        if number % 100 == 99:
            jvm.java.lang.System.gc()
            sizes.append(process.memory_info().rss)
    # The first hundreds warm up allocators and the JVM's compiler.
    assert sizes[-1] - sizes[3] < 24 << 20, [size >> 20 for size in sizes]
    engine.close()
