# SPDX-License-Identifier: Apache-2.0
"""Examples as the step takes them: through the frozen part where there is one, once per example."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Bundle
from edgefl.errors import BackendError, BackendUnavailable
from edgefl.runtime.backends import Backend, Program
from edgefl.runtime.batches import Batches
from edgefl.runtime.feature_cache import FeatureCache
from edgefl.runtime.kinds import features_kinds
from edgefl.strictjson import canonical

log = logging.getLogger("edgefl.features")
Array = npt.NDArray[Any]


class FrozenPart:
    """The features graph of a bundle on an engine.

    Attributes:
        cache: where features are kept; None makes them anew each time.
        cached: of how many examples the latest call had the features there.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        program: Callable[[str], Program],
        cache: FeatureCache | None,
    ) -> None:
        """
        Args:
            program: the loaded graph of an artifact kind.
        """
        self._manifest, self._backend = bundle.manifest, backend
        self._program, self.cache = program, cache
        self._kinds = features_kinds(self._manifest, backend.target)
        self.cached = 0

    def __call__(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """What the step takes, by name, `[examples, ...]`.

        Raises:
            BackendUnavailable: the bundle lacks the artifact.
            BackendFailure: the engine refuses every form of it.
        """
        self.cached = 0
        if self._kinds:
            # What the step reads of the data itself need not pass through the graph.
            made = {**inputs, **self._made(inputs)}
            return {spec.name: made[spec.name] for spec in self._manifest.step_inputs}
        if self._manifest.step_inputs != self._manifest.inputs:
            raise BackendUnavailable(
                f"bundle {self._manifest.name!r} has no {self._backend.target}/features artifact, "
                "which makes what its step takes"
            )
        return inputs

    def _made(self, inputs: dict[str, Array]) -> dict[str, Array]:
        if self.cache is None:
            return self._run(inputs)
        made, self.cached = self.cache.through(self._subject(), inputs, self._run)
        return made

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return map_batches(self._loaded(), inputs, {}, self._manifest.batch_size)

    def _loaded(self) -> Program:
        *preferred, last = self._kinds
        for kind in preferred:
            try:
                return self._program(kind)
            except BackendError as exc:
                log.warning("%s is used in place of %s: %s", last, kind, exc)
                self._kinds = (last,)
        return self._program(last)

    def _subject(self) -> str:
        """Digest of everything the features depend on."""
        target = self._backend.target
        artifacts = [self._manifest.find(target, kind) for kind in features_kinds(self._manifest, target)]
        graphs = [artifact.entry.sha256 for artifact in artifacts if artifact is not None]
        text = canonical([graphs, self._backend.name, self._backend.version])
        return hashlib.blake2b(text, digest_size=16).hexdigest()


def map_batches(
    program: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    inputs: Mapping[str, Array],
    constant: Mapping[str, Array],
    batch_size: int,
) -> dict[str, Array]:
    """A graph's outputs for all examples, batch by batch."""
    batches = Batches(inputs, batch_size)
    outputs: dict[str, Array] = {}
    start = 0
    for feeds, count in batches():
        for name, value in program({**feeds, **constant}).items():
            if name not in outputs:
                outputs[name] = np.empty((batches.examples, *value.shape[1:]), value.dtype)
            outputs[name][start : start + count] = value[:count]
        start += count
    return outputs
