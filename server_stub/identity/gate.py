# SPDX-License-Identifier: Apache-2.0
"""Who a request is from, and whether it may be: signatures, clocks, replays, limits. Safe in threads."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from edgefl.errors import Refused
from edgefl.identity import Claim, canonical_request, identity_of, read_claim, verifies
from edgefl.identity.keys import from_text
from edgefl.identity.messages import Enrol
from edgefl.identity.request import TIME_HEADER, WINDOW_S
from edgefl.options import ServerOptions
from edgefl.server_stub.identity.buckets import Buckets, network_of
from edgefl.server_stub.identity.register import Device, Register
from edgefl.server_stub.identity.replay import Nonces

DEVICE_BURST = 10
"""Seconds' worth of requests that may come at once."""
_KEPT, _KEPT_S = 20_000, 5.0
_BEARER = "Bearer "
_ASK_FOR_PASSWORD = {"www-authenticate": 'Basic realm="edgefl", charset="UTF-8"'}
_PARTY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")


@dataclass(frozen=True)
class Ask:
    """A request before its body is read.

    Attributes:
        method, target: of the request line, the target without a prefix that a proxy took away.
        address: of the peer.
        authorization: the header, empty where there is none.
        party: name in the certificate the peer showed, empty where it showed none.
    """

    method: str
    target: str
    address: str
    authorization: str = ""
    party: str = ""


@dataclass(frozen=True)
class Caller:
    """Who is behind a request.

    Attributes:
        identity: an enrolled device's, or the name of a party; None where the server is open, and for
            administrators.
        admin: it may administer.
        check_still: raises Refused where that has changed since.
    """

    identity: str | None = None
    admin: bool = False
    check_still: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Entry:
    """A request that may send its body; `confirm` says who it is from."""

    confirm: Callable[[bytes], Caller]


