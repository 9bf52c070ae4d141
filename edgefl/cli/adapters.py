# SPDX-License-Identifier: Apache-2.0
"""`edgefl adapters`: LoRA factors to and from the files of Hugging Face's PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgefl.cli.options import AsJson, BundlePath, check_folder, open_bundle
from edgefl.cli.output import print_json, print_line, size

Prefix = Annotated[
    str,
    typer.Option(
        help="What parameter names begin with before those of PEFT's module: 'model.' where a wrapper "
        "with that attribute was converted."
    ),
]


def export_adapters(
    bundle: BundlePath,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the adapter.")] = Path("adapter"),
    prefix: Prefix = "",
    as_json: AsJson = False,
) -> None:
    """Write a bundle's LoRA factors as a PEFT adapter, which PeftModel.from_pretrained loads."""
    from edgefl.converters.peft import export_peft

    config = export_peft(open_bundle(bundle), output, prefix=prefix)
    if as_json:
        print_json({"folder": str(output), "config": config})
        return
    print_line(f"{output}: rank {config['r']}, alpha {config['lora_alpha']:g}, {_modules(config)}")


def import_adapters(
    bundle: BundlePath,
    adapter: Annotated[Path, typer.Argument(help="Folder of a PEFT adapter.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write.")] = Path(
        "adapted.edgefl"
    ),
    prefix: Prefix = "",
    as_json: AsJson = False,
) -> None:
    """Write a bundle with the factors of a PEFT adapter; it was converted with lora: for the same modules."""
    from edgefl.converters.peft import import_peft

    check_folder(output)
    import_peft(open_bundle(bundle), adapter, prefix=prefix).save(output)
    if as_json:
        print_json({"bundle": str(output), "bytes": output.stat().st_size})
        return
    print_line(f"{output}: {size(output.stat().st_size)}")


def _modules(config: dict[str, object]) -> str:
    targets = config["target_modules"]
    count = len(targets) if isinstance(targets, list) else str(targets).count("|") + 1
    saved = config["modules_to_save"]
    return f"{count} modules" + (f", {', '.join(saved)} in full" if isinstance(saved, list) else "")
