# SPDX-License-Identifier: Apache-2.0
"""Examples as people have them: arrays, tables, folders of images or recordings, data sets of frameworks.

NumPy and the standard library read arrays, CSV, wav and `.npy`, so a device does too; Parquet needs pyarrow
and images need Pillow.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.data import MAX_DATA_BYTES, Examples, Wanted, load_examples, named_examples
from edgefl.errors import DataError
from edgefl.options import DataOptions

TABLES = (".csv", ".tsv", ".parquet")


def read(
    source: Any,
    wanted: Wanted | None = None,
    how: DataOptions | None = None,
    *,
    labelled: bool = True,
    max_bytes: int = MAX_DATA_BYTES,
) -> Examples:
    """Examples from whatever holds them.

    Args:
        source: a path (`.npz`, `.csv`, `.tsv`, `.parquet`, a folder with one folder per class, a folder of
            `.npy`), `Examples`, `(x, y)`, arrays by name, or anything that gives examples or batches one
            after the other: a torch `DataLoader`, a `tf.data.Dataset`, a `datasets.Dataset`, a generator.
        wanted: the model they are for, a bundle's manifest: tells batches from examples and how many
            classes there are. Whoever trains checks the examples against it all the same.
        how: which columns, which classes, what size.
        labelled: whether there must be labels.
        max_bytes: most that is kept in memory.

    Raises:
        DataError: it cannot be read; says which file, row and column.
        MissingDependency: reading it needs a package that is not installed.
    """
    how = how or DataOptions()
    if isinstance(source, str | os.PathLike):
        found = _from_path(Path(source), wanted, how, labelled, max_bytes)
    elif isinstance(source, Examples):
        found = source
    elif isinstance(source, Mapping):
        found = named_examples(source, "the mapping", labelled=False)
    elif isinstance(source, tuple) and len(source) in (2, 3):
        found = Examples(*source)
    elif isinstance(source, Iterable):
        from edgefl.readers.iterables import read_iterable

        found = read_iterable(source, wanted, how, max_bytes)
    else:
        raise DataError(f"{type(source).__name__} holds no examples: give a path, arrays or an iterable")
    if labelled and found.y is None:
        raise DataError("the examples have no labels")
    return _scaled(found, how)


def _from_path(
    path: Path, wanted: Wanted | None, how: DataOptions, labelled: bool, max_bytes: int
) -> Examples:
    if path.is_dir():
        from edgefl.readers.folders import read_folder

        return read_folder(path, wanted, how, labelled, max_bytes)
    if path.suffix.lower() in TABLES:
        from edgefl.readers.tables import read_table

        return read_table(path, wanted, how, labelled, max_bytes)
    return load_examples(path, labelled=labelled, max_bytes=max_bytes)


def _scaled(examples: Examples, how: DataOptions) -> Examples:
    """Numbers of inputs times `scale` plus `offset`, where those are asked for; integers become float32."""
    if how.scale == 1.0 and how.offset == 0.0:
        return examples

    def scaled(value: Any) -> Any:
        return np.asarray(value, np.float32) * np.float32(how.scale) + np.float32(how.offset)

    x: Any = examples.x
    return replace(examples, x={n: scaled(v) for n, v in x.items()} if isinstance(x, Mapping) else scaled(x))
