# SPDX-License-Identifier: Apache-2.0
"""Under which names a PyTorch module holds its tensors: one of many, or none at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_DEPTH = 3  # lists in dictionaries in lists
_UNREGISTERED = (
    "PyTorch does not register what lies in plain lists, dictionaries and attributes; use ModuleList, "
    "ModuleDict, ParameterList or Parameter"
)


def places_of(model: Any, values: Mapping[str, Any]) -> dict[str, str]:
    """Each place that holds one of the tensors, once, and the tensor's name in `values`.

    A tensor may lie in several modules, and a module under several names: the latter is one place, which must
    not be filled twice, since what fills it last is what is found there when it is emptied.
    """
    named = {id(tensor): name for name, tensor in values.items()}
    return {
        f"{prefix}.{name}" if prefix else name: named[id(tensor)]
        for prefix, module in model.named_modules()
        for name, tensor in _own(module)
        if id(tensor) in named
    }


def other_names(model: Any, values: Mapping[str, Any]) -> dict[str, str]:
    """The names beside those in `values` under which the model's `state_dict` has the tensors too."""
    named = {id(tensor): name for name, tensor in values.items()}
    every = (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    )
    return {n: named[id(v)] for n, v in every if id(v) in named and n not in values}


def strays(model: Any, constants: Sequence[Any]) -> dict[str, str]:
    """Tensors with a gradient that modules hold without registering them and that were traced as constants.

    Each by the path to it, with the reason.
    """
    import torch

    known = {id(tensor) for module in model.modules() for _, tensor in _own(module)}
    found = {
        path: tensor
        for prefix, module in model.named_modules()
        for path, tensor in _hidden(vars(module), prefix, set(map(id, model.modules())), _DEPTH)
        if tensor.requires_grad and id(tensor) not in known
    }
    return {
        path: _UNREGISTERED
        for path, tensor in found.items()
        if any(c.shape == tensor.shape and torch.equal(c, tensor.detach()) for c in constants)
    }


def _own(module: Any) -> Iterator[tuple[str, Any]]:
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    yield from module.named_buffers(recurse=False, remove_duplicate=False)


def _hidden(held: Any, path: str, known: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    """The tensors in a value, and in the modules in it that the model does not know."""
    import torch

    if isinstance(held, torch.Tensor):
        yield path, held
    elif isinstance(held, torch.nn.Module) and id(held) not in known:
        for name, tensor in held.named_parameters():
            yield f"{path}.{name}", tensor
    elif isinstance(held, Mapping) and depth:
        for key, value in held.items():
            if not (isinstance(key, str) and key in ("_parameters", "_buffers", "_modules")):
                yield from _hidden(value, f"{path}.{key}" if path else str(key), known, depth - 1)
    elif isinstance(held, (list, tuple)) and depth:
        for index, value in enumerate(held):
            yield from _hidden(value, f"{path}.{index}", known, depth - 1)
