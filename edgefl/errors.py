# SPDX-License-Identifier: Apache-2.0
"""Every exception edgefl raises on purpose.

EdgeflError
├── MissingDependency        an optional package is not installed (names the extra that brings it)
├── ConversionError          a model cannot become a bundle
│   ├── SourceError          the model cannot be loaded or traced
│   ├── SelectionError       what to train was named, but nothing matches
│   ├── UnsupportedOperator  a node has no kernel, or no counterpart on a target
│   ├── NotDifferentiable    a node between the loss and a trainable parameter has no gradient
│   └── CalibrationError     calibration examples are missing, too few or unusable
├── GraphError               an ONNX file or a graph is malformed
├── BundleError              a bundle file cannot be trusted or read
│   ├── BundleTruncated      the file ends early or is no bundle at all
│   ├── BundleVersion        written by a newer format than this release reads
│   ├── BundlePath           an entry name that could leave the bundle
│   ├── BundleTooLarge       a declared size is over the limit
│   ├── BundleEntry          an entry is missing, doubled or not listed in the manifest
│   ├── BundleHash           an entry's bytes differ from the manifest's sha256
│   └── ManifestError        manifest.json is not what the format asks for
├── TensorFileError          a tensor container (safetensors layout) is malformed
├── DataError                the examples given do not fit the model
│   ├── DataShape            wrong number of dimensions or sizes
│   ├── DataType             a dtype that cannot be used without loss
│   ├── LabelRange           a class label outside the model's classes
│   └── NotFinite            NaN or infinity in data, loss, gradients or parameters
├── BackendError             no engine can run a graph
│   ├── BackendUnavailable   the engine is not installed or the bundle lacks its artifact
│   └── BackendFailure       the engine refused or crashed on a graph
├── DeltaError               an update cannot be encoded or decoded (see edgefl.delta)
└── ProtocolError            client and server disagree
    ├── ServerUnreachable    no answer within the time allowed (worth a retry)
    ├── ServerNonsense       an answer that is not the protocol's
    └── Refused              the server refused a request, with its reason
"""

from __future__ import annotations


class EdgeflError(Exception):
    """Base of all errors raised on purpose."""


class MissingDependency(EdgeflError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}: pip install 'edgefl[{extra}]'")
        self.package, self.extra = package, extra


class ConversionError(EdgeflError):
    """A model cannot become a bundle."""


class SourceError(ConversionError):
    """The model cannot be loaded or traced."""


class SelectionError(ConversionError):
    """The trainable selection matches nothing or contradicts itself."""


class UnsupportedOperator(ConversionError):
    """A node has no kernel, or no counterpart on a target."""


class NotDifferentiable(ConversionError):
    """A node between the loss and a trainable parameter has no gradient."""


class CalibrationError(ConversionError):
    """Calibration examples are missing, too few or unusable."""


class GraphError(EdgeflError):
    """An ONNX file or a graph is malformed."""


class BundleError(EdgeflError):
    """A bundle file cannot be trusted or read."""


class BundleTruncated(BundleError):
    """The file ends early or is no bundle at all."""


class BundleVersion(BundleError):
    """Written by a format version this release does not read."""


class BundlePath(BundleError):
    """An entry name that could leave the bundle."""


class BundleTooLarge(BundleError):
    """A declared size is over the limit."""


class BundleEntry(BundleError):
    """An entry is missing, doubled or not listed in the manifest."""


class BundleHash(BundleError):
    """An entry's bytes differ from the manifest's sha256."""


class ManifestError(BundleError):
    """manifest.json is not what the format asks for."""


class TensorFileError(EdgeflError):
    """A tensor container (safetensors layout) is malformed."""


class DataError(EdgeflError):
    """The examples given do not fit the model."""


class DataShape(DataError):
    """Wrong number of dimensions or sizes."""


class DataType(DataError):
    """A dtype that cannot be used without loss."""


class LabelRange(DataError):
    """A class label outside the model's classes."""


class NotFinite(DataError):
    """NaN or infinity in data, loss, gradients or parameters."""


class BackendError(EdgeflError):
    """No engine can run a graph."""


class BackendUnavailable(BackendError):
    """The engine is not installed, or the bundle lacks its artifact."""


class BackendFailure(BackendError):
    """The engine refused or failed on a graph."""


class DeltaError(EdgeflError):
    """An update cannot be encoded or decoded."""


class ProtocolError(EdgeflError):
    """Client and server disagree."""


class ServerUnreachable(ProtocolError):
    """No answer within the time allowed; worth a retry."""


class ServerNonsense(ProtocolError):
    """An answer that is not the protocol's."""


class Refused(ProtocolError):
    """The server refused a request.

    Attributes:
        status: the HTTP status code.
        reason: the server's short machine-readable reason, such as `unknown-round`.
    """

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(f"server refused ({status} {reason}): {detail}")
        self.status, self.reason, self.detail = status, reason, detail
