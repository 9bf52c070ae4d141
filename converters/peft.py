# SPDX-License-Identifier: Apache-2.0
"""LoRA factors in the files of Hugging Face's PEFT: `adapter_config.json` and `adapter_model.safetensors`.

PEFT names a factor by its module and turns dense factors and tables round:

| | edgefl | PEFT |
|---|---|---|
| dense | `M.weight.lora_a` [in, r], `lora_b` [r, out] | `M.lora_A.weight` [r, in], `lora_B.weight` [out, r] |
| convolution | [r, in, ...kernel], [out, r, 1, ...] | the same, with as many axes as the weight |
| embedding | [rows, r], [r, width] | `M.lora_embedding_A` [r, rows], `lora_embedding_B` [width, r] |

All of PEFT's names begin with `base_model.model.`. Written by hand, so that neither PEFT nor torch is needed.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.bundle import Bundle
from edgefl.converters.adapters import Adapter, factors, of_manifest
from edgefl.errors import ConversionError
from edgefl.files import write_atomically
from edgefl.graph.model import Array
from edgefl.parameters import Parameter
from edgefl.strictjson import parse
from edgefl.tensorfile import read_tensors, write_tensors

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_BASE = "base_model.model."
_SUFFIXES = {
    "MatMul": ("lora_A.weight", "lora_B.weight"),
    "Conv": ("lora_A.weight", "lora_B.weight"),
    "Gather": ("lora_embedding_A", "lora_embedding_B"),
}
_FOREIGN = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "alora_invocation_tokens", "target_parameters",
    "trainable_token_indices", "layer_replication", "kasa_config", "monteclora_config", "arrow_config",
)  # fmt: skip
"""Settings under which PEFT computes something else than `x A B s` beside a weight."""
_STARTS = ("gaussian", "eva", "orthogonal")
"""Where factors may begin without the base weights being changed."""


def export_peft(bundle: Bundle, folder: str | os.PathLike[str], *, prefix: str = "") -> dict[str, Any]:
    """Write a bundle's factors as a PEFT adapter; what is trained in full becomes `modules_to_save`.

    Args:
        bundle: converted from a PyTorch module with `lora:`.
        folder: made where there is none.
        prefix: what parameter names begin with beyond those of the module that PEFT is given, such as
            `model.` where a wrapper was converted.

    Returns:
        The adapter's configuration.

    Raises:
        ConversionError: the bundle has no factors, or trains what PEFT has no place for.
    """
    places = _places(bundle, prefix)
    values, parameters = bundle.parameters(), {p.name: p for p in bundle.manifest.parameters}
    tensors: dict[str, Array] = {}
    for module, adapter in places.items():
        made = _to_peft(adapter, values, parameters[adapter.weight].shape)
        tensors |= {f"{module}.{suffix}": value for suffix, value in made.items()}
    modules, saved, biases = _beside(bundle, places, prefix)
    tensors |= {_peft_name(name[len(prefix) :], places): values[name] for name in (*saved, *biases)}
    config = _config(bundle, places, modules, bool(biases), prefix)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    data = write_tensors({_BASE + name: value for name, value in tensors.items()}, {"format": "pt"})
    write_atomically(target / TENSORS, data)
    write_atomically(target / CONFIG, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())
    return config


def import_peft(bundle: Bundle, folder: str | os.PathLike[str], *, prefix: str = "") -> Bundle:
    """The bundle with a PEFT adapter's factors, and what the adapter saves in full.

    A lower rank than the bundle's is filled up with zeros, another scale goes into the second factor, and
    factors that the adapter has not become zero: the model is PEFT's exactly.

    Args:
        bundle: converted with `lora:` patterns that match the adapter's modules, and with its rank or a
            higher one.
        prefix: as for `export_peft`.

    Raises:
        ConversionError: the adapter is of another kind, or does not fit; what does not is listed.
    """
    config, tensors = _read(Path(folder))
    places, values = _places(bundle, prefix), bundle.parameters()
    shapes = {p.name: p.shape for p in bundle.manifest.parameters}
    changed: dict[str, Array] = {}
    problems: list[str] = []
    for module, adapter in places.items():
        pair = [tensors.pop(f"{module}.{suffix}", None) for suffix in _SUFFIXES[adapter.kind]]
        try:
            scale = _scale(config, module)
            changed |= _from_peft(adapter, pair, scale, values, shapes[adapter.weight])
        except ValueError as exc:
            problems.append(f"{module}: {exc}")
    for name, value in tensors.items():
        problem = _set(bundle, prefix + name, value, values, changed)
        problems += [f"{name}: {problem}"] if problem else []
    if problems:
        raise ConversionError(
            f"{os.fspath(folder)} does not fit bundle {bundle.manifest.name!r}: {'; '.join(problems)}"
        )
    return bundle.with_parameters(changed, bundle.manifest.model_version)


# -- names


def _places(bundle: Bundle, prefix: str) -> dict[str, Adapter]:
    """The adapters by PEFT's name for their modules."""
    adapters = of_manifest(bundle.manifest)
    if not adapters:
        raise ConversionError(
            f"bundle {bundle.manifest.name!r} has no LoRA factors; convert with trainable='lora:rank=R'"
        )
    odd = [a.weight for a in adapters if not re.fullmatch(re.escape(prefix) + r".+\.weight", a.weight)]
    if odd:
        raise ConversionError(
            f"PEFT puts factors beside the weight of a PyTorch module, which {', '.join(odd)} is not"
            + (f" with the prefix {prefix!r}" if prefix else "")
        )
    return {_module(a.weight[len(prefix) :]): a for a in adapters}


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _peft_name(name: str, places: Mapping[str, Adapter]) -> str:
    """PEFT's name for a parameter; that of a module with factors is one level down."""
    module, _, leaf = name.rpartition(".")
    return f"{module}.base_layer.{leaf}" if module in places else name


