# SPDX-License-Identifier: Apache-2.0
"""`edgefl simulate`: how a model would learn over many devices, without deploying anything."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgefl.cli.options import AsJson, BundlePath, DataPath, check_folder, open_bundle
from edgefl.cli.output import print_json, print_rows, progress
from edgefl.errors import DataError, OptionError
from edgefl.options import CodingOptions, EngineOptions, FederationOptions, FitOptions

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]
    from edgefl.cli.simulation import RoundRow
    from edgefl.data import Examples


def simulate(
    bundle: BundlePath,
    data: DataPath,
    server: FederationOptions,
    fit: FitOptions,
    coding: CodingOptions,
    engine: EngineOptions,
    test: Annotated[Path | None, typer.Option(help="Held-out examples, .npz.")] = None,
    devices: Annotated[int, typer.Option(help="Devices to divide the examples among.", min=1)] = 10,
    partition: Annotated[
        str, typer.Option(help="iid, or dirichlet:ALPHA for devices with few classes each.")
    ] = "iid",
    cohort: Annotated[int | None, typer.Option(help="Devices drawn per round. Default: all.", min=1)] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the final bundle.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train over simulated devices with the real codec and the real aggregation."""
    from edgefl.cli.simulation import Plan
    from edgefl.cli.simulation import simulate as run
    from edgefl.data import load_examples
    from edgefl.wire import Training

    check_folder(output)
    opened = open_bundle(bundle)
    plan = Plan(
        server.rounds, Training(fit, coding), cohort, server.server_lr, server.server_momentum,
        fit.seed, server.downlink,
    )  # fmt: skip
    parts = divide(load_examples(data), devices, partition, fit.seed)
    held_out = None if test is None else load_examples(test)
    with progress("rounds", server.rounds, quiet=as_json) as advance:
        final, rows = run(
            opened, parts, plan, test=held_out, backend=engine.backend, on_round=lambda row, made: advance(1)
        )
    if output:
        final.save(output)
    dense = 4 * opened.schema().size
    if as_json:
        print_json({"rounds": [asdict(r) for r in rows], "dense_bytes": dense, "bundle": str(output or "")})
        return
    columns = ["round", "devices", "loss", "accuracy", "bytes up", "x smaller than dense", "bytes down"]
    print_rows("", columns, [_cells(row, dense) for row in rows])


def _cells(row: RoundRow, dense: int) -> list[object]:
    accuracy = "-" if row.accuracy is None else f"{row.accuracy:.1%}"
    return [
        row.round,
        row.devices,
        row.loss,
        accuracy,
        row.bytes_up,
        round(dense * row.devices / row.bytes_up),
        row.bytes_down,
    ]


def divide(examples: Examples, devices: int, partition: str, seed: int) -> dict[str, Examples]:
    """Deal examples out to devices.

    Args:
        partition: `iid`, or `dirichlet:ALPHA`: each class is spread over devices by a Dirichlet(ALPHA) draw
            (Hsu et al. 2019, arXiv:1909.06335); devices left with nothing are dropped.

    Raises:
        OptionError: an unknown partition.
        DataError: more devices than examples.
    """
    import numpy as np

    if devices > len(examples):
        raise DataError(f"{len(examples)} examples cannot be divided among {devices} devices")
    rng = np.random.default_rng(seed)
    if partition == "iid":
        owners = rng.permutation(np.arange(len(examples)) % devices)
    else:
        owners = _dirichlet(examples.y, devices, _alpha(partition), rng)
    return {f"device-{i:04d}": _take(examples, owners == i) for i in range(devices) if (owners == i).any()}


def _alpha(partition: str) -> float:
    found = re.fullmatch(r"dirichlet:(\d+(?:\.\d+)?)", partition)
    if not found or float(found[1]) <= 0:
        raise OptionError(
            f"partition {partition!r}: give iid or dirichlet:ALPHA with ALPHA over 0, as in dirichlet:0.3"
        )
    return float(found[1])


def _dirichlet(y: Array, devices: int, alpha: float, rng: np.random.Generator) -> Array:
    import numpy as np

    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise DataError(f"dirichlet needs one class label per example, y is {y.dtype}{list(y.shape)}")
    owners = np.empty(len(y), np.int64)
    for label in np.unique(y):
        where = np.flatnonzero(y == label)
        owners[where] = rng.choice(devices, len(where), p=rng.dirichlet(np.full(devices, alpha)))
    return owners


def _take(examples: Examples, mask: Array) -> Examples:
    from edgefl.data import Examples as Made

    x = examples.x
    picked = {k: v[mask] for k, v in x.items()} if isinstance(x, dict) else x[mask]  # type: ignore[index]
    weight = None if examples.weight is None else examples.weight[mask]
    return Made(picked, examples.y[mask], weight)
