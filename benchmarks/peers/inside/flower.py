# SPDX-License-Identifier: Apache-2.0
"""Runs where Flower is installed and nothing else of this project: bytes of its default message.

python flower.py UPDATE.npz ...      prints one JSON array
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity


def reply(arrays: dict[str, Any]) -> dict[str, bytes]:
    """The objects of a client's reply with its arrays, as they go over the wire."""
    record = ArrayRecord([np.ascontiguousarray(value) for value in arrays.values()])
    content = {"arrays": record, "metrics": MetricRecord({"num-examples": 100, "loss": 0.5})}
    request = Message(RecordDict({"config": ConfigRecord({"lr": 0.1})}), dst_node_id=1, message_type="train")
    made = Message(RecordDict(content), reply_to=request)
    return {name: item.deflate() for name, item in get_all_nested_objects(made).items()}


def received(arrays: dict[str, Any]) -> list[Any]:
    """What the server's strategy would see."""
    record = ArrayRecord([np.ascontiguousarray(value) for value in arrays.values()])
    return list(record.to_numpy_ndarrays())


def measure(path: str) -> dict[str, Any]:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    begin = time.process_time()
    objects = reply(arrays)
    taken = 1e3 * (time.process_time() - begin)
    same = all(np.array_equal(a, b) for a, b in zip(arrays.values(), received(arrays), strict=True))
    return {
        "path": path,
        "name": "Flower, default message",
        "source": f"flwr {importlib.metadata.version('flwr')}",
        "bytes": sum(len(data) for data in objects.values()),
        "nmse": 0.0 if same else None,
        "encode_ms": taken,
        "note": f"{len(objects)} objects",
    }


if __name__ == "__main__":
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    measure(sys.argv[1])  # the first one also imports
    print(json.dumps([measure(path) for path in sys.argv[1:]]))
