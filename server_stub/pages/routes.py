# SPDX-License-Identifier: Apache-2.0
"""The addresses outside the protocol: for people, and for what watches over servers."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from sqlalchemy.exc import SQLAlchemyError

from edgefl.errors import StoreError
from edgefl.server_stub.door import Door
from edgefl.server_stub.pages.figures import Figures
from edgefl.server_stub.pages.metrics import KIND, Metrics
from edgefl.server_stub.service import Service

_FRESH = {"cache-control": "no-store"}


def routes(service: Service, door: Door, figures: Figures, metrics: Metrics) -> APIRouter:
    """The routes beside /v1; they are no part of the protocol, so OpenAPI does not list them."""
    router = APIRouter(include_in_schema=False)

    @router.get("/healthz")
    async def healthz() -> Response:
        """Whether the server can work: 200, else 503. Tells nothing else, so anyone may ask."""
        try:
            await service.call(service.coordinator.look)
        except (StoreError, SQLAlchemyError):
            return PlainTextResponse("the database does not answer\n", 503, headers=_FRESH)
        return PlainTextResponse("ok\n", headers=_FRESH)

    @router.get("/metrics")
    async def prometheus(request: Request) -> Response:
        await door.look(request)
        return Response(await to_thread.run_sync(metrics.text), media_type=KIND, headers=_FRESH)

    return router
