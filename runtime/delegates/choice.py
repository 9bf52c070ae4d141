# SPDX-License-Identifier: Apache-2.0
"""How an engine is asked to run a graph, how that went, and where the graph then ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CPU = "cpu"

State = Literal["right", "slower", "idle", "wrong", "refused", "crashed", "hung", "untried"]


@dataclass(frozen=True)
class Choice:
    """One way to run a graph on one engine.

    Attributes:
        engine: `onnx` or `tflite`.
        name: `cpu`, a name of the registry, or the path of a delegate library.
        library: file of an external TFLite delegate, empty for what the engine has inside.
        provider: onnxruntime's name of an execution provider, empty on TFLite.
        options: what the delegate or provider is given.
        dtype: the coarsest arithmetic it may use, which sets how close its results must come.
        limit_s: seconds a trial may take.
    """

    engine: str
    name: str = CPU
    library: str = ""
    provider: str = ""
    options: tuple[tuple[str, str], ...] = ()
    dtype: str = "float32"
    limit_s: float = 60.0

    @property
    def built_in(self) -> bool:
        """Part of the engine's own package, which is trusted not to take the process down."""
        return not self.library and self.provider in ("", "CPUExecutionProvider", "XnnpackExecutionProvider")


@dataclass(frozen=True)
class Verdict:
    """What a trial found.

    Attributes:
        delegate: whose trial it was.
        graph: the artifact kind it was tried on.
        state: `right` it gives the CPU's results, and sooner; `slower` they come later, or another is faster;
            `idle` it took no operator; `wrong` its results differ; `refused` it would not load or run;
            `crashed`, `hung` its process was lost; `untried` no process could be made to try it in.
        reason: in words.
        error: worst difference from the CPU over the allowed one: 1 is just allowed; 0 where nothing ran.
        ms: of one run, 0 where nothing ran.
        cpu_ms: of one run on the engine's own CPU code.
        operators: in the graph, None where the engine does not say.
        taken: of these, by the delegate.
        partitions: pieces of the graph the delegate runs.
    """

    delegate: str
    graph: str
    state: State
    reason: str
    error: float = 0.0
    ms: float = 0.0
    cpu_ms: float = 0.0
    operators: int | None = None
    taken: int | None = None
    partitions: int | None = None

    def __str__(self) -> str:
        return f"{self.delegate} {self.state} for {self.graph}: {self.reason}"


@dataclass(frozen=True)
class Placement:
    """Which graph ran where.

    Attributes:
        graph: the artifact kind.
        delegate: what runs it; `cpu` is the engine's own code.
        operators: in the graph, None where the engine does not say.
        taken: of these, by the delegate; the others fell back to the CPU.
        partitions: pieces of the graph the delegate runs.
        tried: verdicts on the other delegates that are present.
        speedup: the CPU's time over the delegate's, when they were tried; None on the CPU.
    """

    graph: str
    delegate: str = CPU
    operators: int | None = None
    taken: int | None = None
    partitions: int | None = None
    tried: tuple[Verdict, ...] = ()
    speedup: float | None = None

    @property
    def fell_back(self) -> int | None:
        """Operators that the delegate left to the CPU; None where the engine does not say."""
        if self.delegate == CPU:
            return 0
        return None if self.operators is None or self.taken is None else self.operators - self.taken

    def __str__(self) -> str:
        text = f"{self.graph} on {self.delegate}"
        if self.delegate != CPU and self.operators is not None:
            pieces = f"{self.partitions} part{'' if self.partitions == 1 else 's'}"
            text += f": {self.taken} of {self.operators} operators in {pieces}, {self.fell_back} on cpu"
        if self.speedup is not None:
            text += f", {self.speedup:.2g} x the speed of cpu"
        return "; ".join([text, *(f"not {v.delegate} ({v.state}: {v.reason})" for v in self.tried)])
