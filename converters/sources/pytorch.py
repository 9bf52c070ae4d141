# SPDX-License-Identifier: Apache-2.0
"""PyTorch: parameters become inputs by `torch.func.functional_call`, exported by `torch.onnx.export`."""

from __future__ import annotations

import contextlib
import copy
import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgefl.converters.instead import instead_of
from edgefl.converters.sources.attention_torch import fold_attention
from edgefl.converters.sources.dropout_torch import ALWAYS_OFF, keeping, mark_dropout, refuse_randomness
from edgefl.converters.sources.dropout_torch import translations as dropout_translations
from edgefl.converters.sources.forward import (
    Example,
    Forward,
    Statistics,
    assemble,
    dropout_note,
    example,
    output_names,
    parameter_names,
)
from edgefl.converters.sources.layers_torch import layer_at, name_nodes, noting
from edgefl.converters.sources.names_torch import other_names, places_of, strays
from edgefl.converters.sources.onnx_model import to_graph
from edgefl.converters.sources.stopping_torch import mark, marking, refusing_own_gradients, translations
from edgefl.converters.targets.quiet import quiet
from edgefl.errors import EdgeflError, SourceError
from edgefl.graph import OPSET
from edgefl.graph.model import TensorType


def load_pytorch(model: Any, example_inputs: object, *, batch_size: int, dropout: bool = False) -> Forward:
    """The forward pass of a `torch.nn.Module` in evaluation mode; the module is left as it was.

    `dropout` leaves dropout as operators of the graph.

    A dict of example inputs is passed as keyword arguments. Tied parameters are one parameter. Parameters
    with `requires_grad=False` are not trainable; integer buffers are constants.

    Raises:
        SourceError: torch cannot trace or export the module.
        UnsupportedOperator: see `onnx_model.to_graph`.
    """
    if example_inputs is None:
        raise SourceError(
            "a PyTorch module needs example_inputs: an array (or tuple, or dict) of the input's shape"
        )
    _refuse_projections(model)
    _refuse_own_statistics(model)
    spec = example(example_inputs, batch_size)
    return _load(_sharing(model), spec, _arguments(model.forward), type(model).__name__, dropout)


def load_exported(
    path: str | Path, example_inputs: object, *, batch_size: int, dropout: bool = False
) -> Forward:
    """The forward pass of a `.pt2` file of `torch.export.save`; its own example inputs serve by default."""
    import torch

    try:
        with quiet():
            program = torch.export.load(str(path))
            _evaluation_mode(program.graph, dropout)
            module = program.module(check_guards=False)
    except Exception as exc:
        raise SourceError(f"{path} is no program that torch.export.load reads: {_first_line(exc)}") from exc
    inputs = example_inputs if example_inputs is not None else _own_example(program)
    spec = example(inputs, batch_size)
    _check_batch(program, spec, batch_size)
    return _load(module, spec, (), Path(path).name, dropout)


def _sharing(model: Any) -> Any:
    """A copy with the same tensors: what a module keeps of a traced call must not stay in the user's."""
    tensors = {id(v): v for v in (*model.parameters(), *model.buffers())}
    try:
        return copy.deepcopy(model, tensors)
    except Exception:  # modules that hold files, locks, or tensors with a history cannot be copied
        return model


def _refuse_projections(model: Any) -> None:
    """The exporter leaves projections of an LSTM's states out without a word."""
    for name, module in model.named_modules():
        if getattr(module, "proj_size", 0) and hasattr(module, "hidden_size"):
            raise SourceError(
                f"{type(module).__name__} {name!r} has proj_size={module.proj_size}, which ONNX's LSTM "
                "does not have; use proj_size=0 and a Linear layer after it, or write the steps with LSTMCell"
            )


def _refuse_own_statistics(model: Any) -> None:
    """BatchNorm without running statistics takes those of the batch even at inference, padding included."""
    import torch

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise SourceError(
                f"{type(module).__name__} {name!r} has track_running_stats=False, so an example's output "
                "depends on the others in its batch and padded batches would not be exact; keep running "
                "statistics (with batch_norm='batch' the step takes the batch's), or use GroupNorm"
            )


