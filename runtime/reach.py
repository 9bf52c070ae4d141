# SPDX-License-Identifier: Apache-2.0
"""How to get to a server: certificates, and what is not said where others listen."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from edgefl.errors import OptionError
from edgefl.options import ReachOptions
from edgefl.runtime.sockets import is_here
from edgefl.runtime.transport import HttpTransport


def reach(server: str, options: ReachOptions) -> HttpTransport:
    """A transport to a server.

    Raises:
        OptionError: the URL is none or plain http to another machine, or a certificate or pin cannot be used.
    """
    return HttpTransport(server, context=_context(options), pin=options.pin, insecure=options.insecure)


def check_private(server: str, options: ReachOptions, what: str) -> None:
    """That a secret does not go over plain http to another machine.

    Raises:
        OptionError: it would, and nobody said that this is meant.
    """
    parts = urlsplit(server)
    if parts.scheme == "https" or options.insecure or is_here(parts.hostname or ""):
        return
    raise OptionError(
        f"{what} would go over plain http to {parts.hostname}, where anyone on the way can read it; "
        "use https, or --insecure if you mean it"
    )


def _context(options: ReachOptions) -> ssl.SSLContext | None:
    if options.key is not None and options.certificate is None:
        raise OptionError("a key needs its certificate too", {"key": options.key})
    if options.ca is None and options.certificate is None:
        return None
    try:
        context = ssl.create_default_context(cafile=options.ca)
        if options.certificate is not None:
            context.load_cert_chain(options.certificate, options.key)
    except (OSError, ssl.SSLError) as exc:
        named = {n: v for n, v in (("ca", options.ca), ("certificate", options.certificate)) if v}
        raise OptionError(f"cannot be used: {exc}", named) from exc
    return context
