# SPDX-License-Identifier: Apache-2.0
"""`edgefl bench payload`: what a model's updates cost to send, or what small updates cost in accuracy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefl.cli.fields import mark
from edgefl.cli.options import AsJson, check_folder, open_bundle
from edgefl.cli.output import print_json, print_line, print_rows, size
from edgefl.declared import options_of
from edgefl.errors import OptionError
from edgefl.options import DataOptions, EngineOptions, FitOptions, FrameOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefl.bundle import Bundle
    from edgefl.cli.payload.plan import Assumptions, DownRow, Row
    from edgefl.parameters import Vector

_GB = 10**9


def payload(
    fit: FitOptions,
    engine: EngineOptions,
    reading: DataOptions,
    bundle: Annotated[
        Path | None, typer.Argument(help="A bundle, MODEL.edgefl; none with --train.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="Examples to train on; the bundle's golden batch if absent."),
    ] = None,
    budget: Annotated[int, mark(options_of(FrameOptions)["payload"])] = 0,
    cohort: Annotated[int, typer.Option(help="Updates per round.", min=1)] = 10,
    rounds: Annotated[int, typer.Option(help="Rounds a device takes part in per month.", min=1)] = 30,
    data_plan: Annotated[float, typer.Option("--plan", help="Data plan, GB per month.", min=0.001)] = 1.0,
    plot: Annotated[Path | None, typer.Option(help="Also draw the sizes, .png.")] = None,
    train: Annotated[
        bool,
        typer.Option("--train", help="Train three tasks in every mode instead: accuracy against bytes."),
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="With --train: a minute instead of an hour.")
    ] = False,
    finished: Annotated[
        bool, typer.Option("--finished", help="With --train: only tell of the runs that are there.")
    ] = False,
    out: Annotated[
        Path, typer.Option(help="With --train: folder for runs, results and pictures; runs there go on.")
    ] = Path("payload-out"),
    as_json: AsJson = False,
) -> None:
    """Bytes of one update of this model by mode and density: up and down, per round and per month.

    With --train instead: what that does to accuracy, on three tasks trained here (an hour on one core;
    stopped and started again it goes on).
    """
    if train:
        from edgefl.cli.payload.training import compare

        compare(out, quick=quick, finished=finished, as_json=as_json)
        return
    if bundle is None:
        raise OptionError(
            "give a bundle, as in: edgefl bench payload MODEL.edgefl, or --train for three tasks"
        )
    check_folder(plot)
    opened = open_bundle(bundle)
    vector = update(opened, data, fit, engine, reading)
    priced = _priced(bundle, opened, vector, budget, _month(rounds, cohort, data_plan))
    if plot:
        from edgefl.cli.payload.sizes import draw

        draw(priced.ups, priced.downs, priced.month, bundle.name, plot)
    if as_json:
        print_json(_as_json(priced))
    else:
        _show(priced, data, plot)


def _month(rounds: int, cohort: int, data_plan: float) -> Assumptions:
    from edgefl.cli.payload.plan import Assumptions

    return Assumptions(rounds, cohort, int(data_plan * _GB))


@dataclass(frozen=True)
class _Priced:
    """Everything the command tells of a model."""

    parameters: int
    month: Assumptions
    budget: int
    ups: Sequence[Row]
    fitted: Sequence[Row]
    downs: Sequence[DownRow]
    settings: str


def _priced(path: Path, bundle: Bundle, vector: Vector, budget: int, month: Assumptions) -> _Priced:
    from edgefl.cli.payload import plan

    schema, version, values = bundle.schema(), bundle.manifest.model_version, bundle.parameters()
    ups = plan.up_rows(vector, schema, version, month)
    fitted = plan.fitting_rows(vector, schema, version, month, budget) if budget else []
    start = schema.flatten({p.name: values[p.name] for p in schema.parameters})
    best = plan.advised(fitted or ups, month.cohort)
    amount = f"--payload {budget}" if budget else f"--density {best.density:g}"
    settings = f"edgefl serve {path} --mode {best.mode} {amount} --goal {month.cohort}"
    downs = plan.down_rows(vector, start, schema, month)
    return _Priced(schema.size, month, budget, ups, fitted, downs, settings)


def _as_json(priced: _Priced) -> dict[str, object]:
    from edgefl.cli.payload.plan import HTTP_DOWN, HTTP_UP

    return {
        "parameters": priced.parameters,
        "dense_bytes": 4 * priced.parameters,
        "assumptions": {**asdict(priced.month), "http_up": HTTP_UP, "http_down": HTTP_DOWN},
        "rows": [asdict(row) for row in priced.ups],
        "fitted": [asdict(row) for row in priced.fitted],
        "down": [asdict(row) for row in priced.downs],
        "settings": priced.settings,
    }


def _show(priced: _Priced, data: Path | None, plot: Path | None) -> None:
    print_line(f"{priced.parameters:,} parameters, {size(4 * priced.parameters)} as dense float32")
    _print_up(priced.ups, "Up: one update")
    if priced.fitted:
        _print_up(priced.fitted, f"Up: the densest update of {size(priced.budget)}")
    _print_down(priced.downs)
    _print_assumptions(priced.month, data)
    print_line(f"Settings    {priced.settings}")
    if plot:
        print_line(f"Picture     {plot}")


def update(
    bundle: Bundle, data: Path | None, fit: FitOptions, engine: EngineOptions, reading: DataOptions
) -> Vector:
    """The update that training makes, on the user's examples or on the golden batch."""
    from edgefl.readers import read
    from edgefl.runtime import Trainer

    trainer = Trainer(bundle, engine.backend, engine.delegate)
    if data is None:
        golden = bundle.golden()
        inputs = {spec.name: golden[spec.name] for spec in bundle.manifest.inputs}
        trainer.fit(inputs, golden["y"], fit)
    else:
        examples = read(data, bundle.manifest, reading)
        trainer.fit(examples.x, examples.y, fit, sample_weight=examples.weight)
    return bundle.schema().flatten(trainer.delta())


def _print_up(rows: Sequence[Row], title: str) -> None:
    columns = ["sent as", "frame", "x less", "a round", "a month", "of plan", "cohort"]
    print_rows(title, columns, [_cells(row) for row in rows])


def _cells(row: Row) -> tuple[object, ...]:
    return (
        row.name,
        size(row.bytes),
        f"{row.times_smaller:.1f}" if row.times_smaller < 100 else f"{row.times_smaller:,.0f}",
        size(row.bytes_up),
        size(row.month_up),
        f"{100 * row.plan_share:.2g} %",
        "any" if row.cohort is None else f"{row.cohort}+",
    )


def _print_down(rows: Sequence[DownRow]) -> None:
    cells = [
        (r.what, size(r.bytes), round(r.times_smaller, 1), size(r.month), f"{100 * r.plan_share:.2g} %")
        for r in rows
    ]
    print_rows("Down: one round's parameters", ["what", "a round", "x less", "a month", "of plan"], cells)


def _print_assumptions(month: Assumptions, data: Path | None) -> None:
    from edgefl.cli.payload.plan import HTTP_DOWN, HTTP_UP

    source = f"one device's training on {data}" if data else "training on the bundle's one golden batch"
    print_line(f"Assumed     {source}; {month.rounds} rounds a month; a plan of {size(month.plan)};")
    print_line(f"            HTTP adds {HTTP_UP} B up and {HTTP_DOWN} B down per round, TLS not counted")
    print_line(
        "Cohort      updates a round needs so that their mean is sound; topk and ternary remember instead"
    )
