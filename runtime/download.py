# SPDX-License-Identifier: Apache-2.0
"""The trained model out of a federation, whole: what a workstation fetches when the rounds are done."""

from __future__ import annotations

from edgefl.bundle import Bundle
from edgefl.errors import OptionError, Refused, ServerNonsense
from edgefl.proof import renewed
from edgefl.runtime.remote import Remote
from edgefl.runtime.transport import HttpTransport, Transport
from edgefl.wire import MAX_VERSION, Status


def pull(server: str | Transport, version: int | None = None) -> Bundle:
    """The bundle the rounds began with, with the shared parameters of one version in it.

    Personal parameters and the buffers devices keep to themselves (statistics of BatchNorm) never reach a
    server: they are those of the bundle the server was started with.

    Args:
        server: URL of a running server, finished or not, or a transport to it.
        version: which version of the parameters; the newest where None.

    Raises:
        OptionError: the URL or the version cannot be one.
        ServerUnreachable: no answer.
        ServerNonsense: what answers is no edgefl server, or contradicts itself.
        Refused: `unknown-version`; the message says which there are.
    """
    if version is not None and not 0 <= version <= MAX_VERSION:
        raise OptionError(f"version {version}: versions count up from 0")
    if not isinstance(server, str):
        return _pulled(Remote(server), version)
    with HttpTransport(server) as transport:
        return _pulled(Remote(transport), version)


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
    wanted = status.version if version is None else version
    return renewed(bundle.with_parameters(remote.parameters(wanted, schema), wanted))
