# SPDX-License-Identifier: Apache-2.0
"""A bundle's weights, written into the Keras or PyTorch model it was converted from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefl.bundle import Bundle
from edgefl.converters.adapters import Adapter, factors, of_manifest
from edgefl.converters.sources.forward import parameter_names
from edgefl.converters.sources.functions import framework_of
from edgefl.errors import SourceError
from edgefl.graph.model import Array

_SHOWN = 8


@dataclass(frozen=True)
class Loaded:
    """What `load_into` did, by parameter names of the bundle.

    Attributes:
        written: what the model has from the bundle now.
        merged: those among them that got the product of their LoRA factors added.
        kept: what the bundle holds no values of, and the model still has its own: frozen weights in few bits,
            and all frozen ones where the bundle is a slice.
    """

    written: tuple[str, ...]
    merged: tuple[str, ...]
    kept: tuple[str, ...]


def load_into(model: Any, bundle: Bundle, *, merge: bool = False) -> Loaded:
    """Write a bundle's weights, BatchNorm's running statistics included, into the model it was made from.

    Nothing is written unless everything fits. Tensors that the model holds under several names are written
    once, which all names see.

    Args:
        model: the Keras 3 model or `torch.nn.Module`, built.
        bundle: made from this model or one like it. For what a trainer holds, give
            `bundle.with_parameters(trainer.parameters(), version)`.
        merge: add the products of LoRA factors to their weights. A weight that the bundle holds no values of
            takes the product on top of the model's own, which then has to be what the bundle was made from.

    Raises:
        SourceError: the model is neither, or the bundle's parameters are not the model's; what does not fit
            is listed.
    """
    framework = framework_of(model)
    if not framework:
        raise SourceError(f"a {type(model).__name__} is no Keras model and no torch.nn.Module to load into")
    # A merged bundle's factors are in its weights already, and its manifest names none.
    adapters = of_manifest(bundle.manifest)
    _check_same_model(bundle, adapters, merge)
    held = _held(model, framework)
    values, gone = bundle.parameters(), set(factors(adapters))
    parameters = [p for p in bundle.manifest.parameters if p.name not in gone]
    _check_fits({p.name: p.shape for p in parameters}, {n: tuple(t.shape) for n, t in held.items()})
    for adapter in adapters:
        base = values.get(adapter.weight)
        base = _array(held[adapter.weight]) if base is None else base
        values[adapter.weight] = adapter.merged(base, values[adapter.down], values[adapter.up])
    written = {p.name: values[p.name] for p in parameters if p.name in values}
    _write(framework, held, written)
    kept = tuple(p.name for p in parameters if p.name not in values)
    return Loaded(tuple(written), tuple(a.weight for a in adapters), kept)


def _check_same_model(bundle: Bundle, adapters: Iterable[Adapter], merge: bool) -> None:
    name, provenance = bundle.manifest.name, bundle.manifest.provenance
    if str(provenance.get("batch_norm", "")).startswith("group"):
        raise SourceError(
            f"bundle {name!r} was converted with batch_norm='group': it normalises by groups, the model by "
            "running statistics; replace these layers in the model and convert it anew"
        )
    weights = [a.weight for a in adapters]
    if weights and not merge:
        raise SourceError(
            f"bundle {name!r} has LoRA factors, which the model has no place for: give merge=True to add "
            f"them to {_some(weights)}"
        )


def _held(model: Any, framework: str) -> dict[str, Any]:
    """The model's tensors by the names a bundle has for them."""
    if framework == "keras":
        from edgefl.converters.sources import keras as source
    else:
        from edgefl.converters.sources import pytorch as source  # type: ignore[no-redef]
    own = source.held(model)
    names = parameter_names(own)
    return {names[name]: tensor for name, tensor in own.items()}


def _check_fits(bundle: Mapping[str, tuple[int, ...]], model: Mapping[str, tuple[int, ...]]) -> None:
    rows = [
        *(f"the model has no {name} {shape}" for name, shape in bundle.items() if name not in model),
        *(f"the bundle has no {name} {shape}" for name, shape in model.items() if name not in bundle),
        *(
            f"{name} is {shape} in the bundle, {model[name]} in the model"
            for name, shape in bundle.items()
            if model.get(name, shape) != shape
        ),
    ]
    if rows:
        raise SourceError(f"the bundle's parameters are not the model's: {_some(rows, '; ')}")


def _some(rows: list[str], mark: str = ", ") -> str:
    more = f"{mark}and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return mark.join(rows[:_SHOWN]) + more


def _array(tensor: Any) -> Array:
    """A tensor's value as float32."""
    detached = tensor.detach().cpu() if hasattr(tensor, "detach") else tensor
    return np.asarray(detached, np.float32)


def _write(framework: str, held: Mapping[str, Any], values: Mapping[str, Array]) -> None:
    if framework == "keras":
        for name, value in values.items():
            held[name].assign(value)
        return
    import torch

    with torch.no_grad():
        for name, value in values.items():
            held[name].copy_(torch.from_numpy(value))
