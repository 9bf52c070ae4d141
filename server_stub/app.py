# SPDX-License-Identifier: Apache-2.0
"""The HTTP face of the server: version 1 of the protocol as an ASGI application."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from edgefl._version import __version__
from edgefl.errors import Refused, StoreLost
from edgefl.identity.messages import Enrol, Enrolled
from edgefl.server_stub import admin, pages
from edgefl.server_stub.answers import BYTES, REVALIDATE, UPDATE
from edgefl.server_stub.bodies import answer, body_of, failure, parsed
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.door import Door
from edgefl.server_stub.identity import Gate
from edgefl.server_stub.meter import Meter, Metered
from edgefl.server_stub.pages.figures import Figures
from edgefl.server_stub.pages.metrics import Metrics
from edgefl.server_stub.recording import Recorder, Recording
from edgefl.server_stub.registry import routes as versions
from edgefl.server_stub.service import Service
from edgefl.server_stub.settings import Settings
from edgefl.wire import (
    MAX_COUNT,
    MAX_VERSION,
    Accepted,
    CheckIn,
    CheckInAnswer,
    Decline,
    Evaluated,
    Evaluations,
    Failure,
    Participants,
    Rounds,
    Status,
)

RoundNumber = Annotated[int, Path(ge=1, le=MAX_COUNT)]
VersionNumber = Annotated[int, Path(ge=0, le=MAX_VERSION)]
AssignmentKey = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
Form = Annotated[str, Query(pattern="^(int8|float16)$")]
Target = Annotated[str | None, Query(max_length=64)]

_OF_UPDATES = (
    "too-large", "malformed-request", "unknown-round", "unknown-assignment", "round-closed", "declined"
)  # fmt: skip
"""Refusals before a body is read that are about the update, not about who sends it."""
_FRAME = {"requestBody": {"required": True, "content": {UPDATE: {}}}}
_BYTES: dict[int | str, dict[str, Any]] = {200: {"content": {BYTES: {}}}}
_MOVES: dict[int | str, dict[str, Any]] = {200: {"content": {UPDATE: {}}}}


def create_app(settings: Settings, *, exposed: bool = False, recorders: Sequence[Recorder] = ()) -> FastAPI:
    """The application for one model. Its coordinator is `app.state.service.coordinator`.

    Args:
        exposed: other machines reach it, so that its pages are for administrators.
        recorders: where rounds are written to beside the database.

    Raises:
        BundleError, StoreError: the bundle or the database cannot be used.
    """
    meter = Meter()
    coordinator = Coordinator(settings, traffic=meter.read)
    service = Service(coordinator)
    gate = Gate(coordinator.register, coordinator.federation, settings, exposed=exposed)
    figures = Figures(coordinator, meter.read, lambda: service.waiting)
    metrics = Metrics(figures)
    recording = Recording(figures, recorders)
    coordinator.on_closed += [metrics.closed, recording.tell]
    if gate.private:
        admin.settle_admin(coordinator.register, settings.admin_path())

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        recording.start()
        async with service.watching():
            yield
        await to_thread.run_sync(recording.stop)
        coordinator.close()

    app = FastAPI(
        title="edgefl",
        version=__version__,
        summary="Rounds of federated learning for devices that train where they infer.",
        lifespan=lifespan,
        # Its pages load their scripts from elsewhere; /docs is one of our own.
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.state.gate = gate
    app.state.meter = meter
    app.add_middleware(Metered, meter=meter)
    app.include_router(_routes(service, Door(gate)))
    app.include_router(pages.routes(service, Door(gate), figures, metrics))
    app.add_exception_handler(Refused, _on_refused)
    app.add_exception_handler(StoreLost, _on_lost)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_crash)
    return app


def _routes(service: Service, door: Door) -> APIRouter:
    failures: dict[int | str, dict[str, Any]] = {c: {"model": Failure} for c in ("4XX", "5XX")}
    router = APIRouter(prefix="/v1", responses=failures)

    @router.post("/enrol", response_model=Enrolled, openapi_extra=body_of(Enrol))
    async def enrol(request: Request) -> Response:
        """Become known, by a token, with a key of one's own."""
        return answer(await door.enrol(request))

    @router.post("/check-in", response_model=CheckInAnswer, openapi_extra=body_of(CheckIn))
    async def check_in(request: Request) -> Response:
        """Ask for work. Held for a few seconds when there is none."""
        caller, body = await door.receive(request)
        message: CheckIn = parsed(CheckIn, body)
        if caller.identity is not None:
            # From here on the identity is the device's name: what it calls itself is a label.
            message = replace(message, device=caller.identity)
        return answer(await service.check_in(message, caller.check_still))

    @router.get("/bundle", responses=_BYTES)
    async def bundle(request: Request, target: Target = None) -> Response:
        """The model as the rounds began with it, cut to a target. Fetched once, then revalidated by ETag."""
        await door.admit(request)
        data, tag = await service.bundle(target)
        return _entity(request, data, tag)

    @router.get("/parameters/{version}", responses=_BYTES)
    async def parameters(request: Request, version: VersionNumber) -> Response:
        """The shared parameters of a version in the safetensors layout."""
        await door.admit(request)
        data, tag = await service.parameters(version)
        return _entity(request, data, tag)

    @router.get("/parameters/{version}/from/{held}", responses=_MOVES)
    async def moves(request: Request, version: VersionNumber, held: VersionNumber) -> Response:
        """The steps from a version a device holds to another, as update frames; or all since the first."""
        await door.admit(request)
        data, tag = await service.moves(version, held)
        return _entity(request, data, tag, UPDATE)

    @router.get("/weights/{version}", responses=_MOVES)
    async def weights(request: Request, version: VersionNumber, form: Form = "int8") -> Response:
        """A version's shared parameters for inference, as int8 with a scale per row or as float16."""
        await door.admit(request)
        data, tag = await service.weights(version, form)
        return _entity(request, data, tag, UPDATE)

    @router.get("/control/{version}", responses=_MOVES)
    async def control(request: Request, version: VersionNumber) -> Response:
        """SCAFFOLD's control variate at the newest version, as a frame of float16."""
        await door.admit(request)
        data, tag = await service.control(version)
        return _entity(request, data, tag, UPDATE)

    @router.put("/rounds/{round}/updates/{assignment}", response_model=Accepted, openapi_extra=_FRAME)
    async def update(request: Request, round: RoundNumber, assignment: AssignmentKey) -> Response:
        """Send the update of an assignment. The same bytes again are acknowledged again and count once."""
        coordinator = service.coordinator
        try:
            caller, frame = await door.receive(
                request, lambda: service.call(coordinator.expect, round, assignment)
            )
        except Refused as exc:
            if exc.reason in _OF_UPDATES:
                # Whose it is was not known yet where devices sign.
                mine = "" if door.gate.enrolled else assignment
                await service.call(coordinator.note_refusal, round, mine, exc)
            raise
        return answer(await service.accept(round, assignment, frame, caller.identity))

    @router.put("/rounds/{round}/declines/{assignment}", status_code=204, openapi_extra=body_of(Decline))
    async def decline(request: Request, round: RoundNumber, assignment: AssignmentKey) -> Response:
        """Give an assignment back, so that another device can have the place."""
        caller, body = await door.receive(request)
        reason = parsed(Decline, body).reason
        await service.call(service.coordinator.give_back, round, assignment, reason, caller.identity)
        return Response(status_code=204)

    @router.put(
        "/evaluations/{version}/{assignment}", response_model=Accepted, openapi_extra=body_of(Evaluated)
    )
    async def evaluated(request: Request, version: VersionNumber, assignment: AssignmentKey) -> Response:
        """Answer how good a version is on the examples a device holds out. The same again counts once."""
        caller, body = await door.receive(request)
        message, desk = parsed(Evaluated, body), service.coordinator.evaluations
        return answer(await service.call(desk.accept, version, assignment, message, caller.identity))

    @router.get("/evaluations", response_model=Evaluations)
    async def evaluations(request: Request) -> Response:
        """Every version that devices were to measure, oldest first, with what they found together."""
        await door.admit(request)
        return answer(Evaluations(tuple(await service.call(service.coordinator.evaluations.infos))))

    @router.get("/status", response_model=Status)
    async def status(request: Request) -> Response:
        """The server at a glance."""
        await door.admit(request)
        return answer(await service.call(service.coordinator.status))

    @router.get("/rounds", response_model=Rounds)
    async def rounds(request: Request) -> Response:
        """Every round, oldest first, with its updates, losses, refusals and bytes at the socket."""
        await door.admit(request)
        return answer(Rounds(tuple(await service.call(service.coordinator.rounds))))

    @router.get("/rounds/{round}/participants", response_model=Participants)
    async def participants(request: Request, round: RoundNumber) -> Response:
        """The devices that were given a place in a round, and what became of it. For administrators."""
        await door.admit_admin(request)
        return answer(await service.call(service.coordinator.participants, round))

    router.include_router(admin.routes(service, door))
    router.include_router(versions.routes(service, door))
    return router


def _entity(
    request: Request,
    data: bytes,
    tag: str,
    kind: str = BYTES,
) -> Response:
    headers = {"etag": tag, **REVALIDATE}
    known = [t.strip().removeprefix("W/") for t in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=kind, headers=headers)


async def _on_refused(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, Refused)
    return failure(exc.status, exc.reason, exc.detail, exc.headers)


async def _on_lost(_: Request, exc: Exception) -> Response:
    return failure(503, "unavailable", str(exc))


async def _on_invalid(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    return failure(400, "malformed-request", json.dumps(exc.errors(), default=str))


async def _on_http(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    reason = {404: "unknown-path", 405: "wrong-method"}.get(exc.status_code, "http-error")
    return failure(exc.status_code, reason, str(exc.detail))


async def _on_crash(_: Request, exc: Exception) -> Response:
    return failure(500, "internal", f"{type(exc).__name__}; the server's log says more")