# -- going out


def _to_peft(adapter: Adapter, values: Mapping[str, Array], shape: tuple[int, ...]) -> dict[str, Array]:
    down, up = values[adapter.down], values[adapter.up]
    if adapter.kind == "Conv":
        rank, axes = down.shape[0], len(shape) - 2
        pair = down.reshape(rank, *shape[1:]), up.reshape(shape[0], rank, *(1,) * axes)
    else:
        pair = down.T, up.T
    return dict(zip(_SUFFIXES[adapter.kind], pair, strict=True))


def _beside(
    bundle: Bundle, places: Mapping[str, Adapter], prefix: str
) -> tuple[list[str], list[str], list[str]]:
    """What is trained in full: modules that PEFT saves whole, their parameters, and biases beside factors."""
    trained = [p.name for p in bundle.manifest.trained if p.name not in set(factors([*places.values()]))]
    biases = [n for n in trained if n.endswith(".bias") and _module(n[len(prefix) :]) in places]
    modules = dict.fromkeys(_module(n[len(prefix) :]) for n in trained if n not in biases)
    values, saved = bundle.parameters(), list[str]()
    for module in modules:
        parts = [p.name for p in bundle.manifest.parameters if p.name.startswith(f"{prefix}{module}.")]
        missing = [name for name in parts if name not in values]
        within = [name for name in places if name == module or name.startswith(f"{module}.")]
        if not module or missing or within or _others(bundle, module, prefix):
            raise ConversionError(
                f"PEFT saves what is trained in full by whole modules, and module {module!r} "
                + _why_not(module, missing, within)
            )
        saved += parts
    return list(modules), list(dict.fromkeys(saved)), biases


def _why_not(module: str, missing: list[str], within: list[str]) -> str:
    if not module:
        return "is the model itself"
    if missing:
        return f"has weights that the bundle holds no values of: {', '.join(missing)}"
    if within:
        return f"has factors too, beside {', '.join(within)}"
    return "cannot be told from others whose names end alike"


def _others(bundle: Bundle, module: str, prefix: str, mark: str = "") -> bool:
    """Whether PEFT would take another module for this one, since its name ends in the same words."""
    paths = [p.name[len(prefix) :].split(".") for p in bundle.manifest.parameters]
    known = {".".join(path[:count]) for path in paths for count in range(1, len(path))}
    return any(name.endswith(mark + module) for name in known - {module})


