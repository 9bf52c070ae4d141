# SPDX-License-Identifier: Apache-2.0
"""What to train: from a selection such as `last:2` or `head.*,!*.bias` to a role for every parameter."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from edgefl.errors import SelectionError
from edgefl.parameters import Role

Selection = str | Sequence[str] | Callable[[str], bool]
"""`all`, `last:N`, `bias`, `norm`, globs (comma-separated or a list, `!` excludes), or a predicate."""

UNTRAINED = "the model itself does not train it (requires_grad, trainable)"

_NORM = re.compile(r"norm|(^|[._/])(bn|ln)[^a-z]*([._/]|$)", re.IGNORECASE)


def select(
    names: Sequence[str],
    trainable: Collection[str],
    spec: Selection = "all",
    *,
    personal: Selection | None = None,
    buffers: Collection[str] = (),
    aliases: Mapping[str, str] | None = None,
) -> dict[str, Role]:
    """The role of every parameter.

    Args:
        names: all parameters and buffers, in the model's order.
        trainable: those the framework would train; nothing else can be selected.
        spec: what is trained and shared.
        personal: what is trained and never leaves the device, whether `spec` names it or not.
        buffers: state that no gradient changes.
        aliases: names the model has beside those in `names`, to the latter; they select nothing, but errors
            know them.

    Raises:
        SelectionError: a pattern matches nothing, or nothing is left to train.
    """
    candidates = [name for name in names if name in trainable]
    known = {**(aliases or {}), **dict.fromkeys(names, "")}
    kept = set() if personal is None else set(chosen(candidates, personal, known))
    shared = set(chosen(candidates, spec, known)) - kept
    if not shared and not kept:
        raise SelectionError(f"trainable={spec!r} selects none of the {len(candidates)} trainable parameters")
    if not shared:
        raise SelectionError(
            f"personal={personal!r} takes all {len(kept)} parameters that are trained: nothing is left to "
            "share, and there is no federation without"
        )

    def role(name: str) -> Role:
        if name in kept:
            return "personal"
        if name in shared:
            return "shared"
        return "buffer" if name in buffers else "frozen"

    return {name: role(name) for name in names}


def passed_over(
    names: Sequence[str], trainable: Collection[str], spec: Selection, buffers: Collection[str] = ()
) -> list[str]:
    """The parameters that a selection names and that the model itself does not train.

    `*`, `all` and other words for groups mean what the model trains; a pattern or predicate means what it
    matches.
    """
    held = [name for name in names if name not in trainable and name not in buffers]
    if callable(spec):
        return [name for name in held if spec(name)]
    patterns = [p.strip() for p in (spec.split(",") if isinstance(spec, str) else spec)]
    matched = [p for p in patterns if p != "*" and not p.startswith("!")]
    excluded = [p[1:] for p in patterns if p.startswith("!")]
    return [n for n in held if _any(n, matched) and not _any(n, excluded)]


def misnamed(roles: Mapping[str, Role], aliases: Mapping[str, str], spec: Selection) -> dict[str, str]:
    """Frozen parameters that a selection names by the model's own name for them, and what to write."""
    asked = passed_over(list(aliases), (), spec)
    frozen = {own: aliases[own] for own in asked if roles.get(aliases[own]) == "frozen"}
    return {name: f"its name in the bundle is this one, not {own}" for own, name in frozen.items()}


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def layer_of(name: str) -> str:
    """The layer a parameter belongs to: its name up to the last `.` or `/`."""
    return re.sub(r"(^|[./])[^./]*$", "", name)


def chosen(candidates: Sequence[str], spec: Selection, names: Mapping[str, str]) -> list[str]:
    """Those of the candidates that a selection names.

    Args:
        names: all names there are, second ones to the first; errors, which are those of `select`, know them.
    """
    if callable(spec):
        return [name for name in candidates if spec(name)]
    patterns = [p.strip() for p in (spec.split(",") if isinstance(spec, str) else spec)]
    if not patterns or not all(patterns):
        raise SelectionError(f"empty pattern in {spec!r}: give {_HELP}")
    positive = [p for p in patterns if not p.startswith("!")]
    wanted = {n for p in positive or ["all"] for n in _matching(candidates, p, names)}
    excluded = {n for p in patterns if p.startswith("!") for n in _matching(candidates, p[1:], names)}
    return [name for name in candidates if name in wanted - excluded]


_HELP = "'all', 'last:N', 'bias', 'norm' or patterns of parameter names such as 'head.*' or '!*.bias'"


def _matching(candidates: Sequence[str], pattern: str, names: Mapping[str, str]) -> list[str]:
    if pattern == "all":
        return list(candidates)
    if pattern.startswith("last:"):
        return _last(candidates, pattern)
    if pattern in _GROUPS:
        found = [name for name in candidates if _GROUPS[pattern](name)]
    else:
        found = [name for name in candidates if fnmatchcase(name, pattern)]
    if not found:
        raise SelectionError(_nothing(candidates, pattern, names))
    return found


def _is_bias(name: str) -> bool:
    last = name[len(layer_of(name)) :].lstrip("./")
    return last.startswith("bias") or last == "beta"


def _is_norm(name: str) -> bool:
    return name.endswith(("gamma", "beta")) or bool(_NORM.search(layer_of(name)))


_GROUPS = {"bias": _is_bias, "norm": _is_norm}


def _last(candidates: Sequence[str], pattern: str) -> list[str]:
    """The parameters of the last N layers that have trainable ones."""
    layers = list(dict.fromkeys(map(layer_of, candidates)))
    text = pattern.removeprefix("last:")
    if not text.isdecimal() or not 1 <= int(text) <= len(layers):
        raise SelectionError(
            f"{pattern!r}: N has to be from 1 to {len(layers)}, the trainable layers there are"
        )
    kept = layers[-int(text) :]
    return [name for name in candidates if layer_of(name) in kept]


def _nothing(candidates: Sequence[str], pattern: str, names: Mapping[str, str]) -> str:
    """Why a pattern matches nothing; `names` are all there are, an alias with what it stands for."""
    beyond = [name for name in names if name not in candidates and fnmatchcase(name, pattern)]
    same = [f"{name} is {names[name]}" for name in beyond if names[name]]
    if same:
        return f"{pattern!r} matches only second names of parameters, use the first: {', '.join(same[:5])}"
    if beyond:
        return f"{pattern!r} matches only parameters the model does not train: {', '.join(beyond[:5])}"
    near = difflib.get_close_matches(pattern, [*candidates, *map(layer_of, candidates)], n=5, cutoff=0.4)
    shown = list(dict.fromkeys(near)) or list(candidates[:5])
    return f"no trainable parameter matches {pattern!r}; near it: {', '.join(shown)}; give {_HELP}"
