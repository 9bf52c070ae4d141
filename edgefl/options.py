# SPDX-License-Identifier: Apache-2.0
"""Every option of training, of coding updates and of a federation: its name, rule, meaning and default, once.

Python takes them as keywords, the command line as `--name`, files as `name` in a section, and messages
carry them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

from edgefl.errors import OptionError
from edgefl.rules import (
    Checked,
    above,
    byte_count,
    daily,
    flag,
    integer,
    number,
    one_of,
    optional,
    switch,
    text,
)

MODES = ("topk", "ternary", "unbiased", "dense8", "dense4", "float16", "float32", "subset")
"""Ways of coding updates, see `edgefl.delta.encode`."""
CHOOSING_MODES = ("topk", "ternary", "unbiased", "subset")
"""Those that leave parameters out; the others send every one."""
STATELESS_MODES = frozenset({"unbiased", "dense8", "dense4", "float32", "subset"})
"""Modes that lose nothing on average: a residual would only delay what they send anyway."""
SHARED_MODES = ("subset", "dense8", "dense4", "float16", "float32")
"""Those in which all devices of a round send the same parameters."""
OPTIMIZERS = ("sgd", "adam")
ALGORITHMS = ("fedavg", "feddyn", "scaffold")
ALPHA = 0.1
SCHEDULES = ("constant", "linear", "cosine")
SERVER_OPTIMIZERS = ("sgd", "adam", "yogi", "adagrad")
AGGREGATORS = ("mean", "fednova", "median", "trimmed-mean", "krum", "multi-krum", "geometric-median")
PARTIES = r"|[A-Za-z0-9][A-Za-z0-9._:-]{0,63}(,[A-Za-z0-9][A-Za-z0-9._:-]{0,63}){0,255}"
PRIVACY = ("none", "central-dp")
LABELS = r"|[A-Za-z0-9._-]{1,32}=[A-Za-z0-9._:+-]{0,64}(,[A-Za-z0-9._-]{1,32}=[A-Za-z0-9._:+-]{0,64}){0,7}"
"""What a device says of itself: at most eight pairs of name and value."""
NORM_BOUND = 4.0
"""Length of an update that counts whole by default, as a multiple of its round's median."""

FIRST_DENSITY = 0.25
"""Where a warm-up begins."""
DOWNLINK = 0.03
"""Squared error a published step may have by default, relative to its squared length."""
BUNDLE_BYTES = 256 << 20
"""The longest bundle a device accepts by default: what a phone can spare, not what the format allows."""
MAX_BYTES = 2**50
_MANY = 2**31 - 1

O = TypeVar("O", bound=Checked)  # noqa: E741


