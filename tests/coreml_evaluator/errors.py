# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a saved Core ML file, or with what it is asked."""

from __future__ import annotations


class EvaluatorError(Exception):
    """Base of what the evaluator raises on purpose."""


class MalformedFile(EvaluatorError):
    """The file is no Core ML file, or contradicts itself."""


class TooLarge(EvaluatorError):
    """A declared size is over the limit."""


class Unsupported(EvaluatorError):
    """An operator, layer or feature that the evaluator does not know."""


class WrongFeeds(EvaluatorError):
    """The arrays given are not the model's inputs."""


class Refused(EvaluatorError):
    """Core ML's documentation does not allow what an operation asks for."""
