# SPDX-License-Identifier: Apache-2.0
"""The addresses outside the protocol: for people, and for what watches over servers."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Path, Request
from fastapi.responses import PlainTextResponse, Response
from sqlalchemy.exc import SQLAlchemyError

from edgefl.errors import Refused, StoreError
from edgefl.server_stub.door import Door
from edgefl.server_stub.pages.figures import Figures
from edgefl.server_stub.pages.metrics import KIND, Metrics
from edgefl.server_stub.pages.protocol import protocol
from edgefl.server_stub.pages.render import ASSETS, FRESH, asset, page
from edgefl.server_stub.pages.view import ROWS, one_round, overview
from edgefl.server_stub.service import Service
from edgefl.wire import MAX_COUNT

RoundNumber = Annotated[int, Path(ge=1, le=MAX_COUNT)]


def routes(service: Service, door: Door, figures: Figures, metrics: Metrics) -> APIRouter:
    """The routes beside /v1; they are no part of the protocol, so OpenAPI does not list them."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def dashboard(request: Request) -> Response:
        """The rounds at a glance."""
        await door.look(request)
        context = await to_thread.run_sync(_of_all, figures)
        return page("overview.html", _root(request), context)

    @router.get("/rounds/{round}")
    async def round_page(request: Request, round: RoundNumber) -> Response:
        """One round, and everyone in it."""
        await door.look(request)
        context = await to_thread.run_sync(_of_round, figures, round)
        return page("round.html", _root(request), context)

    @router.get("/docs")
    async def docs(request: Request) -> Response:
        """The protocol, which is no secret."""
        return page("protocol.html", _root(request), protocol(request.app.openapi()))

    @router.get("/pages/{name}")
    async def asset_of(name: str) -> Response:
        """What pages are drawn with. The same for everyone."""
        if name not in ASSETS:
            raise Refused(404, "unknown-path", "there is no such file")
        return asset(name)

    @router.get("/healthz")
    async def healthz() -> Response:
        """Whether the server can work: 200, else 503. Tells nothing else, so anyone may ask."""
        try:
            await service.call(service.coordinator.look)
        except (StoreError, SQLAlchemyError):
            return PlainTextResponse("the database does not answer\n", 503, headers=FRESH)
        return PlainTextResponse("ok\n", headers=FRESH)

    @router.get("/metrics")
    async def prometheus(request: Request) -> Response:
        await door.look(request)
        return Response(await to_thread.run_sync(metrics.text), media_type=KIND, headers=FRESH)

    return router


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")


def _of_all(figures: Figures) -> dict[str, Any]:
    now = figures.snapshot()
    return overview(now, figures.recent(now, ROWS))


def _of_round(figures: Figures, number: int) -> dict[str, Any]:
    now, devices = figures.snapshot(), figures.participants(number)
    info = next((each for each in now.rounds if each.round == number), None)
    if info is None:
        raise Refused(404, "unknown-round", f"there is no round {number}")
    return one_round(now, info, devices)
