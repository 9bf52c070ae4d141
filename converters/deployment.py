# SPDX-License-Identifier: Apache-2.0
"""From a bundle to files for an app: each is run on this machine's engines and measured before it leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefl.bundle import Bundle, Manifest
from edgefl.converters.graft import bind
from edgefl.converters.targets.activations import findings, float_runner
from edgefl.converters.targets.calibration import Calibration, batches, check_calibration, thinned
from edgefl.converters.targets.coreml.program import TARGETS as SYSTEMS
from edgefl.converters.targets.engines import Ran, Rows, on_interpreters, on_onnxruntime
from edgefl.converters.targets.forms import (
    FORMS,
    TARGETS,
    Made,
    make_coreml,
    make_onnx,
    make_tflite,
    prepared,
    rounded,
)
from edgefl.converters.targets.int8 import large_errors
from edgefl.converters.targets.int8_border import Ranges, Rounding, ranges_of
from edgefl.converters.targets.single import single
from edgefl.data import Inputs, Labels, check_examples, check_inputs, check_weight
from edgefl.errors import ConversionError, OptionError
from edgefl.graph import Array, Graph, Interpreter, read_onnx
from edgefl.scores import accuracy, predicted

IO = ("float32", "int8")
MOST_EXAMPLES = 512
"""Examples files are measured on, spread over those given."""

_EXACT = 1e-4  # relative, of float files against NumPy: what `edgefl verify` allows engines
_CHECKED = 16  # examples that NumPy runs, which is slow for large models
_EXTENSIONS = {"onnx": "onnx", "tflite": "tflite", "coreml": "mlpackage.zip"}

Stage = Callable[[str], None]


@dataclass(frozen=True)
class FileTensor:
    """An input or output of an exported file.

    Attributes:
        direction: `in` or `out`.
        name: the bundle's.
        own: the file's own.
        dtype: NumPy name.
        shape: with the file's batch.
        rounding: for int8: `value = scale * (q - zero_point)`.
    """

    direction: str
    name: str
    own: str
    dtype: str
    shape: tuple[int, ...]
    rounding: Rounding | None = None


@dataclass(frozen=True)
class ExportedFile:
    """One file and how it compares with the float model.

    Attributes:
        form: one of `FORMS`.
        target: one of `TARGETS`.
        io: dtype of what goes in and comes out where the float model has floats, one of `IO`.
        name: the file's name; Core ML's is a zipped package.
        data: its bytes.
        batch: examples it takes at once.
        tensors: inputs, then outputs.
        engines: engine to the error of its outputs: root mean square over the standard deviation of the float
            model's, the worst output's where there are several. Empty for Core ML, which needs Apple systems.
        agreement: part of the predictions that are the float model's, None where a loss has no such notion.
        accuracy: part of the labels predicted right, None without labels.
        release: the oldest release or system that runs the file, where known.
        notes: engines that do not run it, and errors that are large.
    """

    form: str
    target: str
    io: str
    name: str
    data: bytes
    batch: int
    tensors: tuple[FileTensor, ...]
    engines: Mapping[str, float]
    agreement: float | None
    accuracy: float | None
    release: str = ""
    notes: tuple[str, ...] = ()

    @property
    def error(self) -> float | None:
        """The largest over the engines."""
        return max(self.engines.values(), default=None)


@dataclass(frozen=True)
class Export:
    """Files for an app.

    Attributes:
        examples: how many they were measured on.
        accuracy: of the float model, None without labels.
        notes: layers that calibration shows to be dead, not covered by the examples, or ruled by outliers.
    """

    files: tuple[ExportedFile, ...]
    examples: int
    accuracy: float | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Measure:
    """What files are compared with.

    Attributes:
        manifest: of the bundle.
        feeds: examples in the files' batches, the last filled up.
        count: examples.
        expected: the float model's outputs by contract name, `[count, ...]`.
        labels: by contract name; empty where there are none.
        weight: how much each example counts, `[count]`.
    """

    manifest: Manifest
    feeds: Rows
    count: int
    expected: Mapping[str, Array]
    labels: Mapping[str, Array]
    weight: Array

    def error(self, found: Mapping[str, Array]) -> float:
        """Root mean square over the spread, of the worst output."""
        return max(_apart(found[n], value, float(value.std())) for n, value in self.expected.items())

    def accuracy(self, found: Mapping[str, Array]) -> float | None:
        """Of the first output that has one."""
        heads = (head for head in self.manifest.heads if head.label.name in self.labels)
        rates = (accuracy(h, found[h.output.name], self.labels[h.label.name], self.weight) for h in heads)
        return next((rate for rate in rates if rate is not None), None)

    def agreement(self, found: Mapping[str, Array]) -> float | None:
        for head in self.manifest.heads:
            mine = predicted(head, found[head.output.name])
            if mine is not None:
                return float((mine == predicted(head, self.expected[head.output.name])).mean())
        return None


def export(
    bundle: Bundle,
    examples: Inputs | None = None,
    labels: Labels | None = None,
    *,
    weight: Array | None = None,
    calibration: Calibration | None = None,
    forms: Sequence[str] = ("int8",),
    targets: Sequence[str] = ("onnx", "tflite"),
    io: str = "float32",
    system: str = SYSTEMS[0],
    on_stage: Stage | None = None,
) -> Export:
    """The model with its present parameters inside, as files for an app.

    Files take one example at a time where the model allows it, else the bundle's batch. Each ONNX and TFLite
    file is run on every stock engine of this machine; one that computes something else than NumPy does with
    the same weights is an error.

    Args:
        examples: inputs to measure the files on; the bundle's golden batch where None.
        labels: of these, for accuracies.
        weight: how much each example counts in them, `[examples]`.
        calibration: at least 16 varied inputs, which int8 takes ranges from; `examples` where None.
        forms: of `FORMS`: `float32`, `float16` (weights stored in half; Core ML computes so too), `int8`
            (integer arithmetic), `weights8` (weights in int8, arithmetic in float).
        targets: of `TARGETS`: `onnx`, `tflite`, `coreml`.
        io: `int8` gives int8 files int8 inputs and outputs, as NPUs and microcontrollers take them.
        system: the oldest Apple system that is to run Core ML files.

    Raises:
        OptionError: forms, targets or io that do not exist or do not go together.
        CalibrationError: int8 without examples, or with too few.
        DataError: examples or labels that do not fit the model.
        ConversionError: a target cannot hold a form, or an engine here computes a file wrongly.
        MissingDependency: a writer's package, or onnxruntime, is not installed.
    """
    _check(forms, targets, io)
    tell = on_stage or (lambda text: None)
    manifest = bundle.manifest
    graph = prepared(single(bind(read_onnx(bundle.artifact("onnx", "infer")), bundle.parameters())))
    seen: Rows = ()
    if "int8" in forms:
        given = examples if calibration is None else calibration
        if given is None:
            raise OptionError("int8 files need examples to take ranges from: at least 16 varied ones")
        seen = batches(check_calibration(given, manifest.inputs), _batch(graph))
    tell("measuring the float model")
    measure = _measure(bundle, graph, examples, labels, weight)
    border = _border(graph, seen) if io == "int8" else None
    files = []
    for form in dict.fromkeys(forms):
        for target in dict.fromkeys(targets):
            tell(f"{form} for {target}")
            files.append(_file(graph, form, target, seen, border, measure, system))
    notes = findings(graph, seen) if seen else ()
    return Export(tuple(files), measure.count, measure.accuracy(measure.expected), notes)


def _check(forms: Sequence[str], targets: Sequence[str], io: str) -> None:
    for what, given, allowed in (("form", forms, FORMS), ("target", targets, TARGETS), ("io", (io,), IO)):
        unknown = [each for each in given if each not in allowed]
        if unknown or not given:
            raise OptionError(f"{what} {', '.join(unknown) or 'none'}: there are {', '.join(allowed)}")
    if io == "int8" and "int8" not in forms:
        raise OptionError(f"io int8 is for int8 files, asked for are {', '.join(forms)}")


def _batch(graph: Graph) -> int:
    return next(iter(graph.inputs.values())).shape[0]


def _border(graph: Graph, seen: Rows) -> Ranges:
    run = float_runner(graph)
    return ranges_of(seen, [run(feed) for feed in seen])


def _measure(
    bundle: Bundle, graph: Graph, examples: Inputs | None, labels: Labels | None, weight: Array | None
) -> _Measure:
    manifest, truth = bundle.manifest, dict[str, Array]()
    if examples is None:
        golden = bundle.golden()
        inputs = {spec.name: golden[spec.name] for spec in manifest.inputs}
    elif labels is None:
        inputs = check_inputs(examples, manifest.inputs)
    else:
        inputs, truth = check_examples(examples, labels, manifest)
    counted = check_weight(weight, len(next(iter(inputs.values()))))
    whole = {"weight": counted, **{f"x/{n}": v for n, v in inputs.items()}, **truth}
    chosen = thinned(whole, MOST_EXAMPLES)
    feeds = batches({name: chosen[f"x/{name}"] for name in inputs}, _batch(graph))
    run = float_runner(graph)
    count = len(chosen["weight"])
    expected = _joined([run(feed) for feed in feeds], count)
    return _Measure(manifest, feeds, count, expected, {n: chosen[n] for n in truth}, chosen["weight"])


def _file(
    graph: Graph,
    form: str,
    target: str,
    seen: Rows,
    border: Ranges | None,
    measure: _Measure,
    system: str,
) -> ExportedFile:
    """Write one file, run it, and compare."""
    border = border if form == "int8" else None
    io = "float32" if border is None else "int8"
    stem = f"{measure.manifest.name}-{form}" + ("" if border is None else "-io")
    computed = rounded(graph, form)
    made, ran = _written(computed or graph, graph, form, target, seen, border, measure, stem, system)
    results = {each.engine: each.rows for each in ran if each.rows is not None}
    notes = [f"{each.engine} does not run it: {each.reason}" for each in ran if each.rows is None]
    if ran and not results:
        raise ConversionError(f"no engine here runs {form} for {target}: {'; '.join(notes)}")
    widened = {engine: _widened(rows, made.roundings) for engine, rows in results.items()}
    if computed is not None:
        _check_exact(computed, widened, measure, f"{form} for {target}")
    found = {engine: _joined(rows, measure.count) for engine, rows in widened.items()}
    errors = {engine: measure.error(values) for engine, values in found.items()}
    first = next(iter(found.values()), None)
    return ExportedFile(
        form,
        target,
        io,
        f"{stem}.{_EXTENSIONS[target]}",
        made.data,
        _batch(graph),
        _tensors(graph, made),
        errors,
        None if first is None else measure.agreement(first),
        None if first is None else measure.accuracy(first),
        made.release,
        (*notes, *large_errors(errors)),
    )


def _written(
    computed: Graph,
    graph: Graph,
    form: str,
    target: str,
    seen: Rows,
    border: Ranges | None,
    measure: _Measure,
    stem: str,
    system: str,
) -> tuple[Made, list[Ran]]:
    """A file, and its outputs on each engine here."""
    if target == "coreml":
        return make_coreml(graph, form, stem, system), []
    make = make_onnx if target == "onnx" else make_tflite
    made = make(computed, form, seen, border)
    feeds = [_narrowed(feed, made.roundings) for feed in measure.feeds]
    if made.model is not None:
        return made, on_interpreters(made.model, feeds)
    return made, on_onnxruntime(made.data, feeds)


def _check_exact(graph: Graph, found: Mapping[str, Rows], measure: _Measure, what: str) -> None:
    """Raises ConversionError where an engine is not at NumPy's results for the same weights."""
    some = range(min(len(measure.feeds), max(1, _CHECKED // _batch(graph))))
    run = Interpreter(graph)
    truth = [run(measure.feeds[i]) for i in some]
    for engine, rows in found.items():
        for name in graph.outputs:
            right = np.concatenate([row[name] for row in truth])
            own = np.concatenate([rows[i][name] for i in some])
            apart = _apart(own, right, float(np.sqrt(np.square(right, dtype=np.float64).mean())))
            if not apart <= _EXACT:
                raise ConversionError(
                    f"{what}: {engine} computes {name!r} {apart:.2g} away from NumPy with the same weights, "
                    f"relative; allowed is {_EXACT:g}. The file is not written"
                )


def _apart(found: Array, expected: Array, scale: float) -> float:
    """Root mean square of the difference over a scale; infinite for what is not finite."""
    with np.errstate(all="ignore"):
        difference = float(np.sqrt(np.square(found - expected, dtype=np.float64).mean()))
    return difference / (scale or 1.0) if np.isfinite(difference) else float("inf")


def _narrowed(feed: Mapping[str, Array], roundings: Mapping[str, Rounding]) -> dict[str, Array]:
    return {name: roundings[name].round(v) if name in roundings else v for name, v in feed.items()}


def _widened(rows: Rows, roundings: Mapping[str, Rounding]) -> Rows:
    return [{n: roundings[n].widen(v) if n in roundings else v for n, v in row.items()} for row in rows]


def _joined(rows: Rows, count: int) -> dict[str, Array]:
    """Outputs of all batches one after the other, without those of examples that filled the last one up."""
    return {name: np.concatenate([row[name] for row in rows])[:count] for name in rows[0]}


def _tensors(graph: Graph, made: Made) -> tuple[FileTensor, ...]:
    def tensor(direction: str, name: str, own: str, kind: Any) -> FileTensor:
        rounding = made.roundings.get(name)
        return FileTensor(direction, name, own, "int8" if rounding else kind.dtype.name, kind.shape, rounding)

    return (
        *(tensor("in", n, made.inputs[n], kind) for n, kind in graph.inputs.items()),
        *(tensor("out", n, made.outputs[n], kind) for n, kind in graph.outputs.items()),
    )
