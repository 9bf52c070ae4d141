# SPDX-License-Identifier: Apache-2.0
"""Where PyTorch lets values through but no gradient: exporters drop that, so it is marked in the graph.

`detach`, `item`, `torch.no_grad` and the padding row of an embedding become a node `edgefl.StopGradient`
around the values; `onnx_model` turns it into an Identity that the autodiff knows by name and does not pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any

from edgefl.converters.sources.layers_torch import layer_of
from edgefl.converters.sources.onnx_model import STOP_DOMAIN, STOP_OPERATOR
from edgefl.errors import SourceError


def marking() -> Any:
    """A context in which what is computed under `torch.no_grad`, and `Tensor.data`, is marked."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Marking(TorchFunctionMode):  # type: ignore[misc]
        enabled = True

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch._C._set_grad_enabled:
                self.enabled = bool(args[0])
                return None
            if function == torch.Tensor.data.__get__:
                return _stopped(args[0])
            made = function(*args, **(kwargs or {}))
            return made if self.enabled else torch.utils._pytree.tree_map(_stopped, made)

    return Marking()


def _stopped(value: Any) -> Any:
    import torch

    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return _operator()(value) if floating else value


def mark(program: Any) -> None:
    """Mark `detach`, `item` and padding rows in a `torch.export.ExportedProgram`.

    Raises:
        SourceError: an embedding scales its gradient by frequency.
    """
    for node in list(program.graph.nodes):
        if str(node.target) == "aten.detach.default":
            node.target = _target()
        elif str(node.target) in ("aten._local_scalar_dense.default", "aten.item.default"):
            _mark_number(program.graph, node)
        elif str(node.target) == "aten.embedding.default":
            _, indices, padding, by_frequency = (*node.args[:4], *(-1, False)[len(node.args) - 2 :])[:4]
            if by_frequency:
                where = f"layer {layer}: " if (layer := layer_of(node)) else ""
                raise SourceError(
                    f"{where}an embedding has scale_grad_by_freq=True, which edgefl has no gradient for; "
                    "leave it out"
                )
            if padding >= 0:
                _mark_padding(program.graph, node, indices, padding)
    program.graph_module.recompile()


def _mark_number(graph: Any, node: Any) -> None:
    """A tensor read as one of Python's numbers gets no gradient."""
    (tensor,) = node.args
    if tensor.meta["val"].is_floating_point():
        with graph.inserting_before(node):
            stopped = graph.call_function(_target(), (tensor,))
        stopped.meta["val"] = tensor.meta["val"]
        node.args = (stopped,)


def _mark_padding(graph: Any, node: Any, indices: Any, padding: int) -> None:
    """Rows looked up at the padding index get no gradient, as `torch.embedding` defines it."""
    import torch

    aten, readers = torch.ops.aten, list(node.users)
    with graph.inserting_after(node):
        stopped = graph.call_function(_target(), (node,))
    with graph.inserting_after(stopped):
        same = graph.call_function(aten.eq.Scalar, (indices, padding))
    with graph.inserting_after(same):
        column = graph.call_function(aten.unsqueeze.default, (same, -1))
    with graph.inserting_after(column):
        chosen = graph.call_function(aten.where.self, (column, stopped, node))
    at = indices.meta["val"]
    stopped.meta["val"] = chosen.meta["val"] = node.meta["val"]
    same.meta["val"] = at == padding
    column.meta["val"] = same.meta["val"].unsqueeze(-1)
    for reader in readers:
        reader.replace_input_with(node, chosen)


def _target() -> Any:
    import torch

    _operator()
    return torch.ops.edgefl.stop_gradient.default


@cache
def _operator() -> Any:
    """The operator `edgefl::stop_gradient`, opaque to the exporter."""
    import torch

    name = f"{STOP_DOMAIN}::stop_gradient"
    operator = torch.library.custom_op(name, torch.clone, mutates_args=(), schema="(Tensor x) -> Tensor")
    operator.register_fake(torch.empty_like)
    return operator


def translations() -> dict[Any, Any]:
    """For `torch.onnx.export(custom_translation_table=...)`."""
    import onnx
    from onnxscript import values

    schema = onnx.defs.OpSchema(
        STOP_OPERATOR,
        STOP_DOMAIN,
        1,
        inputs=[onnx.defs.OpSchema.FormalParameter("x", "T")],
        outputs=[onnx.defs.OpSchema.FormalParameter("y", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(double)", "tensor(float16)"], "")],
    )
    operator = values.Op(values.Opset(STOP_DOMAIN, 1), STOP_OPERATOR, schema)
    return {_target(): lambda x: operator(x)}


@contextlib.contextmanager
def refusing_own_gradients() -> Iterator[None]:
    """Within it a `torch.autograd.Function` raises: its backward would be lost without a word."""
    import torch

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        raise SourceError(
            f"{cls.__name__} is a torch.autograd.Function with a gradient of its own, which cannot be "
            "exported; write it with differentiable operations"
        )

    with contextlib.ExitStack() as stack:
        # Its base too: `Function.apply` that a model took before, as an activation, calls that of the base.
        for kind in torch.autograd.Function.__mro__[:2]:
            stack.callback(_restored, kind, "apply", kind.__dict__.get("apply"))
            kind.apply = classmethod(apply)
        yield


def _restored(kind: Any, name: str, before: Any) -> None:
    if before is None:
        delattr(kind, name)
    else:
        setattr(kind, name, before)