@dataclass(frozen=True, kw_only=True)
class FitOptions(Checked):
    """How to train on the examples of one device. The annotation of each field says what it is."""

    epochs: Annotated[int, integer(1, 10_000), "Passes over the local examples."] = 1
    steps: Annotated[int, integer(0, 1_000_000), "Most batches to train on; 0: all of the epochs'."] = 0
    lr: Annotated[float | None, optional(above(0.0)), "Learning rate. Default: the bundle's."] = None
    lr_decay: Annotated[
        float, number(1e-3, 1.0), "What the learning rate is multiplied by from round to round."
    ] = 1.0
    schedule: Annotated[
        str, one_of(*SCHEDULES), "How the learning rate falls over a round's steps: constant, linear, cosine."
    ] = "constant"
    weight_decay: Annotated[float, number(0.0, 1e3), "Pull of every parameter towards zero; 0: none."] = 0.0
    momentum: Annotated[float, number(0.0, 0.9999), "Momentum of SGD."] = 0.0
    optimizer: Annotated[str, one_of(*OPTIMIZERS), "sgd or adam; its state starts anew every time."] = "sgd"
    algorithm: Annotated[
        str,
        one_of(*ALGORITHMS),
        "fedavg; feddyn or scaffold have every device keep a direction that makes up for its data being "
        "unlike others'.",
    ] = "fedavg"
    alpha: Annotated[
        float, number(1e-6, 1e6), "How fast feddyn's direction follows, and how strongly it pulls back."
    ] = ALPHA
    mu: Annotated[float, number(0.0, 1e6), "FedProx's pull towards the parameters begun with; 0: none."] = 0.0
    clip_norm: Annotated[
        float | None, optional(above(0.0)), "Largest joint norm of the gradients of a step. Default: none."
    ] = None
    validation: Annotated[
        float,
        number(0.0, 0.9),
        "Part of the local examples left out of training, always the same ones; 0.2 is 20 %. 0: none.",
    ] = 0.0
    patience: Annotated[
        int,
        integer(0, 10_000),
        "Passes without a smaller loss on those after which training stops; the best pass counts. 0: all.",
    ] = 0
    seed: Annotated[
        int,
        integer(0, 2**63 - 1),
        "Of the order of examples, dropout and rounding; counts up with the rounds.",
    ] = 0

    def _check_scaffold(self) -> None:
        plain = {
            "optimizer": "sgd", "momentum": 0.0, "mu": 0.0, "weight_decay": 0.0, "schedule": "constant",
            "lr_decay": 1.0, "patience": 0,
        }  # fmt: skip
        other = {name: getattr(self, name) for name, value in plain.items() if getattr(self, name) != value}
        if self.lr is None or other:
            raise OptionError(
                "scaffold takes a device's mean gradient from how far steps of plain SGD at a rate that is "
                "told have led; give lr, and none of these",
                {"algorithm": self.algorithm, **(other or {"lr": self.lr})},
            )

    @property
    def pull(self) -> float:
        """Of parameters towards those begun with."""
        return self.mu + (self.alpha if self.algorithm == "feddyn" else 0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.momentum and self.optimizer == "adam":
            raise OptionError(
                "momentum is SGD's, Adam has moments of its own; give one of them",
                {"momentum": self.momentum, "optimizer": self.optimizer},
            )
        if self.alpha != ALPHA and self.algorithm != "feddyn":
            raise OptionError("only feddyn has it", {"alpha": self.alpha, "algorithm": self.algorithm})
        if self.algorithm == "scaffold":
            self._check_scaffold()
        if self.patience and not self.validation:
            raise OptionError(
                "passes are judged by examples left out of training; give validation too",
                {"patience": self.patience},
            )
        if self.lr_decay != 1.0 and self.lr is None:
            raise OptionError(
                "a rate that falls from round to round needs one to begin with; give lr too",
                {"lr_decay": self.lr_decay},
            )


@dataclass(frozen=True, kw_only=True)
class FrameOptions(Checked):
    """How one update is coded."""

    mode: Annotated[
        str,
        one_of(*MODES),
        "How updates are coded. topk sends the largest changes and keeps the rest for the next update; "
        "unbiased draws at random and forgets; others are ternary, dense8, dense4, subset, float16, float32.",
    ] = "topk"
    density: Annotated[float, number(1e-9, 1.0), "Part of the parameters an update carries; 0.01 is 1 %."] = (
        0.01
    )
    payload: Annotated[
        int,
        byte_count(MAX_BYTES),
        "Longest update, such as 20kB, filled as well as it goes; in place of the density. 0: none.",
    ] = 0
    per_tensor: Annotated[bool, flag, "Choose in every tensor by itself, not among all parameters."] = False
    whole_below: Annotated[int, integer(0, _MANY), "Send tensors with fewer elements whole."] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.payload and self.mode not in CHOOSING_MODES:
            raise OptionError(
                f"mode {self.mode} sends every parameter, so its updates cannot be made to fit; "
                f"{', '.join(CHOOSING_MODES)} can",
                {"payload": self.payload, "mode": self.mode},
            )


@dataclass(frozen=True, kw_only=True)
class CodingOptions(FrameOptions):
    """How the updates of a device are coded round after round."""

    warm_up: Annotated[
        int, integer(0, 1_000_000), "Rounds over which the density falls from 25 % to what it is to be."
    ] = 0
    correction: Annotated[float, number(0.0, 0.9999), "Momentum correction of error feedback; 0: none."] = 0.0
    residual_decay: Annotated[
        float, number(0.0, 1.0), "What stays of a residual for every version the device missed."
    ] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.payload and self.warm_up:
            raise OptionError(
                "a warm-up is about the density, which a payload replaces; give one of them",
                {"payload": self.payload, "warm_up": self.warm_up},
            )
        if self.warm_up and self.mode not in CHOOSING_MODES:
            raise OptionError(
                f"mode {self.mode} sends every parameter from the first round on",
                {"warm_up": self.warm_up, "mode": self.mode},
            )
        for name, idle in (("correction", 0.0), ("residual_decay", 1.0)):
            value = getattr(self, name)
            if value != idle and self.mode in STATELESS_MODES:
                raise OptionError(
                    f"error feedback is what it belongs to, and {', '.join(sorted(STATELESS_MODES))} "
                    "do without",
                    {name: value, "mode": self.mode},
                )


@dataclass(frozen=True, kw_only=True)
class PrivacyOptions(Checked):
    """What the published models may tell about any one device; see docs/privacy.md."""

    privacy: Annotated[
        str,
        one_of(*PRIVACY),
        "none, or central-dp: devices are drawn at random, their updates shortened, and the server adds "
        "noise to the sum.",
    ] = "none"
    privacy_epsilon: Annotated[
        float | None,
        optional(above(0.0, 1e3)),
        "Most epsilon of all rounds together, which end where it is spent; the noise follows from it.",
    ] = None
    privacy_delta: Annotated[
        float, number(1e-12, 0.1), "Delta of epsilon; less than one over the number of devices."
    ] = 1e-5
    privacy_noise: Annotated[
        float | None,
        optional(number(0.01, 1e4)),
        "Standard deviation of the noise over the most one update can do. Default: what epsilon needs.",
    ] = None
    privacy_clip: Annotated[
        float, above(0.0, 1e6), "Length updates are shortened to, at first or always."
    ] = 0.1
    privacy_quantile: Annotated[
        float,
        number(0.0, 0.99),
        "Part of the updates that should be shorter than that; the length follows. 0: it stays.",
    ] = 0.5
    privacy_devices: Annotated[
        int | None,
        optional(integer(1, _MANY)),
        "Devices there will be, of which the goal is drawn in each round; more is more private.",
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.privacy == "none":
            for name in ("privacy_epsilon", "privacy_noise"):
                if getattr(self, name) is not None:
                    raise OptionError("it belongs to central-dp", {name: getattr(self, name)})
        elif self.privacy_epsilon is None and self.privacy_noise is None:
            raise OptionError(
                "give the epsilon to keep or the noise to add, or both", {"privacy": self.privacy}
            )


@dataclass(frozen=True, kw_only=True)
class FederationOptions(PrivacyOptions):
    """How many rounds there are, and what becomes of their updates."""

    rounds: Annotated[int, integer(0, _MANY), "Rounds to run."] = 10
    aggregator: Annotated[
        str,
        one_of(*AGGREGATORS),
        "What makes one update of many: mean, fednova; against devices that lie, where all send the same "
        "parameters: median, trimmed-mean, krum, multi-krum, geometric-median.",
    ] = "mean"
    population: Annotated[
        int,
        integer(0, _MANY),
        "Devices there are in all, for feddyn and scaffold; 0: as many as send updates in a round.",
    ] = 0
    adversaries: Annotated[
        float, number(0.0, 0.49), "Part of the updates that may lie, for trimmed-mean, krum and multi-krum."
    ] = 0.2
    norm_bound: Annotated[
        float,
        number(0.0, 1e6),
        "Length of an update that counts whole, as a multiple of its round's median; longer ones are "
        "shortened, or set aside over twice that. 0: any.",
    ] = NORM_BOUND
    server_optimizer: Annotated[
        str, one_of(*SERVER_OPTIMIZERS), "sgd steps along the mean, the others adapt: FedAdam and its kin."
    ] = "sgd"
    server_lr: Annotated[float, above(0.0), "Step along the mean update; 1 is FedAvg."] = 1.0
    server_momentum: Annotated[
        float, number(0.0, 0.9999), "Above 0 is FedAvgM, or the first beta of adam and its kin."
    ] = 0.0
    server_beta2: Annotated[float, number(0.0, 0.99999), "Second beta of adam and yogi."] = 0.99
    server_tau: Annotated[float, above(0.0), "How adaptive adam and its kin are; less is more."] = 1e-3
    max_norm: Annotated[
        float | None, optional(above(0.0)), "Largest L2 norm of an update that is taken. Default: any."
    ] = None
    staleness: Annotated[
        int,
        integer(0, 1000),
        "Versions an update may be behind; 0 is synchronous. With more, a round is a buffer of its goal that "
        "takes late updates too, weighed by 1/sqrt(1 + versions behind) (FedBuff).",
    ] = 0
    max_examples: Annotated[int, integer(1, _MANY), "Most examples an update counts for."] = 100_000
    weight_bound: Annotated[
        float,
        number(0.0, 1e9),
        "Most examples an update counts for, as a multiple of the median of its round: nobody can verify "
        "what a device says it has. 0: any number.",
    ] = 10.0
    downlink: Annotated[
        float,
        number(0.0, 0.99),
        "Part of a version's step, in squared length, that may wait for the next ones: more makes what "
        "devices fetch shorter. 0: whole float32 models.",
    ] = DOWNLINK
    evaluate_every: Annotated[
        int,
        integer(0, _MANY),
        "Versions from one that devices measure on examples they hold out to the next; the last one always "
        "is. 0: none is.",
    ] = 0
    evaluators: Annotated[int, integer(1, 1_000_000), "Devices that measure a version, at most."] = 20


@dataclass(frozen=True, kw_only=True)
class HoldoutOptions(Checked):
    """What devices never train on."""

    holdout: Annotated[
        float,
        number(0.0, 0.9),
        "Part of the examples that is held out of training for good, to measure versions on where the server "
        "asks for it (--evaluate-every); 0.2 is 20 %.",
    ] = 0.0


@dataclass(frozen=True, kw_only=True)
class AttackOptions(Checked):
    """Devices of a simulation that lie."""

    attack: Annotated[
        str,
        text(r"|sign-flip|label-flip|scale:-?\d+(\.\d+)?"),
        "What they do: sign-flip and scale:FACTOR change their updates, label-flip their labels.",
    ] = ""
    attackers: Annotated[float, number(0.0, 1.0), "Part of the devices that do, with an attack."] = 0.2


@dataclass(frozen=True, kw_only=True)
class TimeOptions(Checked):
    """Time in a simulation of asynchronous rounds."""

    at_work: Annotated[
        int | None, optional(integer(1, _MANY)), "Devices at work at once. Default: the cohort."
    ] = None
    spread: Annotated[
        float, number(0.0, 5.0), "How unlike devices' speeds are: seconds are exp(spread x normal)."
    ] = 0.0


@dataclass(frozen=True, kw_only=True)
class PersonalOptions(Checked):
    """Models of the devices' own, after the rounds of a simulation."""

    personalize: Annotated[
        int,
        integer(0, 10_000),
        "Epochs in which every device then trains a model of its own from the last version; it keeps the "
        "best of both and their mixtures on examples held out of that. 0: none.",
    ] = 0


@dataclass(frozen=True, kw_only=True)
class ServerOptions(FederationOptions):
    """How a server runs its rounds."""

    goal: Annotated[int, integer(1, _MANY), "Updates that fill a round."] = 8
    minimum: Annotated[
        int | None,
        optional(integer(1, _MANY)),
        "Updates that fill it at the deadline. Default: half the goal.",
    ] = None
    deadline_s: Annotated[float, above(0.0, 1e9), "Seconds until a round's deadline."] = 300.0
    surplus: Annotated[
        float,
        number(0.0, 1000.0),
        "Devices that may start beyond the goal, as a part of it; they stand in for dropouts.",
    ] = 0.3
    keep_versions: Annotated[
        int,
        integer(1, _MANY),
        "Newest versions of the parameters that are kept; the first one is too, and those on the way of "
        "devices that are a little behind.",
    ] = 50
    extensions: Annotated[
        int | None,
        optional(integer(0, _MANY)),
        "Times a deadline below the minimum is put off; then a round closes with what it has, and is "
        "abandoned where that is nothing. Default: any.",
    ] = None
    selection: Annotated[
        str,
        one_of("uniform", "examples", "waiting"),
        "How places are drawn in the selection's window: all alike, by examples, or who waited longest.",
    ] = "uniform"
    selection_window_s: Annotated[
        float,
        number(0.0, 86_400.0),
        "Seconds in which devices check in before the places of a round are drawn. 0: first come.",
    ] = 0.0
    only: Annotated[
        str, text(LABELS), "Labels a device needs to take part, as in app=1.4,target=tflite. Default: none."
    ] = ""
    pace_s: Annotated[
        float,
        number(0.0, 86_400.0),
        "Seconds over which devices that found no work come back, each at a moment of its own.",
    ] = 0.0
    parties: Annotated[
        str,
        text(PARTIES),
        "Names that take part, all of them in each round and nobody else, as in alice,bob. A round that "
        "lacks one at its deadline is abandoned, after --extensions. Default: anybody.",
    ] = ""
    enrolled: Annotated[
        bool, flag, "Only devices that are enrolled take part, and sign what they ask for."
    ] = False
    per_device: Annotated[
        float, number(0.0, 1e6), "Requests a second that one enrolled device may make; 0: any."
    ] = 20.0
    per_address: Annotated[
        float,
        number(0.0, 1e6),
        "Requests a second from one address that no known device signed; 0: any.",
    ] = 20.0
    evaluate_deadline_s: Annotated[
        float, above(0.0, 1e9), "Seconds in which devices may answer how good a version is."
    ] = 600.0
    hold_rise: Annotated[
        float,
        number(0.0, 1e6),
        "Hold the rounds where a measured version's median loss is over the best of those before it by more "
        "than this part; 0.2 is 20 %. 0: never.",
    ] = 0.0
    hold_window: Annotated[
        int, integer(1, 1_000_000), "Measured versions before it among which the best is looked for."
    ] = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minimum is not None and self.minimum > self.goal:
            raise OptionError("the minimum is at most the goal", {"minimum": self.minimum, "goal": self.goal})
        if self.hold_rise and not self.evaluate_every:
            raise OptionError(
                "rounds are held by what devices find of versions; give evaluate_every too",
                {"hold_rise": self.hold_rise},
            )
        self._check_parties()

    @property
    def party_names(self) -> tuple[str, ...]:
        """The parties, none where anybody takes part."""
        return tuple(self.parties.split(",")) if self.parties else ()

    def _check_parties(self) -> None:
        names = self.party_names
        if len(set(names)) < len(names):
            raise OptionError("a name is there twice", {"parties": self.parties})
        others = {
            "minimum": self.minimum,
            "staleness": self.staleness,
            "selection_window_s": self.selection_window_s,
        }
        for name, value in others.items():
            if names and value:
                raise OptionError(
                    "all parties are waited for, and nobody else", {"parties": self.parties, name: value}
                )


@dataclass(frozen=True, kw_only=True)
class WhenOptions(Checked):
    """When a device trains. The defaults ask for nothing; a server may only ask for more."""

    charging: Annotated[bool, flag, "Train only while charging, or without a battery."] = False
    battery: Annotated[int, integer(0, 100), "Train only with this much in the battery, in percent."] = 0
    unmetered: Annotated[bool, flag, "Train only on a network that nobody pays for by the byte."] = False
    full_power: Annotated[bool, flag, "Train only while nobody asked the system to save power."] = False
    busy: Annotated[
        float | None,
        optional(number(0.0, 1.0)),
        "Train only while other work takes at most this part of the processors; 0.2 is 20 %. Default: any.",
    ] = None
    temperature: Annotated[
        float | None,
        optional(number(-40.0, 150.0)),
        "Train only up to so many degrees Celsius.",
    ] = None
    cool: Annotated[bool, flag, "Train only while the system does not slow itself down for heat."] = False
    free_storage: Annotated[
        int, byte_count(MAX_BYTES), "Train only with this much room on the disk, such as 500MB."
    ] = 0
    free_memory: Annotated[
        int, byte_count(MAX_BYTES), "Train only with this much memory to be had, such as 200MB."
    ] = 0
    window: Annotated[
        str | None,
        optional(daily()),
        "Train only in these hours of local time, as 22:00-06:00.",
    ] = None
    new_examples: Annotated[
        int, integer(0, _MANY), "Train only with so many examples more than at the last update."
    ] = 0
    per_day: Annotated[
        int, integer(0, 1000), "Most updates in any 24 hours; 0: as many as there are rounds."
    ] = 0


@dataclass(frozen=True, kw_only=True)
class LimitOptions(Checked):
    """What one round may cost a device, whatever the server asks for."""

    max_epochs: Annotated[int, integer(0, 10_000), "Most passes over the examples; 0: any."] = 0
    max_steps: Annotated[int, integer(0, 1_000_000), "Most batches to train on; 0: any."] = 0
    max_time_s: Annotated[
        float | None,
        optional(above(0.0, 1e9)),
        "Most seconds of training; the steps made by then count, the first always does.",
    ] = None
    max_payload: Annotated[
        int, byte_count(MAX_BYTES), "Longest update, such as 20kB; a longer one is made to fit. 0: any."
    ] = 0
    duty: Annotated[int, integer(1, 100), "Percent of the time to train in; the rest is slept."] = 100
    nice: Annotated[int, integer(0, 19), "How much other programs go first; 19: always."] = 0
    threads: Annotated[int, integer(1, 1024), "Threads for one step."] = 1


@dataclass(frozen=True, kw_only=True)
class DataOptions(Checked):
    """How examples are read that are no `.npz`, see docs/data.md."""

    columns: Annotated[
        str | None,
        optional(text(".+")),
        "Columns of a table that are the input: a,b or acc_*; of several inputs first=a,b;second=c. "
        "Default: all others.",
    ] = None
    label_column: Annotated[
        str | None, optional(text(".+")), "Column of the labels. Default: y or label."
    ] = None
    weight_column: Annotated[
        str | None, optional(text(".+")), "Column that says how much each example counts."
    ] = None
    classes: Annotated[
        str | None,
        optional(text(".+")),
        "Names of all classes in the model's order, with commas. Default: those found, sorted.",
    ] = None
    resize: Annotated[
        str | None,
        optional(text(r"[1-9]\d{0,5}(x[1-9]\d{0,5})?")),
        "Size to bring images to, as 96x96, or the samples recordings are cut or filled to, as 16000.",
    ] = None
    channels_first: Annotated[bool, flag, "Images as channels, height, width, where no model says how."] = (
        False
    )
    rate: Annotated[int, integer(0, 10_000_000), "Samples a second that recordings must have; 0: any."] = 0
    scale: Annotated[float, number(-1e9, 1e9), "What numbers of the input are multiplied by."] = 1.0
    offset: Annotated[float, number(-1e9, 1e9), "What is added to them after that."] = 0.0


@dataclass(frozen=True, kw_only=True)
class StoreOptions(Checked):
    """How much an example store keeps; what is beyond goes, the oldest first. 0 sets no limit."""

    keep_examples: Annotated[int, integer(0, _MANY), "Most examples that are kept; 0: any."] = 0
    keep_bytes: Annotated[int, byte_count(MAX_BYTES), "Most bytes of examples, such as 50MB; 0: any."] = 0
    keep_days: Annotated[float, number(0.0, 36_500.0), "Days an example is kept; 0: any."] = 0.0
    keep_per_label: Annotated[int, integer(0, _MANY), "Most examples of one class; 0: any."] = 0


@dataclass(frozen=True, kw_only=True)
class EngineOptions(Checked):
    """What runs the graphs, see `edgefl.runtime.open_backend`."""

    backend: Annotated[
        str,
        text(".+"),
        "Engine: auto, onnx, openvino, tflite, numpy or ort-training. auto takes the first there is, "
        "of onnx and openvino the faster, and never ort-training.",
        "-b",
    ] = "auto"
    delegate: Annotated[
        str,
        text(".+"),
        "auto (the fastest here that proves right), cpu, a name such as xnnpack, or the path of a "
        "TFLite delegate library; with options: 'cuda;device_id=1'.",
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class ReachOptions(Checked):
    """How to get to a server."""

    ca: Annotated[
        str | None,
        optional(text(".+")),
        "PEM file of the authority that signed the server's certificate.",
    ] = None
    certificate: Annotated[
        str | None, optional(text(".+")), "PEM file to show a server that asks for certificates."
    ] = None
    key: Annotated[str | None, optional(text(".+")), "PEM file of that certificate's key."] = None
    pin: Annotated[
        str | None,
        optional(text(".+")),
        "Key the server must have, as sha256/BASE64; several with commas. Its certificate must be good too.",
    ] = None
    insecure: Annotated[
        bool, switch, "Speak plain http to another machine, where others can read and change everything."
    ] = False


PublisherKeys = Annotated[
    str | None,
    optional(text(r"ed25519:[A-Za-z0-9_-]{43}(,ed25519:[A-Za-z0-9_-]{43})*")),
    "Public key that must have signed the model, as edgefl keys new prints it; several with commas.",
]


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(ReachOptions, HoldoutOptions):
    """Join a federation: train on local examples whenever the server has a round, until it has finished.

    The examples stay here; what is sent is a coded update. A server that is down is waited for. Started again
    on the same --workdir it first sends what it had not sent. --status and --history look at a device that
    may be running, and neither train nor ask the server.
    """

    server: Annotated[str | None, optional(text(".+")), "The server's URL.", "-s"] = None
    data: Annotated[
        str | None,
        optional(text(".+")),
        "Examples: .npz with x and y or one array per input, CSV, Parquet, or a folder (docs/data.md).",
        "-d",
    ] = None
    store: Annotated[
        str | None, optional(text(".+")), "Example store, in place of --data; read anew for each round."
    ] = None
    store_key: Annotated[
        str | None,
        optional(text(".+")),
        "File with the key of an encrypted store: 32 bytes, or as 64 digits.",
    ] = None
    workdir: Annotated[str, text(".+"), "Kept between runs: model, residual, unsent update, history."] = (
        "edgefl-device"
    )
    id: Annotated[str | None, optional(text(".+")), "This device's name; made once if absent."] = None
    labels: Annotated[str, text(LABELS), "What the server may choose by, as in app=1.4,beta=yes."] = ""
    token: Annotated[
        str | None,
        optional(text(r"[A-Za-z0-9_-]{1,128}")),
        "Enrol with this token first, where the device is not enrolled yet.",
    ] = None
    scheme: Annotated[
        str, one_of("hmac", "ed25519"), "Key to enrol with: hmac, or ed25519 by the package cryptography."
    ] = "hmac"
    publisher_key: PublisherKeys = None
    bundle_bytes: Annotated[
        int, byte_count(MAX_BYTES), "Longest bundle to accept from the server, such as 1000MB."
    ] = BUNDLE_BYTES
    max_rounds: Annotated[
        int | None, optional(integer(1, _MANY)), "Stop after this many rounds. Default: never."
    ] = None
    status: Annotated[bool, switch, "Say what the device does, and why it does not train."] = False
    history: Annotated[bool, switch, "Say what the device did: rounds, losses, bytes, pauses."] = False
    json: Annotated[
        bool, switch, "Print JSON: one object per line and round, or one for --status and --history."
    ] = False


def keys_in(written: str | None) -> tuple[str, ...]:
    """The keys that an option of `PublisherKeys` names."""
    return tuple(written.split(",")) if written else ()


SECTIONS: Mapping[str, type[Checked]] = {
    "engine": EngineOptions,
    "fit": FitOptions,
    "coding": CodingOptions,
    "server": ServerOptions,
    "attack": AttackOptions,
    "time": TimeOptions,
    "personal": PersonalOptions,
    "when": WhenOptions,
    "limits": LimitOptions,
    "device": DeviceOptions,
    "store": StoreOptions,
    "data": DataOptions,
}
"""What stands together in a file of options."""


def changed(options: O, given: Mapping[str, Any], what: str) -> O:
    """The same options with other values for some, by name.

    Args:
        what: who takes the options, for the error.

    Raises:
        OptionError: a name there is not, or a value its rule does not take.
    """
    allowed = [f.name for f in fields(options)]  # type: ignore[arg-type]
    for name in given:
        if name not in allowed:
            raise OptionError(f"{what} has no option {name!r}{nearest(name, allowed)}")
    return replace(options, **given)  # type: ignore[type-var]


def nearest(name: str, allowed: list[str]) -> str:
    """What may have been meant by a name, and what is allowed, as the end of a message."""
    close = get_close_matches(name, allowed, 1)
    return f"{f', {close[0]} may be meant' if close else ''}; allowed are {', '.join(allowed)}"
