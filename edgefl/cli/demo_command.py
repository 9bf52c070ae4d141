# SPDX-License-Identifier: Apache-2.0
"""`edgefl demo`: the main job on real data, end to end."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefl.cli.options import AsJson
from edgefl.cli.output import out, print_json, print_rows, size

if TYPE_CHECKING:
    from edgefl.cli.demo.story import Outcome


def demo(
    source: Annotated[str, typer.Option(help="Framework the model is written in: keras or torch.")] = "keras",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for bundle, int8 models and picture.")
    ] = Path("demo-out"),
    rounds: Annotated[int | None, typer.Option(help="Fewer or more rounds than the recipe's.", min=1)] = None,
    pairs: Annotated[int, typer.Option(help="Pairs of held-out people to average over.", min=1, max=5)] = 5,
    seed: Annotated[int, typer.Option(help="Of initial weights and order of examples.")] = 0,
    device_python: Annotated[
        str, typer.Option(help="Python that runs the devices; it needs no TensorFlow.")
    ] = sys.executable,
    crash_at: Annotated[
        int | None, typer.Option(help="Kill the server in the middle of this round and start it again.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A smartwatch learns shoulder exercises from 10 people, and nobody's motion data leaves the watch."""
    from edgefl.cli.demo.recipe import Recipe
    from edgefl.cli.demo.story import Options, run
    from edgefl.errors import MissingDependency, OptionError

    recipe = Recipe().with_rounds(rounds)
    if crash_at is not None and not 1 <= crash_at <= recipe.rounds:
        raise OptionError(f"the demo has rounds 1 to {recipe.rounds}", {"crash_at": crash_at})
    options = Options(source, output, device_python, recipe, pairs, seed, crash_at)
    with tempfile.TemporaryDirectory(prefix="edgefl-demo-") as folder:
        try:
            outcome = run(options, Path(folder))
        except ImportError as exc:
            raise MissingDependency(
                str(exc.name), "keras,ort-training,tflite,server,sim", "the demo"
            ) from exc
    if as_json:
        print_json(outcome.to_json())
    else:
        _summary(outcome)


def _summary(outcome: Outcome) -> None:
    found = outcome.to_json()
    rows = [
        (
            f"{p.held_out[0]} and {p.held_out[1]}",
            p.examples,
            f"{p.federated:.1%}",
            f"{p.central:.1%}",
            *(f"{p.int8[t]:.1%}" for t in ("onnx", "tflite")),
        )
        for p in outcome.pairs
    ]
    means = [f"{outcome.mean(what):.1%}" for what in ("federated", "central")]
    int8 = [f"{sum(p.int8[t] for p in outcome.pairs) / len(outcome.pairs):.1%}" for t in ("onnx", "tflite")]
    columns = ["held-out people", "windows", "federated", "central", "int8 ONNX", "int8 TFLite"]
    print_rows("accuracy on people never seen in training", columns, [*rows, ("mean", "", *means, *int8)])
    ratio = found["bytes_up_dense"] / found["bytes_up"]
    dense = size(found["bytes_up_dense"])
    out.print(f"sent     {size(found['bytes_up'])} at the socket, {ratio:.0f} x less than {dense} dense")
    out.print(f"fetched  {size(found['bytes_down'])} at the socket")
    out.print(f"updates  {found['updates_accepted']} accepted in {found['rounds']} rounds")
    out.print(f"time     {found['seconds']:.0f} s in all")
    out.print(f"bundle   {outcome.bundle}")
    out.print(f"int8     {outcome.bundle.parent}/watch-int8.onnx, watch-int8.tflite")
    out.print(f"picture  {outcome.picture}")
