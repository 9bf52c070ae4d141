# SPDX-License-Identifier: Apache-2.0
"""The server's routes as methods: answers are checked, refusals raised."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import TypeVar
from urllib.parse import quote

import numpy as np

from edgefl.bundle import Bundle
from edgefl.bundle.archive import MAX_BUNDLE_BYTES
from edgefl.bundle.publisher import ANYONE, Publishers
from edgefl.delta import SparseDelta
from edgefl.delta.lattice import decode_moves
from edgefl.delta.snapshot import decode_weights
from edgefl.errors import (
    BundleError,
    BundleSignature,
    BundleTooLarge,
    DataError,
    DeltaError,
    ProtocolError,
    Refused,
    ServerNonsense,
    ServerUnreachable,
    TensorFileError,
)
from edgefl.identity.messages import Enrol, Enrolled
from edgefl.lineage import VersionInfo, Versions
from edgefl.message import Message
from edgefl.parameters import Arrays, Schema, Vector
from edgefl.runtime.transport import Response, Transport
from edgefl.tensorfile import read_tensors
from edgefl.wire import (
    MAX_JSON_BYTES,
    MAX_LIST_BYTES,
    Accepted,
    CheckIn,
    CheckInAnswer,
    Decline,
    Evaluated,
    EvaluationInfo,
    Evaluations,
    Failure,
    Participant,
    Participants,
    RoundInfo,
    Rounds,
    Status,
)

M = TypeVar("M", bound=Message)
_HEADER_ROOM = 1 << 20
_BUSY = (408, 425, 429)


class Remote:
    """One server.

    What a body is follows from its route: a content type would be a tenth of what a small update takes.

    Every method raises ServerUnreachable and ServerNonsense, both worth a retry, and Refused, which is not.

    Attributes:
        publishers: whose bundles are accepted.
        bytes_up: bodies sent so far.
        bytes_down: bodies received so far.
    """

    def __init__(
        self,
        transport: Transport,
        bundle_bytes: int = MAX_BUNDLE_BYTES,
        publishers: Publishers = ANYONE,
    ) -> None:
        """
        Args:
            bundle_bytes: the longest bundle to accept.
            publishers: whose bundles to accept.
        """
        self._transport, self._bundle_bytes, self.publishers = transport, bundle_bytes, publishers
        self.bytes_up = 0
        self.bytes_down = 0

    def enrol(self, message: Enrol) -> Enrolled:
        return parsed(Enrolled, self._ask("POST", "/v1/enrol", message.to_bytes(), {}))

    def check_in(self, message: CheckIn) -> CheckInAnswer:
        answer = self._ask("POST", "/v1/check-in", message.to_bytes(), {})
        return parsed(CheckInAnswer, answer)

    def bundle(self, target: str | None, tag: str = "") -> tuple[Bundle, bytes, str] | None:
        """The verified bundle, cut to a target or whole, with its bytes and entity tag.

        None where the one tagged `tag` is current. BundleSignature where no trusted publisher has signed it:
        asking again would not mend that.
        """
        headers = {"if-none-match": tag} if tag else {}
        path = "/v1/bundle" if target is None else f"/v1/bundle?target={quote(target)}"
        answer = self._ask("GET", path, b"", headers, self._bundle_bytes, (200, 304))
        if answer.status == 304:
            return None
        size, most = len(answer.body), self._bundle_bytes
        if size > most:  # any answer may be as long as a refusal
            raise BundleTooLarge(f"GET {path}: the bundle has {size} bytes, this device is allowed {most}")
        try:
            opened = Bundle.open(answer.body, self.publishers)
            return opened, answer.body, answer.headers.get("etag", "")
        except BundleSignature as exc:
            raise BundleSignature(f"GET {path}: {exc}") from exc
        except BundleError as exc:
            raise ServerNonsense(f"the server's bundle cannot be used: {exc}") from exc

    def parameters(self, version: int, schema: Schema) -> Arrays:
        """The shared parameters of a version, finite and as the schema says."""
        limit = 8 * schema.size + _HEADER_ROOM
        answer = self._ask("GET", f"/v1/parameters/{version}", b"", {}, limit)
        _check_tag(answer, f"version {version} of the parameters")
        try:
            values = read_tensors(answer.body)
            if not np.isfinite(schema.flatten(values)).all():
                raise ServerNonsense(f"version {version} of the parameters has NaN or infinity")
        except (TensorFileError, DataError) as exc:
            raise ServerNonsense(f"version {version} of the parameters cannot be used: {exc}") from exc
        return values

    def moves(self, version: int, held: int, schema: Schema) -> Iterator[SparseDelta]:
        """The steps that lead from a version this device holds to another, or all since the first.

        At least one; each is decoded when it is asked for.
        """
        body = self.way(version, held, schema)
        try:
            yield from decode_moves(body, schema_id=schema.id, size=schema.size, versions=range(version))
        except DeltaError as exc:
            raise ServerNonsense(f"the steps to version {version} cannot be used: {exc}") from exc

    def way(self, version: int, held: int, schema: Schema) -> bytes:
        """The frames of `moves` as they come, which nobody has looked at yet."""
        limit = 8 * schema.size + _HEADER_ROOM
        return self._ask("GET", f"/v1/parameters/{version}/from/{held}", b"", {}, limit).body

    def weights(self, version: int, form: str, schema: Schema) -> Arrays:
        """The shared parameters of a version for inference, `int8` or `float16`."""
        limit = 8 * schema.size + _HEADER_ROOM
        answer = self._ask("GET", f"/v1/weights/{version}?form={quote(form)}", b"", {}, limit)
        try:
            return decode_weights(answer.body, schema, version)
        except DeltaError as exc:
            raise ServerNonsense(f"the weights of version {version} cannot be used: {exc}") from exc

    def control(self, version: int, schema: Schema) -> Vector:
        """The server's control variate at the newest version, float32 of shape `(schema.size,)`."""
        limit = 8 * schema.size + _HEADER_ROOM
        answer = self._ask("GET", f"/v1/control/{version}", b"", {}, limit)
        try:
            return schema.flatten(decode_weights(answer.body, schema, version))
        except DeltaError as exc:
            raise ServerNonsense(f"the control variate of version {version} cannot be used: {exc}") from exc

    def status(self) -> Status:
        return parsed(Status, self._ask("GET", "/v1/status", b"", {}))

    def rounds(self) -> tuple[RoundInfo, ...]:
        return parsed(Rounds, self._ask("GET", "/v1/rounds", b"", {}, MAX_LIST_BYTES)).rounds

    def participants(self, round_number: int) -> tuple[Participant, ...]:
        path = f"/v1/rounds/{round_number}/participants"
        return parsed(Participants, self._ask("GET", path, b"", {}, MAX_LIST_BYTES)).participants

    def upload(self, round_number: int, assignment: str, frame: bytes) -> Accepted:
        answer = self._ask("PUT", f"/v1/rounds/{round_number}/updates/{assignment}", frame, {})
        accepted = parsed(Accepted, answer)
        if not accepted.accepted:
            raise ServerNonsense("the server answers an upload with accepted: false")
        return accepted

    def versions(self) -> tuple[VersionInfo, ...]:
        """Every version there ever was, oldest first."""
        return parsed(Versions, self._ask("GET", "/v1/versions", b"", {}, MAX_LIST_BYTES)).versions

    def evaluations(self) -> tuple[EvaluationInfo, ...]:
        """Every version that was to be measured, oldest first."""
        return parsed(Evaluations, self._ask("GET", "/v1/evaluations", b"", {}, MAX_LIST_BYTES)).evaluations

    def evaluated(self, version: int, assignment: str, found: Evaluated) -> Accepted:
        """Answer how good a version is."""
        path = f"/v1/evaluations/{version}/{assignment}"
        return parsed(Accepted, self._ask("PUT", path, found.to_bytes(), {}))

    def decline(self, round_number: int, assignment: str, reason: str) -> None:
        body = Decline(reason).to_bytes()
        self._ask("PUT", f"/v1/rounds/{round_number}/declines/{assignment}", body, {}, good=(200, 204))

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        limit: int = MAX_JSON_BYTES,
        good: tuple[int, ...] = (200,),
    ) -> Response:
        answer = self._transport.request(method, path, body, headers, limit=max(limit, MAX_JSON_BYTES))
        self.bytes_up += len(body)
        self.bytes_down += len(answer.body)
        return insisted(answer, good, f"{method} {path}")


