# SPDX-License-Identifier: Apache-2.0
"""A federation of enrolled devices by the commands alone, with certificates and without."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefl.errors import ServerUnreachable
from edgefl.runtime.remote import Remote
from edgefl.runtime.transport import HttpTransport
from edgefl.wire import CheckIn
from tests.cli.commands import Command, Ran
from tests.cli.test_federation import Server, needs_server, start

pytestmark = needs_server


@pytest.fixture
def serving(mlp: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A function that starts a server with given options, for two rounds of one device."""
    running = []

    def begin(*options: object, scheme: str = "http") -> Server:
        port = tmp_path / "port"
        common = ("--port", 0, "--port-file", port, "--rounds", 2, "--goal", 1, "--density", 0.1)
        process = start(tmp_path, "serve", mlp, *common, *options)
        running.append(process)
        while not port.exists():
            assert process.poll() is None, process.communicate()
        return Server(process, f"{scheme}://127.0.0.1:{int(port.read_text())}")

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def test_the_whole_way_from_a_token_to_the_trained_model(
    serving: Callable[..., Server], call: Command, data: Path, tmp_path: Path
) -> None:
    server = serving("--enrolled")
    admin = ("--admin-file", tmp_path / "edgefl.db.admin")

    token = call("admin", "token", server.url, *admin, "--uses", 2).out.strip()
    enrolled = call(
        "enrol", server.url, "--token", token, "--workdir", "b", "--id", "kitchen", "--json"
    ).json()
    stranger = call("device", "-s", server.url, "-d", data, "--workdir", "c", "--json").refusal()
    common = ("device", "-s", server.url, "-d", data, "-b", "numpy", "--json")
    first = call(*common, "--workdir", "a", "--token", token, "--max-rounds", 1)
    second = call(*common, "--workdir", "b")
    listed = call("admin", "devices", server.url, *admin, "--json").json()["devices"]
    shown = call("admin", "devices", server.url, *admin).out
    told = call("status", server.url, *admin, "--json").json()
    closed = call("status", server.url, "--json").refusal()
    pulled = call("pull", server.url, *admin, "-o", "final.edgefl", "--json").json()
    call("admin", "revoke", server.url, enrolled["identity"], *admin)
    revoked = call(*common, "--workdir", "b").refusal()
    tokens = call("admin", "tokens", server.url, *admin, "--json").json()["tokens"]

    assert "not-signed" in stranger["message"] and "not-signed" in closed["message"]
    assert [json.loads(run.out)["accepted"] for run in (first, second)] == [True, True]
    assert [row["label"] for row in listed] == ["kitchen", ""] and enrolled["identity"] in shown
    assert told["participants"]["devices"][0]["device"] == enrolled["identity"]
    assert pulled["version"] == 2
    assert "revoked" in revoked["message"]
    assert [(row["uses"], row["used"]) for row in tokens] == [(2, 2)]


def test_nothing_secret_goes_over_plain_http_to_another_machine(
    call: Command, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "admin").write_text("a token of my own")
    server = "http://fl.example.org:8017"

    refusals = [
        call("enrol", server, "--token", "t", "--json").refusal(),
        call("device", "-s", server, "-d", data, "--token", "t", "--json").refusal(),
        call("admin", "token", server, "--admin-file", "admin", "--json").refusal(),
        call("pull", server, "--admin-file", "admin", "-o", "x.edgefl", "--json").refusal(),
    ]

    assert {refusal["error"] for refusal in refusals} == {"OptionError"}
    assert all("plain http to fl.example.org" in refusal["message"] for refusal in refusals)
    assert not (tmp_path / "edgefl-device" / "identity.json").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_an_open_server_is_not_put_on_a_public_address_by_accident(
    call: Command, mlp: Path, host: str
) -> None:
    refusal = call("serve", mlp, "--host", host, "--port", 0)

    assert refusal.status == 1
    assert f"--host {host}" in refusal.err and "--enrolled" in refusal.err and "--insecure" in refusal.err


class Authority:
    """Makes certificates in a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self._folder, self._name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = self._write(name, self._certificate(name, self._key.public_key(), None))

    def issue(self, name: str) -> tuple[Path, Path]:
        """The files of a certificate and its key."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        certificate = self._write(name, self._certificate(name, key.public_key(), "127.0.0.1"))
        (self._folder / f"{name}.key").write_bytes(pem)
        return certificate, self._folder / f"{name}.key"

    def _certificate(self, name: str, public: Any, address: str | None) -> Any:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        now = datetime.datetime.now(datetime.timezone.utc)
        day = datetime.timedelta(days=1)
        issuer, subject = (
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)]) for each in (self._name, name)
        )
        made = (
            x509.CertificateBuilder()
            .issuer_name(issuer)
            .subject_name(subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.BasicConstraints(address is None, None), critical=True)
        )
        if address is not None:
            names = [x509.IPAddress(ipaddress.ip_address(address))]
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return made.sign(self._key, hashes.SHA256())

    def _write(self, name: str, certificate: Any) -> Path:
        from cryptography.hazmat.primitives.serialization import Encoding

        path = self._folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(Encoding.PEM))
        return path


def test_parties_are_known_by_their_certificates(
    serving: Callable[..., Server], call: Command, data: Path, tmp_path: Path
) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    own, own_key = authority.issue("server")
    party, party_key = authority.issue("hospital-a")
    foreign, foreign_key = other.issue("hospital-b")
    tls = ("--certificate", own, "--key", own_key, "--client-ca", authority.file)
    server = serving(*tls, scheme="https")
    shown = ("--ca", authority.file, "--certificate", party, "--key", party_key)

    reports = call(
        "device", "-s", server.url, "-d", data, "--id", "no-matter", "-b", "numpy", "--json", *shown
    )
    told = call("status", server.url, *shown, "--json").json()

    assert all(json.loads(line)["accepted"] for line in reports.out.splitlines())
    assert {row["device"] for row in told["participants"]["devices"]} == {"hospital-a"}
    for pair in ((), (foreign, foreign_key)):
        context = ssl.create_default_context(cafile=str(authority.file))
        if pair:
            context.load_cert_chain(*pair)
        with HttpTransport(server.url, context=context) as transport, pytest.raises(ServerUnreachable):
            Remote(transport).check_in(CheckIn("hospital-a", "0" * 16, "test", 1))


def test_all_parties_of_a_round_are_those_of_their_certificates(
    serving: Callable[..., Server], call: Command, data: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    own, own_key = authority.issue("server")
    tls = ("--certificate", own, "--key", own_key, "--client-ca", authority.file)
    server = serving(*tls, "--parties", "north,south", scheme="https")

    def shown(name: str) -> tuple[object, ...]:
        party, key = authority.issue(name)
        return "--ca", authority.file, "--certificate", party, "--key", key

    def device(name: str, claimed: str) -> Ran:
        common = ("device", "-s", server.url, "-d", data, "-b", "numpy", "--json", "--max-rounds", 1)
        return call(*common, "--workdir", name, "--id", claimed, *shown(name))

    stranger = device("east", "north").refusal()
    north = device("north", "whoever")
    waiting = call("status", server.url, *shown("north"), columns=200).out
    south = device("south", "north")
    told = call("status", server.url, *shown("north"), "--round", 1, "--json").json()

    assert stranger["error"] == "Refused" and "not-a-party" in stranger["message"]
    assert [json.loads(ran.out)["accepted"] for ran in (north, south)] == [True, True]
    assert "open, waits for south" in waiting
    assert {row["device"] for row in told["participants"]["devices"]} == {"north", "south"}