def _load(model: Any, spec: Example, arguments: Sequence[str], name: str, dropout: bool) -> Forward:
    import torch

    values = held(model)
    names, places = parameter_names(values), places_of(model, values)
    trainable = {names[n] for n, p in model.named_parameters() if p.requires_grad}
    tensors = [v.detach().clone() for v in values.values()]
    keys: list[str] | None = None

    def forward(*flat: Any) -> list[Any]:
        nonlocal keys
        weights, data = dict(zip(values, flat, strict=False)), flat[len(values) :]
        kwargs = dict(zip(spec.keys, data, strict=True)) if spec.keys else {}
        bound = {place: weights[n] for place, n in places.items()}
        with marking():  # every place is named once, so torch need not find out which share a tensor
            made = torch.func.functional_call(
                model, bound, () if spec.keys else tuple(data), kwargs, tie_weights=False
            )
        flattened, keys = _flattened(made)
        return flattened

    labels = [f"parameter_{i}" for i in range(len(values))] + [f"data_{i}" for i in range(len(spec.types))]
    traced = export(_module(forward), (*tensors, *map(zeros, spec.types)), labels, model, name, dropout)
    graph = to_graph(traced.proto)
    data = spec.names(arguments)
    return assemble(
        graph,
        data=dict(zip(labels[len(values) :], data, strict=True)),
        parameters={
            names[n]: (label, v.detach().cpu().numpy())
            for label, (n, v) in zip(labels, values.items(), strict=False)
        },
        outputs=dict(zip(graph.outputs, output_names(keys, len(graph.outputs)), strict=True)),
        trainable=trainable,
        buffers={names[n] for n, _ in model.named_buffers() if n in names},
        provenance={
            "source": "pytorch",
            "framework": f"torch {torch.__version__}",
            "model": name,
            **_dropout(model, dropout),
        },
        statistics=_statistics(model, names),
        aliases={n: names[first] for n, first in other_names(model, values).items()},
        strays=strays(model, traced.constants),
    )


def held(model: Any) -> dict[str, Any]:
    """Parameters and float buffers by the module's first name for each."""
    return dict(model.named_parameters()) | {n: v for n, v in model.named_buffers() if v.is_floating_point()}


def _module(forward: Callable[..., Any]) -> Any:
    """A module without parameters that calls `forward`; what it calls holds none that are traced."""
    import torch

    class Stateless(torch.nn.Module):  # type: ignore[misc]
        def forward(self, *flat: Any) -> Any:
            return forward(*flat)

    return Stateless().eval()


@dataclass(frozen=True)
class Traced:
    """An exported module.

    Attributes:
        proto: the `onnx.ModelProto`.
        constants: the tensors that became constants of it.
    """

    proto: Any
    constants: tuple[Any, ...]


def export(
    stateless: Any, inputs: tuple[Any, ...], labels: list[str], model: Any, name: str, dropout: bool = False
) -> Traced:
    """The ONNX model of a module called on `inputs`, with `model` in evaluation mode meanwhile.

    `dropout` keeps dropout as if in training mode, as operators `edgefl.Dropout`.

    Raises:
        SourceError: torch cannot trace or export it; `name` says what it is.
    """
    import torch

    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(quiet("torch.onnx", "torch.export", "torch"))
            stack.enter_context(_evaluating(model))
            stack.enter_context(refusing_own_gradients())
            running = stack.enter_context(noting(model))
            if dropout:
                stack.enter_context(keeping(model))
            traced = torch.export.export(stateless, inputs)
            fold_attention(traced, dropout)
            mark(traced)
            if dropout:
                mark_dropout(traced)
            refuse_randomness(traced, dropout)
            program = torch.onnx.export(
                traced,
                input_names=labels,
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
                external_data=False,
                custom_translation_table={**translations(), **dropout_translations()},
            )
        proto = program.model_proto
        name_nodes(proto)
        return Traced(proto, tuple(traced.constants.values()))
    except Exception as exc:
        raise _explained(exc, name, running.layer) from exc


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode for a while, no fused attention, and no look at a mask's values to choose a kernel."""
    import torch

    training = {module: module.training for module in model.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    layers = torch.nn.modules.transformer
    looking = layers._detect_is_causal_mask
    try:
        layers._detect_is_causal_mask = lambda mask, is_causal=None, size=None: is_causal is True
        for module in training:
            module.training = False
        yield
    finally:
        layers._detect_is_causal_mask = looking
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, flag in training.items():
            module.training = flag


def zeros(type: TensorType) -> Any:
    """A tensor of zeros."""
    import torch

    return torch.zeros(type.shape, dtype=getattr(torch, type.dtype.name))


def _flattened(made: Any) -> tuple[list[Any], list[str] | None]:
    """Tensors out of what a module returns: a tensor, a sequence, or a mapping (its keys are names)."""
    import torch

    if isinstance(made, torch.Tensor):
        return [made], None
    if hasattr(made, "items"):
        found = [(key, value) for key, value in made.items() if isinstance(value, torch.Tensor)]
        return [value for _, value in found], [str(key) for key, _ in found]
    leaves = torch.utils._pytree.tree_leaves(made)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)], None


