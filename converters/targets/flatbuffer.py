# SPDX-License-Identifier: Apache-2.0
"""What happens to a TFLite file after the converter: its operators are checked, its signature is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgefl.converters.targets.aliasing import untangle
from edgefl.converters.targets.overwrites import refuse_overwrites
from edgefl.converters.targets.products import flatten, unbind
from edgefl.errors import UnsupportedOperator

_DESCRIPTION = "edgefl"
_KEPT_METADATA = b"min_runtime_version"


@dataclass(frozen=True)
class Finished:
    """A file ready to ship.

    Attributes:
        data: its bytes.
        operators: builtin operator to number of uses.
        min_runtime: the oldest release whose operators suffice, such as `2.9.0`; empty where not known.
    """

    data: bytes
    operators: dict[str, int]
    min_runtime: str


def finish(
    data: bytes,
    signature: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    border: Callable[[Any], None] | None = None,
) -> Finished:
    """Name the signature and its tensors, drop what differs between conversions, and count operators.

    Args:
        data: a converted model with one subgraph, its inputs and outputs in the order of the maps.
        inputs, outputs: contract name to TFLite name.
        border: changes the model's inputs and outputs.

    Raises:
        UnsupportedOperator: the file uses Flex or custom operators.
        ConversionError: an interpreter would write over what is still to be read.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    unbind(model)
    flatten(model)
    if border is not None:
        border(model)
    untangle(model)
    _share(model)
    counts = _operators(model)
    subgraph = model.subgraphs[0]
    _rename(subgraph, inputs, outputs)
    model.signatureDefs = [_signature(signature, subgraph, inputs, outputs)]
    model.metadata = [entry for entry in model.metadata or [] if entry.name == _KEPT_METADATA]
    model.description = _DESCRIPTION
    return Finished(write_model(model), counts, _min_runtime(model))


def write_model(model: Any) -> bytes:
    """A finished model (TFLite's object tree) as a file: the one way that files are written.

    Raises:
        ConversionError: an interpreter would write over what is still to be read.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    refuse_overwrites(model)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _share(model: Any) -> None:
    """Constants of equal bytes in one buffer, whatever their shapes."""
    subgraph = model.subgraphs[0]
    made = {int(t) for operator in subgraph.operators for t in operator.outputs if t >= 0}
    before = {tensor.buffer for tensor in subgraph.tensors}
    first: dict[bytes, int] = {}
    for index, tensor in enumerate(subgraph.tensors):
        data = model.buffers[tensor.buffer].data
        if data is None or not len(data) or index in made or tensor.isVariable:
            continue
        shared = first.setdefault(bytes(data), tensor.buffer)
        tensor.buffer = shared
    # TensorFlow may have had two constants in one buffer already: it goes once both have moved.
    used = {tensor.buffer for tensor in subgraph.tensors}
    for index in before - used:
        model.buffers[index].data = None


def _min_runtime(model: Any) -> str:
    found = [bytes(model.buffers[entry.buffer].data) for entry in model.metadata]
    return found[0].rstrip(b"\0").decode() if found else ""


def operators(data: bytes) -> dict[str, int]:
    """How often each builtin operator occurs; raises UnsupportedOperator for Flex and custom ones."""
    from tensorflow.lite.tools import flatbuffer_utils

    return _operators(flatbuffer_utils.read_model_from_bytearray(bytearray(data)))


def _operators(model: Any) -> dict[str, int]:
    from tensorflow.lite.python import schema_py_generated as schema

    builtin = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    custom = sorted({code.customCode.decode() for code in model.operatorCodes if code.customCode})
    if custom:
        raise UnsupportedOperator(f"the TFLite file needs operators outside the builtins: {custom}")
    counts: dict[str, int] = {}
    for subgraph in model.subgraphs:
        for operator in subgraph.operators or []:
            code = model.operatorCodes[operator.opcodeIndex]
            name = builtin[max(code.builtinCode, code.deprecatedBuiltinCode)]
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def _rename(subgraph: Any, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Short names inside, the signature's names at the border."""
    for index, tensor in enumerate(subgraph.tensors):
        tensor.name = f"t{index}"
    for index, name in zip(subgraph.outputs, outputs.values(), strict=True):
        subgraph.tensors[index].name = name
    for index, name in zip(subgraph.inputs, inputs.values(), strict=True):
        subgraph.tensors[index].name = name
    subgraph.name = "main"


def _signature(key: str, subgraph: Any, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Any:
    from tensorflow.lite.python import schema_py_generated as schema

    def entries(indices: Any, names: Mapping[str, str]) -> list[Any]:
        made = []
        for index, name in zip(indices, names.values(), strict=True):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, int(index)
            made.append(entry)
        return made

    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = key, 0
    signature.inputs, signature.outputs = entries(subgraph.inputs, inputs), entries(subgraph.outputs, outputs)
    return signature
