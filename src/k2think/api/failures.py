"""How an error reaches the client: in OpenAI's shape, with the right status, on every path."""

from __future__ import annotations

import time

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from k2think.errors import Forbidden, GatewayError, InvalidRequest, MethodNotAllowed, NotFound, Unauthorized
from k2think.telemetry.logs import log_request
from k2think.wire.openai_chat.outbound import error_body

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def error_response(error: GatewayError) -> Response:
    """The error as a response."""
    return Response(error_body(error), status_code=error.status, headers=error.headers, media_type="application/json")


class Failures:
    """Turns the `GatewayError`s of a plain ASGI app into responses, as long as none has begun."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and answer for what comes back."""
        try:
            await self._app(scope, receive, send)
        except GatewayError as error:
            if isinstance(error, Unauthorized | Forbidden):  # nobody behind the gate has logged these
                log_request(
                    scope["method"], scope["path"], error.status, time.monotonic(), scope["state"]["request_id"]
                )
            await error_response(error)(scope, receive, send)


async def internal_error(_: Request, __: Exception) -> Response:
    """Answer for a defect of ours; what it was stands in the log, not in the answer."""
    return error_response(GatewayError("The gateway failed. The log has the details, under this x-request-id."))


async def _gateway_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    return error_response(error)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        return error_response(MethodNotAllowed(request.method, _allowed(request)))
    if error.status_code == 404:
        return error_response(NotFound(f"There is nothing at {path[:200]}. GET / lists what there is."))
    return error_response(InvalidRequest(str(error.detail), status=error.status_code))


def _allowed(request: Request) -> str:
    """The methods of all routes of this path: the router names only those of the first."""
    asked = {"type": "http", "path": request.scope["path"], "root_path": request.scope.get("root_path", "")}
    found = [
        method
        for method in METHODS
        if any(route.matches({**asked, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]
    return ", ".join(found) or "another method"


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"][1:])
    return error_response(InvalidRequest(f"{param}: {first['msg']}", param=param or None))


def answer_failures(app: FastAPI) -> None:
    """Let a FastAPI app answer its errors in OpenAI's shape."""
    app.add_exception_handler(GatewayError, _gateway_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, internal_error)  # FastAPI answers before the middleware outside can