def _arguments(forward: Callable[..., Any]) -> tuple[str, ...]:
    """Names of a forward method's positional arguments."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(p.name for p in inspect.signature(forward).parameters.values() if p.kind in kinds)


def _statistics(model: Any, names: Mapping[str, str]) -> list[Statistics]:
    """Of the BatchNorm modules with running statistics.

    A momentum of None, torch's average over all batches so far, is taken as its default.
    """
    import torch

    found = []
    for prefix, module in model.named_modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            dot = f"{prefix}." if prefix else ""
            mean, variance = f"{dot}running_mean", f"{dot}running_var"
            momentum = 0.1 if module.momentum is None else float(module.momentum)
            if mean in names:  # modules used twice are named once
                found.append(Statistics(names[mean], names[variance], momentum, unbiased=True))
    return found


def _dropout(model: Any, keep: bool) -> dict[str, str]:
    """What evaluation mode switches off, for the report, and what was kept."""
    off = [n for n, m in model.named_modules() if "Dropout" in type(m).__name__ and getattr(m, "p", 0) > 0]
    off += [
        n
        for n, m in model.named_modules()
        if isinstance(getattr(m, "dropout", None), float) and m.dropout > 0
    ]
    named = dict(model.named_modules())
    kept = [n for n in off if keep and not any(word in type(named[n]).__name__ for word in ALWAYS_OFF)]
    return dropout_note(kept, set(off) - set(kept))


def _explained(exc: Exception, name: str, layer: str) -> Exception:
    """The innermost cause as an error of ours: in which layer, what, and what to do instead."""
    chain = [exc]
    while isinstance(chain[-1].__cause__, Exception):
        chain.append(chain[-1].__cause__)
    cause = chain[-1]
    layer = layer or next(filter(None, map(layer_at, chain)), "")
    if isinstance(cause, EdgeflError):
        return type(cause)(f"layer {layer}: {cause}") if layer and layer not in str(cause) else cause
    where = f"layer {layer} of {name}" if layer else f"torch.onnx.export cannot export {name}"
    return SourceError(f"{where}: {_reason(cause)}")


def _reason(cause: Exception) -> str:
    """What was wrong, in one line, where in the model's code, and what to do."""
    missing = re.search(r"No ONNX function found for <OpOverload\(op='([^']*)'", str(cause))
    if missing:
        return f"operator {missing[1]} has no ONNX counterpart; {instead_of(missing[1])}"
    at = f" at {_place(cause)}" if _place(cause) else ""
    if "DataDependent" in type(cause).__name__ or "DynamicOutputShape" in type(cause).__name__:
        return (
            f"what it does depends on the values of data{at}. Choose by torch.where or a mask, loop a fixed "
            "number of times, and keep shapes fixed"
        )
    return (
        f"{type(cause).__name__}: {_first_line(cause).rstrip('.')}{at}. The module must run on CPU in "
        "evaluation mode on the example inputs, with operations of PyTorch alone"
    )


def _place(exc: BaseException) -> str:
    """The deepest line of the model's own code that an exception came through."""
    import torch

    others = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    frames = [f for f in traceback.extract_tb(exc.__traceback__) if not f.filename.startswith(others)]
    made = ("<string>", "<eval_with_key>")
    model = [
        f
        for f in frames
        if f.name != "__call__" and "onnxscript" not in f.filename and not f.filename.startswith(made)
    ]
    return (
        f"{Path(model[-1].filename).name}:{model[-1].lineno} in {model[-1].name}: {model[-1].line}"
        if model
        else ""
    )


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip().splitlines() or ["no message"])[0]


def _evaluation_mode(graph: Any, dropout: bool) -> None:
    """Switch off batch statistics, and dropout unless kept, in a program exported in training mode."""
    for node in list(graph.nodes):
        operator = str(node.target)
        if dropout and "dropout" in operator:
            continue
        if operator.startswith(("aten.dropout", "aten.feature_dropout", "aten.alpha_dropout")):
            node.args = (*node.args[:2], False)
        elif operator.startswith("aten.batch_norm"):
            node.args = (*node.args[:5], False, *node.args[6:])
        elif operator.startswith("aten.add_") and "num_batches_tracked" in str(node.args[0]):
            graph.erase_node(node)


def _own_example(program: Any) -> object:
    args, kwargs = program.example_inputs or ((), {})
    if not args and not kwargs:
        raise SourceError("the exported program has no example inputs of its own; give example_inputs")
    return dict(kwargs) if kwargs else tuple(args)


def _check_batch(program: Any, spec: Example, batch_size: int) -> None:
    """A program exported with a fixed batch can only be converted with that batch."""
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for user, type in zip(program.graph_signature.user_inputs, spec.types, strict=False):
        fixed = placeholders[user].meta["val"].shape if user in placeholders else ()
        for axis, (n, asked) in enumerate(zip(fixed, type.shape, strict=False)):
            if isinstance(n, int) and n != asked:
                raise SourceError(
                    f"the exported program's input {user!r} has {n} fixed on axis {axis}, asked for {asked}; "
                    "export it with dynamic_shapes for the batch, or convert with the size it has"
                )
