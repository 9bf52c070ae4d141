# SPDX-License-Identifier: Apache-2.0
"""Runs where NVIDIA FLARE is installed: bytes of an update with each of its quantization filters.

    python flare.py UPDATE.npz ...      prints one JSON array

Its 8- and 4-bit filters ask for a GPU only to move tensors there; kept on the processor they give the same
bytes, so `cuda()` does nothing here.
"""

from __future__ import annotations

import copy
import importlib.metadata
import json
import logging
import sys
import time
from typing import Any

import numpy as np
import torch
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.decomposers import numpy_decomposers
from nvflare.app_opt.pt.quantization.dequantizer import ModelDequantizer
from nvflare.app_opt.pt.quantization.quantizer import ModelQuantizer
from nvflare.fuel.utils import fobs

KINDS = ("", "float16", "blockwise8", "adaquant", "normfloat4")


def send(arrays: dict[str, Any], kind: str) -> bytes:
    """An update through the filter, as it is serialised."""
    dxo = DXO(DataKind.WEIGHT_DIFF, data=copy.copy(arrays))
    shareable, context = dxo.to_shareable(), FLContext()
    if kind:
        shareable = ModelQuantizer(kind).process(shareable, context)
    data: bytes = fobs.dumps(shareable)
    return data


def receive(data: bytes, kind: str) -> dict[str, Any]:
    shareable = fobs.loads(data)
    if kind:
        shareable = ModelDequantizer().process(shareable, FLContext())
    found: dict[str, Any] = from_shareable(shareable).data
    return found


def measure(path: str, kind: str) -> dict[str, Any]:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    made = {
        "path": path,
        "name": f"NVIDIA FLARE, {kind or 'default message'}",
        "source": f"nvflare {importlib.metadata.version('nvflare')}",
    }
    try:
        begin = time.process_time()
        data = send(arrays, kind)
        taken = 1e3 * (time.process_time() - begin)
        found = receive(data, kind)
    except (RuntimeError, AssertionError, ValueError, TypeError) as exc:
        return {
            **made,
            "bytes": None,
            "nmse": None,
            "encode_ms": None,
            "note": f"cannot run here: {exc}"[:200],
        }
    error = sum(float(np.sum((np.float64(arrays[n]) - np.float64(found[n])) ** 2)) for n in arrays)
    length = sum(float(np.sum(np.float64(value) ** 2)) for value in arrays.values())
    return {**made, "bytes": len(data), "nmse": error / length, "encode_ms": taken, "note": ""}


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    torch.Tensor.cuda = lambda self, *args, **kwargs: self
    torch.set_num_threads(1)
    numpy_decomposers.register()
    measure(sys.argv[1], KINDS[0])  # the first one also imports
    print(json.dumps([measure(path, kind) for path in sys.argv[1:] for kind in KINDS]))
