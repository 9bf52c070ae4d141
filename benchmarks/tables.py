# SPDX-License-Identifier: Apache-2.0
"""Tables for the docs, written between marks by the benchmark that made their figures."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> str:
    """A Markdown table whose first `left` columns are aligned to the left."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [head, rule, *rows])


def between(text: str, name: str, content: str) -> str:
    """The text with what is between `<!-- name -->` and `<!-- /name -->` replaced.

    Raises:
        ValueError: the marks are missing.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, opened, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"no place for {name!r}: {begin!r} and {end!r} are needed")
    return f"{before}{begin}\n{content}\n\n{end}{after}"
