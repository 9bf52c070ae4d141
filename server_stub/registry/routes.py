# SPDX-License-Identifier: Apache-2.0
"""Versions over HTTP: everyone who may ask sees them, administrators decide about them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from edgefl.lineage import Hold, Restored, Versions
from edgefl.server_stub.bodies import answer, body_of, parsed, read_body
from edgefl.server_stub.door import Door
from edgefl.server_stub.service import Service
from edgefl.wire import MAX_VERSION

Number = Annotated[int, Path(ge=0, le=MAX_VERSION)]


def routes(service: Service, door: Door) -> APIRouter:
    """The routes below /v1. None that changes something is a POST: a browser sends those for any web page."""
    router, registry = APIRouter(), service.coordinator.registry

    @router.get("/versions", response_model=Versions)
    async def versions(request: Request) -> Response:
        """Every version there ever was, oldest first: where it comes from, and how good it is."""
        await door.admit(request)
        return answer(Versions(tuple(await service.call(registry.infos))))

    @router.put("/admin/versions/{version}/promoted", status_code=204)
    async def promote(request: Request, version: Number) -> Response:
        """Have a version pulled by default."""
        await door.look(request)
        await service.call(registry.promote, version)
        return Response(status_code=204)

    @router.put("/admin/versions/{version}/pinned", status_code=204)
    async def pin(request: Request, version: Number) -> Response:
        """Keep a version, however many newer ones there are."""
        await door.look(request)
        await service.call(registry.pin, version, True)
        return Response(status_code=204)

    @router.delete("/admin/versions/{version}/pinned", status_code=204)
    async def unpin(request: Request, version: Number) -> Response:
        """Keep a version no longer than others."""
        await door.look(request)
        await service.call(registry.pin, version, False)
        return Response(status_code=204)

    @router.put("/admin/versions/{version}/restored", response_model=Restored)
    async def restore(request: Request, version: Number) -> Response:
        """Have the newest version be one with the parameters of an old one. The open round ends on it."""
        await door.look(request)
        return answer(Restored(await service.call(registry.restore, version)))

    @router.put("/admin/hold", status_code=204, openapi_extra=body_of(Hold))
    async def hold(request: Request) -> Response:
        """Begin no rounds; the one that is open goes on to its end."""
        await door.look(request)
        wanted: Hold = parsed(Hold, await read_body(request))
        await service.call(registry.hold, wanted.reason)
        return Response(status_code=204)

    @router.delete("/admin/hold", status_code=204)
    async def resume(request: Request) -> Response:
        """Begin rounds again."""
        await door.look(request)
        await service.call(registry.resume)
        return Response(status_code=204)

    return router
