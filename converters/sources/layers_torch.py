# SPDX-License-Identifier: Apache-2.0
"""Which layer of a PyTorch module an operator, or an error, comes from.

torch.export notes the modules that the exported one holds. Here the exported one is a function that calls the
model, so hooks tell the tracer which of the model's modules is running; what a node is noted with then lasts
through torch's decompositions, and the ONNX exporter writes it into each node's metadata.
"""

from __future__ import annotations

import ast
import contextlib
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from edgefl.graph.model import in_layer

_SCOPES, _CLASSES = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"
_STACK = "nn_module_stack"


@dataclass
class Running:
    """The modules of a model that are running.

    Attributes:
        places: path and class of each module by its identity.
        modules: identities of those running, outermost first. What an error leaves running stays here.
    """

    places: dict[int, tuple[str, str]]
    modules: list[int] = field(default_factory=list)

    @property
    def layer(self) -> str:
        """The innermost as `path (Class)`; empty for the model itself."""
        return _said(*self.places[self.modules[-1]]) if self.modules else ""

    def enter(self, module: Any, _: Any) -> None:
        if id(module) in self.places:
            self.modules.append(id(module))
            self._tell()

    def leave(self, module: Any, *_: Any) -> None:
        if id(module) in self.modules:
            while self.modules.pop() != id(module):
                pass  # ended by an error that the model itself caught
            self._tell()

    def _tell(self) -> None:
        """Tell whatever traces the model, which copies these to each node it makes."""
        from torch.fx.experimental.proxy_tensor import get_proxy_mode

        stack = getattr(getattr(get_proxy_mode(), "tracer", None), "module_stack", None)
        if stack is not None:
            for key in [key for key in stack if key.startswith("edgefl.")]:
                del stack[key]
            stack.update({f"edgefl.{place}": self.places[place] for place in self.modules})


@contextlib.contextmanager
def noting(model: Any) -> Iterator[Running]:
    """Within it nodes that a tracer makes are noted with the modules of `model` that are running."""
    from torch.nn.modules import module

    running = Running({id(m): (path, type(m).__name__) for path, m in model.named_modules() if path})
    with contextlib.ExitStack() as stack:
        stack.callback(module.register_module_forward_pre_hook(running.enter).remove)
        stack.callback(module.register_module_forward_hook(running.leave).remove)
        yield running


def layer_of(node: Any) -> str:
    """The layer of an exported program's node, as `path (Class)`; empty where it is not known."""
    noted = list(getattr(node, "meta", {}).get(_STACK, {}).values())
    return _said(*noted[-1]) if noted else ""


def layer_at(exc: BaseException) -> str:
    """The layer of the node that the exporter was at when it raised."""
    for frame, _ in traceback.walk_tb(exc.__traceback__):
        found = layer_of(frame.f_locals.get("node"))
        if found:
            return found
    return ""


def name_nodes(proto: Any) -> None:
    """Put the layers that torch's exporter noted into the names of an ONNX model's nodes."""
    for node in proto.graph.node:
        noted = {entry.key: entry.value for entry in node.metadata_props}
        scopes, classes = (ast.literal_eval(noted.get(key, "[]")) for key in (_SCOPES, _CLASSES))
        if len(scopes) > 1 and len(scopes) == len(classes):  # the last of each is the operator
            node.name = in_layer(node.name or node.output[0], _said(scopes[-2], classes[-2]))


def _said(path: str, kind: str) -> str:
    return f"{path} ({kind.rpartition('.')[2]})" if path else ""