def ask(
    transport: Transport,
    method: str,
    path: str,
    body: bytes = b"",
    limit: int = MAX_JSON_BYTES,
    good: tuple[int, ...] = (200,),
) -> Response:
    """One request's answer; raises as the methods of `Remote` do."""
    return insisted(transport.request(method, path, body, limit=limit), good, f"{method} {path}")


def insisted(answer: Response, good: tuple[int, ...], where: str) -> Response:
    """The answer itself where its status is a good one."""
    if answer.status not in good:
        raise _failure(answer, where)
    return answer


def _check_tag(answer: Response, what: str) -> None:
    """ServerNonsense where the entity tag is a SHA-256, as the server's are, but not that of the body."""
    tag = re.fullmatch(r'"([0-9a-f]{64})"', answer.headers.get("etag", ""))
    if tag and hashlib.sha256(answer.body).hexdigest() != tag[1]:
        raise ServerNonsense(f"{what} came with other bytes than its entity tag names")


def parsed(kind: type[M], answer: Response) -> M:
    """The message in an answer; ServerNonsense where there is none."""
    try:
        return kind.from_bytes(answer.body)
    except ProtocolError as exc:
        raise ServerNonsense(str(exc)) from exc


def _failure(answer: Response, where: str) -> ProtocolError:
    """What a status that is not success means. Busy and broken servers, and proxies, come first."""
    if answer.status >= 500 or answer.status in _BUSY:
        return ServerUnreachable(
            f"{where}: status {answer.status}", _seconds(answer.headers.get("retry-after"))
        )
    if answer.status < 400:
        return ServerNonsense(f"{where}: unexpected status {answer.status}")
    try:
        failure = Failure.from_bytes(answer.body)
    except ProtocolError:
        return ServerNonsense(f"{where}: status {answer.status} without the protocol's reason")
    return Refused(answer.status, failure.reason, failure.detail)


def _seconds(text: str | None) -> float | None:
    """Retry-After in its form of seconds, at most a day; the form of a date is left alone."""
    return float(min(int(text), 86_400)) if text and text.isdecimal() and len(text) < 10 else None
