# SPDX-License-Identifier: Apache-2.0
"""Every exception edgefl raises on purpose.

EdgeflError
├── OptionError              an option was given a value it cannot have
├── MissingDependency        an optional package is not installed (names what brings it)
├── ConversionError          a model cannot become a bundle
│   ├── SourceError          the model cannot be loaded or traced
│   ├── SelectionError       what to train was named, but nothing matches
│   ├── UnsupportedOperator  a node has no kernel, or no counterpart on a target
│   ├── NotDifferentiable    a node between the loss and a trainable parameter has no gradient
│   ├── NotProved            an engine does not compute a written file as NumPy does
│   └── CalibrationError     calibration examples are missing, too few or unusable
├── GraphError               an ONNX file or a graph is malformed
├── BundleError              a bundle file cannot be trusted or read
│   ├── BundleTruncated      the file ends early or is no bundle at all
│   ├── BundleVersion        written by a newer format than this release reads
│   ├── BundlePath           an entry name that could leave the bundle
│   ├── BundleTooLarge       a declared size is over the limit
│   ├── BundleEntry          an entry is missing, doubled or not listed in the manifest
│   ├── BundleHash           an entry's bytes differ from the manifest's sha256
│   ├── BundleSignature      no publisher that is trusted here has signed it, or not as it is now
│   ├── BundleUnsafe         a file in it names other files or strangers' code, or is not of its format
│   └── ManifestError        manifest.json is not what the format asks for
├── TensorFileError          a tensor container (safetensors layout) is malformed
├── DataError                the examples given do not fit the model
│   ├── DataShape            wrong number of dimensions or sizes
│   ├── DataType             a dtype that cannot be used without loss
│   ├── LabelRange           a class label outside the model's classes
│   ├── IndexRange           a number outside what the model looks up with it, such as a token id
│   ├── NotResumable         a checkpoint of another training
│   └── NotFinite            NaN or infinity in data, loss, gradients or parameters
├── BackendError             no engine can run a graph
│   ├── BackendUnavailable   the engine is not installed or the bundle lacks its artifact
│   └── BackendFailure       the engine refused or crashed on a graph
├── DeltaError               an update cannot be encoded or decoded (see edgefl.delta)
│   ├── DeltaOption          the encoder was asked for something that does not exist
│   ├── DeltaTruncated       the frame ends early
│   ├── DeltaTrailing        bytes are left over
│   ├── DeltaTooLarge        more bytes or values than the task allows
│   ├── DeltaChecksum        damaged on the way
│   ├── DeltaMagic           no frame at all
│   ├── DeltaVersion         a format version this release does not read
│   ├── DeltaFlags           a flag this release does not know
│   ├── DeltaSchema          made for other parameters
│   ├── DeltaBase            made from a model version outside the accepted window
│   ├── DeltaMeta            the metadata is no JSON object or too long
│   ├── DeltaSection         a section of unknown kind, or with fields its kind does not allow
│   ├── DeltaRange           sections that overlap, are out of order or leave the vector
│   ├── DeltaStream          a stream does not decode to exactly the bytes it must
│   ├── DeltaCoder           a stream's coder is unknown or not installed here
│   ├── DeltaIndex           positions outside their section, or padding that is not zero
│   └── DeltaValue           values that are not finite or over the task's bound
├── DiskFull                 no room on the disk (worth a retry); an OSError too
├── StoreError               a database of the server or of examples cannot be used, or is another model's
│   └── StoreLost            it was usable, and is gone or another server's now
└── ProtocolError            client and server disagree
    ├── ServerUnreachable    no answer within the time allowed (worth a retry)
    ├── ServerNonsense       an answer that is not the protocol's
    └── Refused              the server refused a request, with its reason
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgefl.requirements import pip_install


class EdgeflError(Exception):
    """Base of all errors raised on purpose."""


class OptionError(EdgeflError):
    """An option was given a value it cannot have, or two do not go together.

    Attributes:
        reason: what is wrong, without the options.
        given: the options at fault by name, with their values; empty where the reason says it all.
    """

    def __init__(self, reason: str, given: Mapping[str, object] | None = None) -> None:
        self.reason, self.given = reason, dict(given or {})
        super().__init__(self.spelled(lambda name, value: f"{name}={value!r}"))

    def spelled(self, spell: Callable[[str, object], str]) -> str:
        """The message with each option as `spell(name, value)` has it; by default as Python's keyword."""
        named = " with ".join(spell(name, value) for name, value in self.given.items())
        return f"{named}: {self.reason}" if named else self.reason


