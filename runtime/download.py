# SPDX-License-Identifier: Apache-2.0
"""The trained model out of a federation, whole: what a workstation fetches when the rounds are done."""

from __future__ import annotations

from collections.abc import Iterable

from edgefl.bundle import Bundle
from edgefl.bundle.publisher import Publishers
from edgefl.errors import OptionError, Refused, ServerNonsense
from edgefl.proof import renewed
from edgefl.runtime.remote import Remote
from edgefl.runtime.transport import HttpTransport, Transport
from edgefl.wire import MAX_VERSION, Status


def pull(server: str | Transport, version: int | None = None, publishers: Iterable[str] = ()) -> Bundle:
    """The bundle the rounds began with, with the shared parameters of one version in it.

    Personal parameters and the buffers devices keep to themselves (statistics of BatchNorm) never reach a
    server: they are those of the bundle the server was started with. It is a new bundle, which nobody has
    signed; its provenance names the one it comes from, and who had signed that.

    Args:
        server: URL of a running server, finished or not, or a transport to it.
        version: which version of the parameters; where None, the promoted one, or the newest.
        publishers: public keys, one of which must have signed the bundle the rounds began with.

    Raises:
        OptionError: the URL, the version or a key cannot be one.
        BundleSignature: none of the publishers has signed the server's bundle.
        ServerUnreachable: no answer.
        ServerNonsense: what answers is no edgefl server, or contradicts itself.
        Refused: `unknown-version`; the message says which there are.
    """
    if version is not None and not 0 <= version <= MAX_VERSION:
        raise OptionError(f"version {version}: versions count up from 0")
    trusted = Publishers(publishers)
    if not isinstance(server, str):
        return _pulled(Remote(server, publishers=trusted), version)
    with HttpTransport(server) as transport:
        return _pulled(Remote(transport, publishers=trusted), version)


def server_status(remote: Remote) -> Status:
    """The server at a glance; ServerNonsense where what answers is no edgefl server."""
    try:
        return remote.status()
    except (ServerNonsense, Refused) as exc:
        raise ServerNonsense(f"this is no edgefl server, or its URL is longer or shorter: {exc}") from exc


def _pulled(remote: Remote, version: int | None) -> Bundle:
    status = server_status(remote)
    found = remote.bundle(None)
    assert found is not None  # only a request with a tag is answered without a bundle
    bundle, schema = found[0], found[0].schema()
    if schema.id.hex() != status.schema:
        raise ServerNonsense(
            f"the server's bundle has parameter schema {schema.id.hex()}, its rounds {status.schema}: "
            "two deployments answer at this URL"
        )
    wanted = status.offered if version is None else version
    signer = {"trained_from_signed_by": bundle.signature.key_id} if bundle.signature else {}
    trained = renewed(bundle.with_parameters(remote.parameters(wanted, schema), wanted))
    return trained.with_provenance(trained_from=bundle.digest, **signer)
