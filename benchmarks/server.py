# SPDX-License-Identifier: Apache-2.0
"""What the server takes: updates a second while a round fills, and seconds to close it.

    python -m benchmarks.server [--parameters 1000000] [--devices 200] [--rounds 3] [--database URL]
                                [--crowd 2000] [--keep]

A server process with a core of its own, where there are two, and the devices' requests from this process on
another: updates of 1 % of a model, coded as devices code them, over kept-alive connections. `closing` is from
the last acknowledgement until the next round is open. Then a crowd of devices checks in, of which as many as
before have places in each round: an error of any of them is one of the benchmark, and so is memory beyond
what connections and one round's updates take. `--keep` writes `benchmarks/results/server.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import numpy as np

from benchmarks.codec import machine
from edgefl.bundle import ArtifactData, Bundle, TensorSpec
from edgefl.delta import encode
from edgefl.graph.onnx_schema import GraphField, ModelField
from edgefl.graph.protobuf import put_bytes
from edgefl.parameters import Parameter, Schema
from edgefl.runtime.remote import Remote
from edgefl.runtime.transport import HttpTransport
from edgefl.wire import CheckIn, Task

RESULTS = Path(__file__).parent / "results" / "server.json"
DENSITY, CONNECTIONS = 0.01, 16
BUFFER_BYTES, BYTES_PER_PARAMETER, LOADED_MB = 65_536, 256, 64
START = """
import json, sys
from edgefl.server_stub.serve import run_server
from edgefl.server_stub.settings import Settings
from edgefl.wire import Training
options = json.loads(sys.argv[1])
port_file = options.pop("port_file")
run_server(Settings(training=Training.of(density=options.pop("density")), **options), port_file=port_file)
"""
Row = dict[str, Any]


def model(size: int) -> Bundle:
    """A bundle of so many parameters that nobody will run."""
    never_run = put_bytes(ModelField.GRAPH, put_bytes(GraphField.NAME, "never run"))
    values = np.random.default_rng(0).normal(size=size, scale=0.05).astype(np.float32)
    x = TensorSpec("x", (1, 1), "float32")
    return Bundle.create(
        name="benchmark",
        parameters=[Parameter("w", (size,), "float32", "shared")],
        values={"w": values},
        inputs=(x,),
        step_inputs=(x,),
        label=TensorSpec("y", (1,), "int32"),
        output=TensorSpec("output", (1, 2), "float32"),
        loss="softmax_cross_entropy",
        batch_size=1,
        artifacts=[ArtifactData("onnx", "step", never_run)],
        golden={},
    )


class Process:
    """A server process, and what the system says of it."""

    def __init__(self, folder: Path, options: Row) -> None:
        port_file = folder / "port"
        cores = sorted(os.sched_getaffinity(0))
        self._core, mine = cores[0], cores[1:] or cores
        command = [sys.executable, "-c", START, json.dumps({**options, "port_file": str(port_file)})]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with open(folder / "log.txt", "wb") as log:
            self._process = subprocess.Popen(command, stderr=log, env=environment)
        os.sched_setaffinity(self._process.pid, {self._core})
        os.sched_setaffinity(0, mine)
        while not port_file.exists():
            if self._process.poll() is not None:
                raise SystemExit((folder / "log.txt").read_text())
            time.sleep(0.02)
        self.url = f"http://127.0.0.1:{int(port_file.read_text())}"

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def died(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    def peak_mb(self) -> float:
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


def frames(schema: Schema, version: int, count: int) -> list[bytes]:
    """Updates that agree in part, as those of devices do."""
    random = np.random.default_rng(version)
    common = random.normal(size=schema.size).astype(np.float32)
    made = []
    for number in range(count):
        vector = np.roll(common, 977 * number) + 0.3 * common
        found = encode(0.01 * vector, schema_id=schema.id, base_version=version, density=DENSITY)
        made.append(found.frame)
    return made


def fill(url: str, tasks: Sequence[Task], updates: Sequence[bytes]) -> list[float]:
    """Send every update; the seconds each took."""
    waiting: Queue[tuple[Task, bytes]] = Queue()
    for pair in zip(tasks, updates, strict=True):
        waiting.put(pair)
    taken: list[float] = []

    def send() -> None:
        with HttpTransport(url) as transport:
            remote = Remote(transport)
            while True:
                try:
                    task, frame = waiting.get_nowait()
                except Empty:
                    return
                began = time.perf_counter()
                remote.upload(task.round, task.assignment, frame)
                taken.append(time.perf_counter() - began)

    senders = [threading.Thread(target=send) for _ in range(CONNECTIONS)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    return taken


def one_round(process: Process, schema: Schema, devices: int) -> Row:
    with HttpTransport(process.url) as transport:
        remote = Remote(transport)
        before = process.cpu_s(), time.perf_counter()
        hello = [CheckIn(f"device-{n}", schema.id.hex(), "none", 10 + n) for n in range(devices)]
        tasks = [task for message in hello if (task := remote.check_in(message).task) is not None]
        checked_in = process.cpu_s(), time.perf_counter()
        updates = frames(schema, tasks[0].base_version, devices)
        idle, began = process.cpu_s(), time.perf_counter()
        taken = sorted(fill(process.url, tasks, updates))
        filled = process.cpu_s(), time.perf_counter()
        while remote.status().version == tasks[0].base_version:
            # Often enough for hundredths, and seldom enough not to slow the server down.
            time.sleep(0.02)
        closed = time.perf_counter()
    if len(taken) != devices:
        raise SystemExit(f"{devices - len(taken)} updates failed")
    return {
        "check_ins_per_s": devices / (checked_in[1] - before[1]),
        "updates_per_s": devices / (filled[1] - began),
        "cpu_ms_per_update": 1000 * (filled[0] - idle) / devices,
        "p50_ms": 1000 * statistics.median(taken),
        "p99_ms": 1000 * taken[min(devices - 1, int(0.99 * devices))],
        "closing_s": closed - filled[1],
        "bytes_per_update": statistics.mean(map(len, updates)),
        "peak_mb": process.peak_mb(),
    }


def measure(parameters: int, devices: int, rounds: int, database: str | None) -> list[Row]:
    """One row per round; the first has cold caches."""
    with tempfile.TemporaryDirectory() as name:
        folder, bundle = Path(name), model(parameters)
        bundle.save(folder / "model.edgefl")
        options = {"bundle": str(folder / "model.edgefl"), "goal": devices, "rounds": rounds + 1}
        options |= {"density": DENSITY, "database": database or str(folder / "rounds.db")}
        process = Process(folder, options)
        try:
            return [one_round(process, bundle.schema(), devices) for _ in range(rounds)]
        finally:
            process.stop()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database")
    parser.add_argument("--crowd", type=int, default=2000, help="0: none.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args(arguments)
    rows = measure(asked.parameters, asked.devices, asked.rounds, asked.database)
    made = {
        "machine": machine(),
        "parameters": asked.parameters,
        "devices": asked.devices,
        "median": {key: statistics.median(row[key] for row in rows) for key in rows[0]},
        "rounds": rows,
    }
    if asked.crowd:
        from benchmarks import crowd  # which takes its server from here

        made["crowd"] = crowd.measure(asked.parameters, asked.crowd, min(asked.devices, asked.crowd))
    if asked.keep:
        RESULTS.write_text(json.dumps(made, indent=1) + "\n")
    if asked.json:
        print(json.dumps(made))
    else:
        for key, value in made["median"].items():
            print(f"{key:<20} {value:12.3f}   {', '.join(f'{row[key]:.3f}' for row in rows)}")
        for key, value in made.get("crowd", {}).items():
            print(f"crowd: {key:<20} {value}")
    check(made)


def check(made: Row) -> None:
    """SystemExit where a crowd met an error, or cost more memory than connections and updates may take."""
    found = made.get("crowd")
    if found is None:
        return
    if found["errors"]:
        raise SystemExit(f"{found['errors']} errors: {found['error_kinds']}")
    # What asyncio buffers of a connection both ways, of each parameter what a round's sums and the next
    # version hold, and modules that the first requests bring.
    most = LOADED_MB + (2 * BUFFER_BYTES * found["devices"] + BYTES_PER_PARAMETER * made["parameters"]) / 1e6
    if found["grown_mb"] > most:
        raise SystemExit(f"the server grew by {found['grown_mb']:.0f} MB, allowed are {most:.0f}")


if __name__ == "__main__":
    main()
