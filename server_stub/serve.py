# SPDX-License-Identifier: Apache-2.0
"""A server process: the application behind uvicorn, with its bytes counted."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import ssl
from pathlib import Path

import uvicorn

from edgefl.errors import OptionError
from edgefl.files import write_atomically
from edgefl.server_stub.app import create_app
from edgefl.server_stub.quiet import hush
from edgefl.server_stub.recording import MLflow, Recorder, TensorBoard
from edgefl.server_stub.service import Service
from edgefl.server_stub.settings import Settings
from edgefl.server_stub.sockets import Limits, guarded

log = logging.getLogger("edgefl.server")
_GRACE_S = 10
_LIMITS = Limits()


class _Server(uvicorn.Server):
    """Lets waiting devices go before it waits for their connections to close."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._service.lost is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.stop()
        await super().shutdown(sockets)


def run_server(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    port_file: str | os.PathLike[str] | None = None,
    certificate: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    limits: Limits = _LIMITS,
    client_ca: str | os.PathLike[str] | None = None,
    insecure: bool = False,
    tensorboard: str | os.PathLike[str] | None = None,
    mlflow: str | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are answered first.

    Args:
        port: 0 lets the system choose.
        port_file: where to write the port once devices can connect.
        certificate, key: PEM files; with them the server speaks HTTPS.
        limits: what connections may cost.
        client_ca: PEM file; whoever connects shows a certificate of this authority, whose common name is then
            the device's name.
        tensorboard, mlflow: a folder, and the address of a server, to write rounds to as well.
        insecure: let everyone take part who reaches an address that other machines can reach.

    Raises:
        OptionError: that is so, and it was not said.
        MissingDependency: the library for `tensorboard` or `mlflow` is not here.
        BundleError, StoreError: the bundle or the database cannot be used.
        StoreLost: the database was deleted, or another server has taken it over; the server has stopped.
        OSError: the address cannot be bound.
    """
    exposed = not _is_loopback(host)
    if exposed and not (settings.enrolled or client_ca is not None or insecure):
        raise OptionError(
            "other machines reach this address, and whoever does could take part under any name; have "
            "devices enrolled (--enrolled), ask for certificates (--client-ca), or say --insecure",
            {"host": host},
        )
    if client_ca is not None and certificate is None:
        raise OptionError("certificates of clients need https: --certificate too", {"client_ca": client_ca})
    recorders: list[Recorder] = [] if tensorboard is None else [TensorBoard(tensorboard)]
    if mlflow is not None:
        recorders.append(MLflow(mlflow))
    hush("edgefl.server", "uvicorn.error", "asyncio")
    with _listen(host, port) as listener:
        app = create_app(settings, exposed=exposed, recorders=recorders)
        config = uvicorn.Config(
            app,
            http=guarded(limits),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_GRACE_S,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            ssl_ca_certs=None if client_ca is None else os.fspath(client_ca),
            ssl_cert_reqs=ssl.CERT_NONE if client_ca is None else ssl.CERT_REQUIRED,
        )
        chosen = listener.getsockname()[1]
        # The socket listens already: a device that comes before the event loop runs waits in the queue.
        if port_file is not None:
            write_atomically(Path(port_file), f"{chosen}\n".encode())
        model = app.state.service.coordinator.bundle.manifest.name
        told = {"event": "serving", "model": model, "host": host, "port": chosen}
        log.info("serving %(model)s on %(host)s port %(port)d", told)
        _Server(config, app.state.service).run(sockets=[listener])
    if app.state.service.lost is not None:
        raise app.state.service.lost


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, asyncio does not let the body of an answer wait for the header to be confirmed.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except BaseException:
        listener.close()
        raise
    return listener
