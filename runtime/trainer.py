# SPDX-License-Identifier: Apache-2.0
"""Training, measuring and predicting on a device."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Bundle
from edgefl.data import Examples, Inputs, Labels, check_examples, check_inputs, check_weight, shares
from edgefl.errors import DataError, DataShape, DataType, NotResumable
from edgefl.options import FitOptions, changed
from edgefl.runtime.backends import Backend, Program, open_backend
from edgefl.runtime.backends.fastest import Speed
from edgefl.runtime.backends.proving import proving
from edgefl.runtime.batches import Batches, Passes
from edgefl.runtime.checkpoint import EVERY_S, Checkpoint, Keeper, subject_of
from edgefl.runtime.delegates.choice import Placement
from edgefl.runtime.early_stopping import Stopping
from edgefl.runtime.feature_cache import FeatureCache
from edgefl.runtime.frozen import FrozenPart, map_batches
from edgefl.runtime.material import Counted, Material, in_memory, streamed
from edgefl.runtime.metrics import Metrics
from edgefl.runtime.rows import Rows
from edgefl.runtime.steps import SEEDS, Begin, Mode, Steps, check_finite, checked, passes
from edgefl.scores import accuracy

Array = npt.NDArray[Any]
OnStep = Callable[[int, float], None]
ShouldStop = Callable[[], bool]

DEFAULT_LR = 0.01


@dataclass(frozen=True)
class FitReport:
    """What one `fit` did.

    Attributes:
        losses: of every step, before its update.
        examples: in the data, each counted once.
        steps: made.
        seconds: wall time, checks and features included.
        backend: the engine's name.
        loss_first, loss_last: of the first and last step, NaN where none was made.
        stopped: `should_stop` or the deadline ended it early; the steps made so far count.
        placements: which graph ran where, and which delegates were passed over and why.
        features_cached: examples whose features were on disk, so that the frozen part did not run for them.
        speeds: of the engines `auto` chose among, the fastest first, then those that were passed over and
            why; empty where there was no choice.
        checkpoint: where training that was stopped can go on; None where it came to its end, or where the
            engine cannot say.
        left_out: examples of the data that were not trained on (`validation`).
        best_loss: on those, of the pass that counts; None without any, or without `patience`.
    """

    losses: tuple[float, ...]
    examples: int
    steps: int
    seconds: float
    backend: str
    loss_first: float
    loss_last: float
    stopped: bool = False
    placements: tuple[Placement, ...] = ()
    features_cached: int = 0
    speeds: tuple[Speed, ...] = ()
    checkpoint: Checkpoint | None = None
    left_out: int = 0
    best_loss: float | None = None


class Trainer:
    """A bundle on an engine, with parameters that change.

    Examples are arrays with the examples along the first dimension: one array, or arrays by name where a
    model has several inputs. They are checked and converted before anything runs.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: str | Backend = "auto",
        delegate: str = "auto",
        threads: int = 1,
        features: FeatureCache | None = None,
    ) -> None:
        """Choose the engine (see `open_backend`); graphs are proved and loaded when first needed.

        Args:
            features: where features of the frozen part are kept between calls; None makes them for each.
        """
        self.bundle = bundle
        self.backend = (
            open_backend(bundle, backend, delegate, threads) if isinstance(backend, str) else proving(backend)
        )
        self._manifest = bundle.manifest
        self._trained = {p.name: p for p in self._manifest.trained}
        values = bundle.parameters()
        self._parameters = {name: values[name] for name in self._trained}
        self._base = dict(self._parameters)
        self._buffers = {name: values[name] for name in self._manifest.updated}
        own = [*(p.name for p in self._manifest.trained if p.role == "personal"), *self._buffers]
        self._own = {name: values[name] for name in own}
        self._programs: dict[str, Program] = {}
        self._frozen = FrozenPart(bundle, self.backend, self._program, features)

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Which of the graphs loaded so far runs where."""
        return tuple(program.placement for program in self._programs.values())

    # -- what belongs to one device

    def own_parameters(self) -> dict[str, Array]:
        """Copies of what never leaves a device: personal parameters, then updated buffers."""
        now = {**self._parameters, **self._buffers}
        return {name: now[name].copy() for name in self._own}

    def stand_in(self, own: Mapping[str, Array] | None, features: FeatureCache | None = None) -> None:
        """Go on as another device, on the engine that is loaded; `rebase` then gives its shared parameters.

        Args:
            own: what its `own_parameters` gave last; None for a device that has not trained yet.
            features: where its features are kept.
        """
        self.load_parameters({**self._own, **(own or {})})
        # What these parameters are pulled towards is where the device begins, as with the shared ones.
        self._base = {**self._base, **{n: v for n, v in self._parameters.items() if n in self._own}}
        self._frozen.cache = features

    # -- parameters

    def parameters(self) -> dict[str, Array]:
        """Copies of the trained parameters, shared and personal, in manifest order, then updated buffers."""
        return {name: value.copy() for name, value in {**self._parameters, **self._buffers}.items()}

    def load_parameters(self, values: Mapping[str, Array]) -> None:
        """Replace some or all trained parameters and updated buffers; `delta` counts from the same base.

        What `Bundle.parameters` gives is taken as it is: frozen parameters and other buffers are constants of
        the graphs, so those must be the bundle's own values. A slice has none to compare with.

        Raises:
            DataShape, DataType, NotFinite: a value does not fit; nothing is changed then.
            DataError: a constant of the graphs with another value.
        """
        fitting = self._fitting(values)
        self._buffers = {name: fitting.pop(name, value) for name, value in self._buffers.items()}
        self._parameters = {**self._parameters, **fitting}

    def rebase(self, values: Mapping[str, Array]) -> None:
        """Take parameters, such as the server's new version, as current and as what `delta` counts from.

        Buffers stay this device's own, as in FedBN (Li et al., ICLR 2021).
        """
        fitting = {n: v for n, v in self._fitting(values).items() if n not in self._buffers}
        self._parameters = {**self._parameters, **fitting}
        self._base = {**self._base, **fitting}

    def delta(self) -> dict[str, Array]:
        """New minus base for the shared parameters, float32, in schema order."""
        names = [p.name for p in self._manifest.schema.parameters]
        return {n: np.asarray(self._parameters[n] - self._base[n], np.float32) for n in names}

    # -- training

    def fit(
        self,
        x: Inputs | Rows,
        y: Labels | None = None,
        options: FitOptions | None = None,
        *,
        correction: Mapping[str, Array] | None = None,
        on_step: OnStep | None = None,
        should_stop: ShouldStop | None = None,
        deadline_s: float | None = None,
        resume: Checkpoint | None = None,
        keep: Callable[[Checkpoint], None] | None = None,
        keep_every_s: float = EVERY_S,
        sample_weight: Array | None = None,
        **keywords: Any,
    ) -> FitReport:
        """Train on local examples.

        Args:
            x: inputs, `[examples, ...]`; or rows, which bring labels and weights and are read batch by batch,
                to the same bits.
            y: labels, `[examples, ...]`, by output where several are trained.
            options: how to train; `FitOptions()` where None.
            keywords: fields of `FitOptions` that are to be others, as in `fit(x, y, epochs=3, lr=0.1)`.
            correction: a direction added to each gradient, such as SCAFFOLD's `c - c_i`.
            on_step: called after each step with its number, from 1, and its loss.
            should_stop: asked before each step; true ends training with the steps made so far.
            deadline_s: seconds from now after which training ends likewise.
            resume: goes on from a checkpoint of the same options, examples and parameters to count from, in
                any process, to the bits of a training that was never stopped.
            keep: given a checkpoint every `keep_every_s` seconds, and again after a step that took longer.
            sample_weight: how much each example counts within its batch, `[examples]`, 0 or more and not all
                0; those of weight 0 are left out. All 1 where None.

        Raises:
            DataError: the examples do not fit the model (see `edgefl.data.check_examples`).
            NotResumable: the checkpoint is of another training.
            NotFinite: NaN or infinity in a loss, gradient or parameter; the parameters stay as before.
            OptionError: an option outside what is allowed, or one there is not.
            BackendError: the engine cannot run the graphs.
        """
        started = time.perf_counter()
        until = math.inf if deadline_s is None else time.monotonic() + deadline_s
        options = self._decided(changed(options or FitOptions(), keywords, "Trainer.fit"))
        direction = self._fitting(correction or {})
        material = self._material(x, y, sample_weight, options.validation)
        begin = self._begin(options, direction, resume, material.examples)
        subject = functools.cache(lambda: subject_of(options, *material.said(), self._base, direction))
        if resume is not None and resume.subject != subject():
            raise NotResumable("the checkpoint is of other options, other examples or other parameters")
        run = self.backend.start(options, begin)
        # After the start: an engine that cannot train does not first make features of everything.
        batches = material.batches()
        features_found = self._frozen.cached
        stopping = None
        if options.patience and material.left_out:
            measure = functools.partial(self._loss, material.judged())
            stopping = Stopping(options.patience, measure, resume.best if resume else None)
        order = np.random.Generator(np.random.PCG64(options.seed))
        done, stopped, passed, keeper = len(run.losses), False, True, Keeper(keep, keep_every_s)
        most = options.steps - done if options.steps else None
        with np.errstate(all="ignore"):
            for feeds in islice(passes(batches, options.epochs, order, done), most):
                if stopped := time.monotonic() >= until or bool(should_stop and should_stop()):
                    break
                loss = run.step(feeds)
                if on_step:
                    on_step(len(run.losses), loss)
                passed = len(run.losses) % len(batches) == 0
                if stopping and passed and stopping.after_pass(run.parameters, run.mode.buffers):
                    break
                keeper.after_step(lambda: _checkpoint(run, subject, stopping))
            if stopping and not stopped and not passed:
                stopping.after_pass(run.parameters, run.mode.buffers)
        best = stopping.best if stopping else None
        parameters, buffers = (
            (run.parameters, run.mode.buffers) if best is None else (best.parameters, best.buffers)
        )
        check_finite(parameters, len(run.losses))
        check_finite(buffers, len(run.losses))
        self._parameters, self._buffers = {**parameters}, {**buffers}
        losses = tuple(run.losses) or (math.nan,)
        return FitReport(
            losses=tuple(run.losses),
            examples=batches.examples,
            steps=len(run.losses),
            seconds=time.perf_counter() - started,
            backend=self.backend.name,
            speeds=self.backend.speeds,
            loss_first=losses[0],
            loss_last=losses[-1],
            stopped=stopped,
            placements=self.placements,
            features_cached=features_found,
            checkpoint=_checkpoint(run, subject, stopping) if stopped else None,
            left_out=material.left_out,
            best_loss=None if best is None else best.loss,
        )

    def loss_and_gradients(
        self, x: Inputs, y: Labels, weight: Array | None = None, seed: int = 0
    ) -> tuple[float, dict[str, Array]]:
        """Weighted mean loss over any number of examples, and its gradient for each trained parameter.

        Args:
            weight: float, `[examples]`, 0 or more and not all 0; all 1 where None.
            seed: of every batch's dropout where the step has any, in `[0, 2^24)`; -1 computes as at
                inference.
        """
        batches = self._batches(*self._checked(x, y, weight))
        total, loss = 0.0, 0.0
        gradients = {name: np.zeros(p.shape, np.float64) for name, p in self._trained.items()}
        for step, (feeds, _) in enumerate(batches(), start=1):
            share = self._share(feeds)
            if share > 0:
                made = checked(self._step(feeds, seed), self._trained, step)
                loss += share * made[0]
                total += share
                for name, gradient in made[1].items():
                    gradients[name] += share * gradient
        total = total or 1.0  # nothing counts
        return loss / total, {n: (g / total).astype(np.float32) for n, g in gradients.items()}

    # -- using

    def evaluate(
        self,
        x: Inputs,
        y: Labels,
        sample_weight: Array | None = None,
        *,
        before_batch: Callable[[], None] | None = None,
    ) -> Metrics:
        """Mean loss over the examples, and accuracy where the loss has one.

        Args:
            sample_weight: how much each example counts in both, `[examples]`, 0 or more and not all 0; those
                of weight 0 are left out. All 1 where None.
            before_batch: called before each; what it raises ends this.
        """
        inputs, labels, weights = self._counted(x, y, sample_weight)
        batches = self._batches(inputs, labels, weights)
        loss = self._loss(batches, self._parameters, self._buffers, before_batch)
        outputs = self._outputs(inputs, before_batch)
        rates = (
            accuracy(h, outputs[h.output.name], labels[h.label.name], weights) for h in self._manifest.heads
        )
        found = next((rate for rate in rates if rate is not None), None)
        return Metrics(loss, found, batches.examples, sample_weight is not None)

    def predict(self, x: Inputs) -> Any:
        """The model's output for any number of examples, `[examples, ...]`; by name where it has several."""
        outputs = self._outputs(check_inputs(x, self._manifest.inputs))
        if len(outputs) == 1:
            return outputs["output"]
        return {name.removeprefix("output/"): value for name, value in outputs.items()}

    # -- inside

    def _begin(
        self, options: FitOptions, direction: Mapping[str, Array], resume: Checkpoint | None, examples: int
    ) -> Begin:
        parameters, buffers, done = self._parameters, self._buffers, 0
        if resume is not None:
            fitting = self._fitting({**resume.parameters, **resume.buffers})
            buffers = {name: fitting.pop(name) for name in self._buffers}
            parameters = {name: fitting[name] for name in self._parameters}
            done = len(resume.losses)
        seeds = np.random.Generator(np.random.PCG64([options.seed, 1])) if self._manifest.seeded else None
        if seeds is not None:
            seeds.integers(0, SEEDS, done)
        load = functools.partial(self._program, "step")
        planned = options.epochs * math.ceil(examples / self._manifest.batch_size)
        planned = min(planned, options.steps or planned)
        mode = Mode(buffers, seeds)
        return Begin(self.bundle, parameters, load, self._base, direction, mode, resume, planned)

    def _outputs(
        self, inputs: Mapping[str, Array], before_batch: Callable[[], None] | None = None
    ) -> dict[str, Array]:
        infer, constant = self._program("infer"), {**self._parameters, **self._buffers}

        def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
            if before_batch:
                before_batch()
            return infer(feeds)

        return map_batches(run, inputs, constant, self._manifest.batch_size)

    def _step(self, feeds: Mapping[str, Array], seed: int) -> dict[str, Array]:
        return self._step_of(feeds, self._parameters, self._buffers, seed)

    def _step_of(
        self,
        feeds: Mapping[str, Array],
        parameters: Mapping[str, Array],
        buffers: Mapping[str, Array],
        seed: int,
    ) -> dict[str, Array]:
        given = {"seed": np.array([seed], np.int32)} if self._manifest.seeded else {}
        return self._program("step")({**feeds, **parameters, **buffers, **given})

    def _loss(
        self,
        batches: Passes,
        parameters: Mapping[str, Array],
        buffers: Mapping[str, Array],
        before_batch: Callable[[], None] | None = None,
    ) -> float:
        """Mean loss over examples, as at inference."""
        total, loss = 0.0, 0.0
        for feeds, _ in batches():
            if before_batch:
                before_batch()
            share = self._share(feeds)
            total += share
            loss += share * float(self._step_of(feeds, parameters, buffers, -1)["loss"])
        return loss / (total or 1.0)

    def _material(
        self, x: Inputs | Rows, y: Labels | None, weight: Array | None, fraction: float
    ) -> Material:
        """Checked examples, a part of them left out."""

        def make(examples: Examples) -> Counted:
            return self._counted(examples.x, examples.y, examples.weight)

        if isinstance(x, Rows):
            if y is not None or weight is not None:
                raise DataError("rows bring their own labels and weights")
            return streamed(x, self._manifest, fraction, make, self._frozen)
        if y is None:
            raise DataError("training needs labels")
        return in_memory(self._counted(x, y, weight), self._manifest, fraction, make, self._frozen)

    def _share(self, feeds: Mapping[str, Array]) -> float:
        """How much a batch's loss counts beside other batches'; of several outputs, by its examples alone."""
        head, *others = self._manifest.heads
        counts = 1.0 if others else shares(head, feeds[head.label.name])
        return float((feeds["weight"].astype(np.float64) * counts).sum())

    def _checked(self, x: Inputs, y: Labels, weight: Array | None) -> Counted:
        """Inputs and labels by contract name, and weights."""
        inputs, labels = check_examples(x, y, self._manifest)
        return inputs, labels, check_weight(weight, len(next(iter(labels.values()))))

    def _counted(self, x: Inputs, y: Labels, weight: Array | None) -> Counted:
        """The same without examples of weight 0, a whole batch of which would have no mean."""
        inputs, labels, weights = self._checked(x, y, weight)
        if not weights.all():
            inputs, labels = ({n: v[weights > 0] for n, v in arrays.items()} for arrays in (inputs, labels))
            weights = weights[weights > 0]
        return inputs, labels, weights

    def _batches(self, inputs: dict[str, Array], labels: dict[str, Array], weights: Array) -> Batches:
        """Examples as the step takes them: through the features graph where there is one."""
        return Batches({**self._frozen(inputs), **labels, "weight": weights}, self._manifest.batch_size)

    def _program(self, kind: str) -> Program:
        if kind not in self._programs:
            self._programs[kind] = self.backend.load(self.bundle, kind)
        return self._programs[kind]

    def _decided(self, options: FitOptions) -> FitOptions:
        """The same with the bundle's learning rate where none was given."""
        if options.lr is not None:
            return options
        return replace(options, lr=self._manifest.defaults.get("lr", DEFAULT_LR))

    def _fitting(self, values: Mapping[str, Array]) -> dict[str, Array]:
        fitting = {}
        buffers = {p.name: p for p in self._manifest.parameters if p.name in self._buffers}
        known = {**self._trained, **buffers}
        constants = {p.name for p in self._manifest.parameters} - known.keys()
        self._check_constants({name: value for name, value in values.items() if name in constants})
        for name, value in values.items():
            if name in constants:
                continue
            if name not in known:
                raise DataShape(f"{name!r} is no trained parameter; those are {sorted(known)}")
            parameter = known[name]
            if tuple(np.shape(value)) != parameter.shape:
                raise DataShape(f"{name!r} has shape {np.shape(value)}, expected {parameter.shape}")
            if value.dtype.kind != "f":
                raise DataType(f"{name!r} has dtype {value.dtype}, expected {parameter.dtype}")
            fitting[name] = np.array(value, parameter.dtype, order="C")
        check_finite(fitting)
        return fitting

    def _check_constants(self, values: Mapping[str, Array]) -> None:
        """Refuse values for what the graphs hold as constants, unless they are those; DataError."""
        own = self.bundle.parameters() if values else {}
        for name, value in values.items():
            if name in own and not np.array_equal(own[name], value):
                raise DataError(
                    f"{name!r} is a constant of the bundle's graphs, and its value there is another: "
                    "leave it out, or convert the model anew"
                )


def _checkpoint(run: Steps, subject: Callable[[], str], stopping: Stopping | None) -> Checkpoint | None:
    state = run.state
    if state is None:
        return None
    best = stopping.kept() if stopping else {}
    return Checkpoint(subject(), run.parameters, run.mode.buffers, state, tuple(run.losses), best=best)