def _config(
    bundle: Bundle, places: Mapping[str, Adapter], saved: list[str], biases: bool, prefix: str
) -> dict[str, Any]:
    first = next(iter(places.values()))
    shape = {p.name: p.shape for p in bundle.manifest.parameters}[first.down]
    rank = shape[0] if first.kind == "Conv" else shape[1]
    alpha = first.scale * rank
    ambiguous = any(_others(bundle, module, prefix, ".") for module in places)
    dense = [a for a in places.values() if a.kind == "MatMul"]
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "bias": "all" if biases else "none",
        "fan_in_fan_out": any(not a.layout for a in dense),
        "target_modules": "|".join(map(re.escape, places)) if ambiguous else list(places),
        "modules_to_save": saved or None,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
    }


# -- coming in


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """The configuration, and tensors by their names in the base model."""
    try:
        config = parse((folder / CONFIG).read_bytes(), ConversionError, CONFIG)
        found = read_tensors((folder / TENSORS).read_bytes())
    except OSError as exc:
        raise ConversionError(f"{folder} is no PEFT adapter with {CONFIG} and {TENSORS}: {exc}") from exc
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ConversionError(f"{folder / CONFIG} is not of peft_type LORA")
    foreign = [key for key in _FOREIGN if config.get(key)]
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start not in _STARTS:
        foreign.append(f"init_lora_weights={start}")
    if foreign:
        raise ConversionError(f"{folder / CONFIG} has {', '.join(foreign)}, which edgefl's LoRA has not")
    tensors = {}
    for key, value in found.items():
        if not key.startswith(_BASE):
            raise ConversionError(f"{folder / TENSORS} has {key!r}; PEFT's names begin with {_BASE!r}")
        if ".original_module." not in key:
            name = key[len(_BASE) :].replace(".base_layer.", ".").replace(".modules_to_save.", ".")
            tensors[name] = value.astype(np.float32)
    return config, tensors


def _scale(config: Mapping[str, Any], module: str) -> float:
    """What PEFT multiplies the product with: `alpha / r`, or over its root, by a pattern or for all."""
    rank = float(_for_module(config, "rank_pattern", module) or config.get("r", 8))
    alpha = float(_for_module(config, "alpha_pattern", module) or config.get("lora_alpha", 8))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _for_module(config: Mapping[str, Any], key: str, module: str) -> Any:
    patterns: Mapping[str, Any] = config.get(key) or {}
    return next((v for pattern, v in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module)), None)


def _from_peft(
    adapter: Adapter,
    pair: list[Array | None],
    scale: float,
    values: Mapping[str, Array],
    shape: tuple[int, ...],
) -> dict[str, Array]:
    """The factors in the bundle's layout; raises ValueError with what does not fit."""
    down, up = values[adapter.down], values[adapter.up]
    first, second = pair
    if first is None and second is None:
        return {adapter.up: np.zeros_like(up)}
    if first is None or second is None:
        raise ValueError("has one factor without the other")
    one, two = (value.shape for value in _to_peft(adapter, values, shape).values())
    rank, most = first.shape[0], one[0]
    if first.shape != (rank, *one[1:]) or second.shape != (two[0], rank, *two[2:]):
        raise ValueError(f"factors {first.shape} and {second.shape}, expected {one} and {two}")
    if rank > most:
        raise ValueError(f"rank {rank}, the bundle has room for {most}: convert with lora:rank={rank}")
    first = np.pad(first, [(0, most - rank), *[(0, 0)] * (first.ndim - 1)])
    second = np.pad(second, [(0, 0), (0, most - rank), *[(0, 0)] * (second.ndim - 2)])
    second = (second * (scale / adapter.scale)).astype(np.float32)
    if adapter.kind == "Conv":
        return {adapter.down: first.reshape(down.shape), adapter.up: second.reshape(up.shape)}
    return {adapter.down: np.ascontiguousarray(first.T), adapter.up: np.ascontiguousarray(second.T)}


def _set(
    bundle: Bundle, name: str, value: Array, values: Mapping[str, Array], changed: dict[str, Array]
) -> str:
    """Take a parameter that the adapter holds in full; why not, where it cannot be taken."""
    known: Parameter | None = next((p for p in bundle.manifest.parameters if p.name == name), None)
    if known is None:
        return "the bundle has no such parameter or factor; convert with patterns that match it"
    if value.shape != known.shape:
        return f"shape {value.shape}, expected {known.shape}"
    if known.role in ("shared", "personal"):
        changed[name] = value
        return ""
    if name in values and np.array_equal(values[name], value):
        return ""
    return f"it is {known.role} in the bundle; convert with it among what is trained"
