"""The ASGI application: the gateway behind its doors.

request id ─ internal errors ─ [CORS for /v1] ─ failures ─ gate ─┬─ generation paths: plain ASGI
                                                                 └─ everything else: FastAPI
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from k2think import NAME, __version__
from k2think.api.access import Gate, Keys, header, look_up_headers
from k2think.api.admin import admin_router
from k2think.api.admin.answers import answer_refusals
from k2think.api.description import describe_generation
from k2think.api.failures import Failures, answer_failures, internal_error
from k2think.api.files import files_router
from k2think.api.generation import ChatCompletions
from k2think.api.models import models_router
from k2think.api.operations import operations_router
from k2think.credentials.worker import ALONE, Worker
from k2think.errors import GatewayStopping
from k2think.gateway import Gateway
from k2think.settings import Settings
from k2think.telemetry.logs import log_request


def create_app(settings: Settings, worker: Worker = ALONE) -> ASGIApp:
    """Build the application, for the server in `listening`: it hears from its connections when a client has gone.

    Raises `TokenFileUnreadable`.
    """
    gateway = Gateway(settings, worker)
    generation: dict[str, ASGIApp] = {
        "/v1/chat/completions": ChatCompletions(gateway.engine, gateway.attachments, gateway.recent, settings)
    }
    web = _Logged(_web(gateway))
    keys = Keys([key.get_secret_value() for key in settings.access.valid_api_key], "VALID_API_KEY")
    admin_key = settings.access.admin_api_key
    admin = Keys([admin_key.get_secret_value()], "ADMIN_API_KEY") if admin_key else None
    inner = Failures(Gate(_Fork(generation, web), keys, admin, keyless=settings.access.admin_keyless))
    cors = CORSMiddleware(
        inner,
        allow_origins=settings.server.cors_origins,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["x-request-id", "retry-after", "content-disposition"],
    )
    return _Front(ServerErrorMiddleware(_Doors(cors, inner), handler=internal_error), web)


def _web(gateway: Gateway) -> ASGIApp:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await gateway.start()
        yield
        await gateway.close()

    app = FastAPI(
        title=NAME,
        version=__version__,
        summary="An OpenAI-compatible API for MBZUAI's K2-Think reasoning model.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(models_router(gateway.catalog))
    app.include_router(files_router(gateway.shelf))
    app.include_router(operations_router(gateway.keeper))
    app.include_router(admin_router(gateway))
    answer_failures(app)
    answer_refusals(app)
    describe_generation(app)
    return app


class _Front:
    """Gives every request its id, and every answer the header with it."""

    def __init__(self, app: ASGIApp, web: ASGIApp) -> None:
        self._app = app
        self._web = web

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._web(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(16)}"
        scope.setdefault("state", {})["request_id"] = request_id
        look_up_headers(scope)
        shown = (b"x-request-id", request_id.encode())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), shown]
            await send(message)

        await self._app(scope, receive, send_with_id)


class _Doors:
    """Pages from elsewhere may call /v1, and nothing else.

    A page's requests say where it is from. Of the others only a POST goes past: what else may be kept by a cache, which
    must hear that answers vary with the origin.
    """

    def __init__(self, cors: ASGIApp, plain: ASGIApp) -> None:
        self._cors = cors
        self._plain = plain

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["path"].startswith("/v1/") and (scope["method"] != "POST" or header(scope, b"origin") is not None):
            return self._cors(scope, receive, send)
        return self._plain(scope, receive, send)


class _Fork:
    """The generation paths go their own, shorter way."""

    def __init__(self, generation: dict[str, ASGIApp], web: ASGIApp) -> None:
        self._generation = generation
        self._web = web

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self._generation.get(scope["path"], self._web)(scope, receive, send)


class _Logged:
    """Writes a log line for each request of an app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.monotonic()
        status: int | None = None

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        failed = 500
        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:  # the server stops, and waits no longer
            if status is None:
                failed = GatewayStopping.status
                raise GatewayStopping from None
        finally:
            log_request(scope["method"], scope["path"], status or failed, started_at, scope["state"]["request_id"])
