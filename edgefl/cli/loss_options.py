# SPDX-License-Identifier: Apache-2.0
"""Losses and labels as they are written on the command line."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefl.errors import OptionError

if TYPE_CHECKING:
    from edgefl.bundle import TensorSpec

LOSS_FORM = "[OUTPUT=][SHARE*]NAME or [OUTPUT=][SHARE*]module.py:function"
LABEL_FORM = "[OUTPUT=]DTYPE[:SIZES], such as int32, float32:3 or aux=float32:10,2"


def losses(texts: Sequence[str]) -> Any:
    """What `edgefl.convert(loss=)` takes: one loss, or losses by output.

    Raises:
        OptionError: several losses without the outputs they are for, or a share that is no number.
        SourceError: there is no such file or function.
    """
    found = _by_output(texts, "--loss", _loss)
    if "" in found:
        loss, share = found[""]
        if share != 1:
            raise OptionError(f"--loss {texts[0]!r}: a share counts among several losses; give [OUTPUT=]")
        return loss
    return found


def labels(texts: Sequence[str]) -> Any:
    """What `edgefl.convert(label=)` takes: None, one `TensorSpec`, or such by output; raises OptionError."""
    found = _by_output(texts, "--label", _label) if texts else {"": None}
    return found.get("", found)


def _by_output(texts: Sequence[str], option: str, read: Callable[[str], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in texts:
        head, equals, rest = text.partition("=")
        # In `huber:delta=0.5` the equals sign belongs to a setting.
        output, value = (head, rest) if equals and ":" not in head else ("", text)
        if output in found or (found and "" in (output, *found)):
            raise OptionError(f"{option} {text!r}: several need an output each, as in {option} OUTPUT=...")
        found[output] = read(value)
    return found


def _loss(text: str) -> tuple[Any, float]:
    share, star, name = text.rpartition("*")
    try:
        factor = float(share) if star else 1.0
    except ValueError:
        factor = math.nan
    if not factor >= 0:
        raise OptionError(f"--loss {text!r} is not of the form {LOSS_FORM}")
    path, _, function = name.rpartition(":")
    if not path.endswith(".py"):
        return name, factor
    from edgefl.converters.sources.load import load_attribute

    return load_attribute(Path(path), function), factor


def _label(text: str) -> TensorSpec:
    from edgefl.bundle import TensorSpec

    dtype, _, sizes = text.partition(":")
    try:
        shape = tuple(int(n) for n in sizes.split(",") if n)
    except ValueError:
        shape = (-1,)
    if dtype not in ("int32", "int64", "float32", "bool") or any(n < 1 for n in shape):
        raise OptionError(f"--label {text!r} is not of the form {LABEL_FORM}")
    return TensorSpec("y", (1, *shape), dtype)
