# SPDX-License-Identifier: Apache-2.0
"""`edgefl store`: the examples a device keeps, by hand."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgefl.cli.options import AsJson, DataPath, check_folder, open_bundle
from edgefl.cli.output import print_json, print_line, print_rows, size
from edgefl.errors import OptionError
from edgefl.options import DataOptions, StoreOptions
from edgefl.plain import moment

if TYPE_CHECKING:
    from edgefl.runtime.store import ExampleStore

StorePath = Annotated[Path, typer.Argument(help="The store's file.", show_default=False)]
KeyFile = Annotated[
    Path | None,
    typer.Option("--store-key", help="File with the key of an encrypted store: 32 bytes, or as 64 digits."),
]


def add(
    store: StorePath,
    data: DataPath,
    reading: DataOptions,
    limits: StoreOptions,
    bundle: Annotated[
        Path | None, typer.Option(help="The model they are for; needed once, to make the store.")
    ] = None,
    key: Annotated[str, typer.Option(help="What they belong to, for `forget --key`.")] = "",
    store_key: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Add examples to a store, which is made where there is none. Limits that are given hold from now on."""
    from edgefl.readers import read

    with _opened(store, store_key, bundle, None if limits == StoreOptions() else limits) as opened:
        examples = read(data, opened.layout, reading)
        new = opened.extend(examples, key=key)
        result = {"store": str(store), "given": len(examples), "new": new, "examples": len(opened)}
    if as_json:
        print_json(result)
        return
    print_line(f"{store}: {new} of {len(examples)} examples are new; it holds {result['examples']}")


def info(store: StorePath, store_key: KeyFile = None, as_json: AsJson = False) -> None:
    """How many examples a store holds, of which classes, since when, and its limits."""
    with _opened(store, store_key) as opened:
        found = opened.info()
    if as_json:
        print_json(asdict(found))
        return
    sealed = "encrypted, " if found.sealed else ""
    print_line(
        f"{store}: {found.examples} examples of {found.ever_added} ever added, {sealed}"
        f"{size(found.bytes)}, {size(found.file_bytes)} on disk"
    )
    print_line(f"each     {found.tensors}")
    if found.oldest is not None and found.newest is not None:
        print_line(f"added    {moment(found.oldest, False)} to {moment(found.newest, False)}")
    limits = ", ".join(f"{name} {value}" for name, value in found.limits.items() if value)
    print_line(f"limits   {limits or 'none'}")
    if any(found.labels):
        print_rows("", ["class", "examples"], found.labels.items())


def forget(
    store: StorePath,
    key: Annotated[str | None, typer.Option(help="Those added with this key.")] = None,
    label: Annotated[str | None, typer.Option(help="Those of this class.")] = None,
    before: Annotated[
        str | None, typer.Option(help="Those added before, such as 2026-11-01 or 2026-11-01T22:30.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    store_key: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Delete examples that fit all that is given, with the features and checkpoints made of them."""
    given: dict[str, Any] = {
        "key": key,
        "label": label,
        "before": float("inf") if everything else before and _read_moment(before),
    }
    with _opened(store, store_key) as opened:
        count = opened.forget(**{name: value for name, value in given.items() if value is not None})
        left = len(opened)
    if as_json:
        print_json({"store": str(store), "forgotten": count, "examples": left})
        return
    print_line(f"{store}: {count} examples are forgotten; it holds {left}")


def export(
    store: StorePath,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz file to write.")],
    store_key: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Write a store's examples as .npz, which every command takes."""
    import numpy as np

    check_folder(output)
    with _opened(store, store_key, memory_bytes=1 << 40) as opened:
        examples = opened.take()
    arrays: Any = {**dict(examples.x), **examples.y, "weight": examples.weight}
    with output.open("wb") as file:
        np.savez(file, **arrays)
    if as_json:
        print_json({"store": str(store), "file": str(output), "examples": len(examples)})
        return
    print_line(f"{output}: {len(examples)} examples, not encrypted")


def _opened(
    store: Path,
    key: Path | None,
    bundle: Path | None = None,
    limits: StoreOptions | None = None,
    **options: Any,
) -> ExampleStore:
    from edgefl.runtime.store import ExampleStore, cipher_from

    wanted = None if bundle is None else open_bundle(bundle)
    if wanted is None and not store.exists():
        raise OptionError(f"there is no store {store}; `edgefl store add --bundle` makes one")
    return ExampleStore(store, wanted, limits, cipher=cipher_from(key), **options)


def _read_moment(text: str) -> float:
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError as exc:
        raise OptionError(f"--before {text}: write a date such as 2026-11-01 or 2026-11-01T22:30") from exc
