# SPDX-License-Identifier: Apache-2.0
"""A crowd at a server: thousands of devices that check in, of which each round has places for a few.

Part of `python -m benchmarks.server`. Every device is a connection of its own that is kept, asks for work,
waits where there is none, as devices do, and sends an update where there is some. Any answer but 200 is an
error.
"""

from __future__ import annotations

import asyncio
import random
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.server import DENSITY, Process, frames, model
from edgefl.parameters import Schema
from edgefl.wire import Accepted, CheckIn, CheckInAnswer, Task

ROUNDS, DIFFERENT = 3, 20
_SPARE_FILES = 64
Row = dict[str, Any]


class Crowd:
    """Devices on one event loop."""

    def __init__(self, port: int, schema: Schema) -> None:
        self.check_ins = self.updates = 0
        self.errors: Counter[str] = Counter()
        self._port, self._schema = port, schema
        self._frames: dict[int, list[bytes]] = {}
        self._making = asyncio.Lock()

    async def all_take_part(self, devices: int) -> None:
        await asyncio.gather(*(self._take_part(number) for number in range(devices)))

    async def _take_part(self, number: int) -> None:
        """One device, until the server has finished."""
        dice = random.Random(number)
        await asyncio.sleep(dice.random() * 2)
        hello = CheckIn(f"device-{number}", self._schema.id.hex(), "none", 10).to_bytes()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while True:
                answer = CheckInAnswer.from_bytes(await self._ask(reader, writer, "POST /v1/check-in", hello))
                self.check_ins += 1
                if answer.finished:
                    return
                if answer.task is None:
                    await asyncio.sleep(answer.retry_after_s + dice.random() * answer.window_s)
                    continue
                await self._send(reader, writer, answer.task, number)
        except (OSError, EOFError, ValueError) as exc:
            self.errors[f"{type(exc).__name__}: {exc}"] += 1
        finally:
            writer.close()

    async def _send(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: Task, number: int
    ) -> None:
        async with self._making:
            if task.base_version not in self._frames:
                made = await asyncio.to_thread(frames, self._schema, task.base_version, DIFFERENT)
                self._frames = {task.base_version: made}
        kept = self._frames[task.base_version]
        route = f"PUT /v1/rounds/{task.round}/updates/{task.assignment}"
        said = await self._ask(reader, writer, route, kept[number % len(kept)])
        self.updates += Accepted.from_bytes(said).accepted

    @staticmethod
    async def _ask(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, route: str, body: bytes
    ) -> bytes:
        """The body of an answer; ValueError where it is no 200."""
        writer.write(f"{route} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next((line for line in head.split("\r\n") if line.startswith("content-length:")), "x:0")
        said = await reader.readexactly(int(length.partition(":")[2]))
        if not head.startswith("http/1.1 200"):
            raise ValueError(f"{route.partition(' ')[0]}: {head[:40]!r} {said[:200]!r}")
        return said


def measure(parameters: int, devices: int, places: int) -> Row:
    """What a crowd costs: errors, memory, processor time."""
    _allow_connections(devices)
    with tempfile.TemporaryDirectory() as name:
        folder, bundle = Path(name), model(parameters)
        bundle.save(folder / "model.edgefl")
        options: Row = {
            "bundle": str(folder / "model.edgefl"),
            "database": str(folder / "rounds.db"),
            "density": DENSITY,
            "goal": places,
            "rounds": ROUNDS,
            "surplus": 0.0,
            "deadline_s": 3600.0,
        }
        process = Process(folder, options)
        try:
            start_mb, cpu, began = process.peak_mb(), process.cpu_s(), time.perf_counter()
            crowd = asyncio.run(_visit(int(process.url.rpartition(":")[2]), bundle.schema(), devices))
            seconds = time.perf_counter() - began
            grown = process.peak_mb() - start_mb
            return {
                "devices": devices,
                "rounds": ROUNDS,
                "check_ins": crowd.check_ins,
                "updates": crowd.updates,
                "errors": sum(crowd.errors.values()),
                "error_kinds": dict(crowd.errors.most_common(5)),
                "seconds": seconds,
                "cpu_ms_per_request": 1000 * (process.cpu_s() - cpu) / (crowd.check_ins + crowd.updates),
                "grown_mb": grown,
                "grown_kb_per_device": 1000 * grown / devices,
            }
        finally:
            process.stop()


async def _visit(port: int, schema: Schema, devices: int) -> Crowd:
    crowd = Crowd(port, schema)
    await crowd.all_take_part(devices)
    return crowd


def _allow_connections(devices: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = devices + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