class Gate:
    """Lets requests in."""

    def __init__(
        self,
        register: Register,
        federation: str,
        options: ServerOptions,
        *,
        exposed: bool = False,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            federation: what requests are signed for.
            exposed: other machines reach the server.
            clock: seconds since the epoch.
            ticks: seconds on a clock that only runs forward.
        """
        self.register, self.federation, self.enrolled = register, federation, options.enrolled
        self.private = options.enrolled or exposed
        self._parties = bool(options.parties)
        self.clock, self._ticks = clock, ticks
        self._nonces = Nonces(clock())
        self._devices = Buckets(options.per_device, DEVICE_BURST * options.per_device)
        self._addresses = Buckets(options.per_address, DEVICE_BURST * options.per_address)
        self._known: OrderedDict[str, tuple[Device, float]] = OrderedDict()
        self._lock = threading.Lock()

    def enter(self, ask: Ask) -> Entry:
        """Look at what comes before the body.

        Raises:
            Refused: `too-many-requests`, `not-signed`, `unknown-identity`, `revoked`, `stale-signature` or
                `bad-certificate`.
        """
        self._pay(ask)
        if not self.enrolled:
            party = _party(ask)
            return Entry(lambda _: Caller(identity=party))
        if ask.authorization.startswith(_BEARER):
            self._check_admin(ask, ask.authorization.removeprefix(_BEARER))
            return Entry(lambda _: Caller(admin=True))
        claim = self._claim(ask)
        device = self._device(claim.identity)
        return Entry(lambda body: self._confirmed(ask, claim, device, body))

    def look(self, ask: Ask) -> None:
        """Let people and monitors see the pages, which change nothing: all of them where only this machine
        reaches the server and no device is enrolled, else administrators.

        Raises:
            Refused: `too-many-requests` or `not-admin`, by which a browser asks for a password.
        """
        self._pay(ask)
        if not self.private:
            return
        try:
            self._check_admin(ask, _password(ask.authorization))
        except Refused as exc:
            raise Refused(exc.status, exc.reason, exc.detail, _ASK_FOR_PASSWORD) from exc

    def is_quick(self, ask: Ask) -> bool:
        """Whether `enter` needs no look into the database."""
        claim = read_claim(ask.authorization)
        return not self.enrolled or (claim is not None and self._kept(claim.identity) is not None)

    def enter_to_enrol(self, ask: Ask) -> Claim:
        """The same for a request to enrol, which nobody is known by yet."""
        if not self.enrolled:
            raise Refused(404, "open-server", "this server takes part with any device; none is enrolled")
        self._pay(ask)
        return self._claim(ask)

    def enrol(self, ask: Ask, claim: Claim, message: Enrol, body: bytes) -> str:
        """Make a device known; its identity.

        Raises:
            Refused: `bad-signature`, `bad-token` or `revoked`.
        """
        key = from_text(message.key)
        identity = identity_of(message.scheme, key)
        signed = _signed(ask, "", claim, body)
        if identity != claim.identity or not verifies(message.scheme, key, signed, claim.signature):
            raise Refused(401, "bad-signature", "the request to enrol is not signed by the key it brings")
        token = hashlib.sha256(message.token.encode()).hexdigest()
        self.register.enrol(Device(identity, message.label, message.scheme, key, token, self.clock()))
        self._refund(ask)
        return identity

    def revoke(self, identity: str) -> None:
        """Let a device take part no more; Refused (`unknown-identity`) where there is none such."""
        if not self.register.revoke(identity, self.clock()):
            raise Refused(404, "unknown-identity", f"no device {identity} is enrolled")
        with self._lock:
            self._known.pop(identity, None)

    def name_of(self, device: Device) -> str:
        """What the rounds know a device by: its identity, or in rounds of named parties the label that the
        administrator gave the token it came with."""
        if not self._parties:
            return device.identity
        label = next((token.label for token in self.register.tokens() if token.digest == device.token), "")
        return label or device.identity

    # -- inside

    def _claim(self, ask: Ask) -> Claim:
        claim = read_claim(ask.authorization)
        if claim is None:
            raise Refused(401, "not-signed", "this server wants requests signed by an enrolled device")
        at = self.clock()
        with self._lock:
            fresh, told = self._nonces.fresh(claim.time, at), self._nonces.told(at)
        if not fresh:
            raise Refused(
                401,
                "stale-signature",
                f"signed at {claim.time}, the server's time is {told}; allowed are {WINDOW_S} s around it, "
                "and nothing from before the server began",
                {TIME_HEADER: str(told)},
            )
        return claim

    def _confirmed(self, ask: Ask, claim: Claim, device: Device, body: bytes) -> Caller:
        signed = _signed(ask, self.federation, claim, body)
        if not verifies(device.scheme, device.key, signed, claim.signature):
            raise Refused(401, "bad-signature", "the signature is not that of this request by this device")
        at = self.clock()
        with self._lock:
            told = self._nonces.told(at)
            if not self._nonces.take(claim.identity, claim.nonce, claim.time, at):
                raise Refused(401, "replayed", "this very request was here before", {TIME_HEADER: str(told)})
            wait = self._devices.take(claim.identity, self._ticks())
        self._refund(ask)
        _insist(wait, "this device")
        return Caller(self.name_of(device), check_still=lambda: self._check_still(claim.identity))

    def _check_still(self, identity: str) -> None:
        self._device(identity)

    def _check_admin(self, ask: Ask, secret: str) -> None:
        given = hashlib.sha256(secret.encode()).hexdigest()
        if not hmac.compare_digest(given, self.register.admin() or ""):
            raise Refused(401, "not-admin", "this is not the server's admin token")
        self._refund(ask)

    def _device(self, identity: str) -> Device:
        """An enrolled device; looked up again every few seconds, since another process may revoke it."""
        found = self._kept(identity) or self.register.find(identity)
        if found is None:
            raise Refused(401, "unknown-identity", f"no device {identity} is enrolled here")
        if found.revoked_at is not None:
            raise Refused(403, "revoked", f"device {identity} was revoked")
        with self._lock:
            if identity not in self._known:
                self._known[identity] = found, self._ticks()
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return found

    def _kept(self, identity: str) -> Device | None:
        with self._lock:
            found = self._known.get(identity)
            if found is not None and self._ticks() - found[1] > _KEPT_S:
                del self._known[identity]
                return None
        return None if found is None else found[0]

    def _pay(self, ask: Ask) -> None:
        """Take from the address what a known caller gets back. An open server's own machine pays nothing."""
        if not self.enrolled and _is_loopback(ask.address):
            return
        with self._lock:
            wait = self._addresses.take(network_of(ask.address), self._ticks())
        _insist(wait, "this address")

    def _refund(self, ask: Ask) -> None:
        with self._lock:
            self._addresses.give_back(network_of(ask.address))


def _signed(ask: Ask, deployment: str, claim: Claim, body: bytes) -> bytes:
    return canonical_request(
        ask.method, ask.target, deployment, claim.identity, claim.time, claim.nonce, body
    )


def _insist(wait: float, who: str) -> None:
    if wait > 0:
        seconds = str(math.ceil(wait))
        raise Refused(
            429, "too-many-requests", f"{who} asks too often, wait {seconds} s", {"retry-after": seconds}
        )


def _party(ask: Ask) -> str | None:
    if ask.party and not _PARTY.fullmatch(ask.party):
        raise Refused(
            403, "bad-certificate", f"the certificate's common name {ask.party!r:.80} is no party's name"
        )
    return ask.party or None


def _password(authorization: str) -> str:
    """The secret in a header: a bearer's, or the password of whatever user a browser or a monitor sends."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "basic":
        return authorization.removeprefix(_BEARER)
    try:
        return base64.b64decode(rest, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