class MissingDependency(EdgeflError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        """
        Args:
            extra: what else is needed for the purpose, as the extras of the distribution, with commas between
                them; "" where the package is enough.
        """
        super().__init__(f"{purpose} needs the package {package!r}: {pip_install(package, extra)}")
        self.package = package


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


class NotProved(ConversionError):
    """An engine does not compute a written file as NumPy does."""


class CalibrationError(ConversionError):
    """Calibration examples are missing, too few or unusable."""


class NotTrained(UserWarning):
    """A conversion's warning: what was asked to be trained and is not, and why."""


class WrongElsewhere(UserWarning):
    """A conversion's warning: an engine that shares a file with the one it is written for gets it wrong."""


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


class BundleSignature(BundleError):
    """No publisher that is trusted here has signed a bundle, or not as it is now."""


class BundleUnsafe(BundleError):
    """A file in the bundle would make an engine reach outside it, or is not of its format."""


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


class IndexRange(DataError):
    """A number outside what the model looks up with it, such as a token id."""


class NotResumable(DataError):
    """A checkpoint of other options, examples or parameters."""


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


class DeltaOption(DeltaError):
    """The encoder was asked for a mode, density or setting that does not exist."""


class DeltaTruncated(DeltaError):
    """The frame ends before what it declares."""


class DeltaTrailing(DeltaError):
    """Bytes are left over after everything the frame declares."""


class DeltaTooLarge(DeltaError):
    """More bytes or more values than the task allows."""


class DeltaChecksum(DeltaError):
    """The checksum differs: the frame was damaged on the way."""


class DeltaMagic(DeltaError):
    """The bytes are no update frame."""


class DeltaVersion(DeltaError):
    """Written by a format version this release does not read."""


class DeltaFlags(DeltaError):
    """A flag is set that this release does not know."""


class DeltaSchema(DeltaError):
    """The update was made for other parameters."""


class DeltaBase(DeltaError):
    """The update starts from a model version outside the accepted window."""


class DeltaMeta(DeltaError):
    """The metadata is not a JSON object, or too long."""


class DeltaSection(DeltaError):
    """A section is of unknown kind or has fields its kind does not allow."""


class DeltaRange(DeltaError):
    """Sections overlap, are out of order or leave the vector."""


class DeltaStream(DeltaError):
    """A stream does not decode to exactly the bytes it must."""


class DeltaCoder(DeltaError):
    """A stream's coder is unknown, or not installed on this machine."""


class DeltaIndex(DeltaError):
    """Positions leave their section, or padding is not zero."""


class DeltaValue(DeltaError):
    """Values are not finite or exceed the task's bound."""


class DiskFull(EdgeflError, OSError):
    """There is no room on the disk; worth a retry."""


class StoreError(EdgeflError):
    """A database of the server or of examples cannot be used, or belongs to another model."""


class StoreLost(StoreError):
    """The database a server worked on was deleted, or another server has taken it over."""


class ProtocolError(EdgeflError):
    """Client and server disagree."""


class ServerUnreachable(ProtocolError):
    """No answer within the time allowed; worth a retry.

    Attributes:
        retry_after_s: seconds the server asked to be left alone for, if it did.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServerNonsense(ProtocolError):
    """An answer that is not the protocol's."""


class Refused(ProtocolError):
    """The server refused a request.

    Attributes:
        status: the HTTP status code.
        reason: the server's short machine-readable reason, such as `unknown-round`.
        headers: what goes with the answer beside its body.
    """

    def __init__(
        self, status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(f"server refused ({status} {reason}): {detail}")
        self.status, self.reason, self.detail = status, reason, detail
        self.headers = dict(headers or {})
