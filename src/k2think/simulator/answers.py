"""Fixed texts and forms of the service's answers, and where its two recorded releases differ in them."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from k2think.simulator.exchange import Exchange, Headers
from k2think.simulator.options import Release

UNAUTHORIZED = "401 Unauthorized"
NOT_AUTHENTICATED = "Not authenticated"
SESSION_ENDED = "Your session has expired or the token is invalid. Please sign in again."
INVALID_TOKEN = "Invalid token"  # noqa: S105 - a message
INVALID_REQUEST = "Invalid authentication request."
NO_PERMISSION = "You do not have permission to access this resource. Please contact your administrator for assistance."
WRONG_PASSWORD = "The email or password provided is incorrect. Please check for typos and try logging in again."  # noqa: S105
TOO_MANY_SIGN_INS = "API rate limit exceeded"
MODEL_NOT_FOUND = "Model not found"
NOT_FOUND = "We could not find what you're looking for :/"
EMPTY_FILE = "The content provided is empty. Please ensure that there is text or data present before proceeding."
FILE_TOO_LARGE = "Oops! The file you're trying to upload is too large. Please upload a file that is less than 1 MB."
CONNECTION_ERROR = "Open WebUI: Server Connection Error"

WEB_PAGE = b"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8" /><title>K2 Think simulator</title></head>
<body>Here the real service shows its web page. This is the simulator.</body>
</html>
"""

EDGE_PAGE = """<!doctype html>
<html><head><title>{status}</title></head><body>Blocked at the edge, says the simulator.</body></html>
"""


def deleted_user(release: Release) -> str:
    """What a token of a user who is gone gets."""
    return SESSION_ENDED if release == "0.6.28" else INVALID_REQUEST


def revoked_token(release: Release) -> str:
    """What a token gets that was made invalid (0.6.28 has no such thing; it gets the text nearest to it)."""
    return SESSION_ENDED if release == "0.6.28" else INVALID_TOKEN


def empty_file(release: Release) -> str:
    """What the upload of a file without content gets."""
    return "[ERROR: Error uploading file]" if release == "0.6.28" else EMPTY_FILE


async def web_page(exchange: Exchange, release: Release) -> None:
    """The web page, which every GET gets that there is no other answer for."""
    headers = [] if release == "0.6.28" else [("cache-control", "no-cache")]
    await exchange.answer(200, WEB_PAGE, "text/html; charset=utf-8", headers)


async def detail(exchange: Exchange, status: int, text: Any, headers: Headers = ()) -> None:
    """An error of Open WebUI's own."""
    await exchange.json(status, {"detail": text}, headers)


def server_error(status: int) -> dict[str, Any]:
    """An error of the model server, as Open WebUI passes it on."""
    message, kind, code = _SERVER_ERRORS.get(status) or (
        f"Upstream error {status}.",
        "invalid_request_error" if status < 500 else "server_error",
        "server_error",
    )
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


_SERVER_ERRORS = {
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    408: ("The request timed out.", "timeout_error", "timeout"),
    410: ("This model has been retired.", "deprecated_model_error", "model_deprecated"),
    429: ("Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request.", "server_error", "server_error"),
    529: ("The server is overloaded.", "overloaded_error", "overloaded"),
}


async def fail(exchange: Exchange, fault: str, release: Release, retry_after: str) -> bool:
    """Answer a fault that needs no stream; False: this one does."""
    own = {
        "401": (401, UNAUTHORIZED),
        "401_pending": (401, NO_PERMISSION),
        "401_revoked": (401, revoked_token(release)),
        "403": (403, NO_PERMISSION),
        "400_model": (400, MODEL_NOT_FOUND),
    }
    if fault in own:
        await detail(exchange, *own[fault])
    elif fault == "429_retry_after":
        await exchange.json(429, server_error(429), [("retry-after", retry_after)] if release != "0.6.28" else ())
    elif fault in {"null_200", "backend_down", "404_model"}:
        if release == "0.6.28" or fault == "null_200":
            await exchange.json(200, None)
        elif fault == "backend_down":
            await detail(exchange, 500, CONNECTION_ERROR)
        else:
            await detail(exchange, 404, "Model '' was not found")
    elif fault == "html_200":
        await exchange.answer(200, WEB_PAGE, "text/html; charset=utf-8")
    elif fault == "drop":
        await exchange.hang_up()
    elif fault.startswith("backend_"):
        status = int(fault.removeprefix("backend_"))
        await exchange.json(status, server_error(status))
    elif fault[:3].isdigit():
        await _fail_with_status(exchange, int(fault[:3]), fault[4:], release)
    else:
        return False
    return True


async def _fail_with_status(exchange: Exchange, status: int, form: str, release: Release) -> None:
    error = server_error(status)
    if form == "":
        await exchange.json(status, error)
    elif form == "detail":
        await detail(exchange, status, error["error"]["message"])
    elif form == "text":
        await exchange.answer(status, f"upstream says {status}".encode(), "text/plain; charset=utf-8")
    elif form == "html":
        await exchange.answer(status, EDGE_PAGE.format(status=status).encode(), "text/html; charset=utf-8")
    else:
        event = f"data: {spaced(error)}\n\n"
        if release == "0.6.28":
            await exchange.answer(200, event.encode(), "text/event-stream; charset=utf-8")
        else:
            await exchange.json(status, {"error": {"message": event, "code": status}})


def own_event(value: Any, release: Release) -> bytes:
    """An event that Open WebUI adds itself, not one of the model server's."""
    data = json.dumps(value).encode() if release == "0.6.28" else msgspec.json.encode(value)
    return b"data: " + data + b"\n\n"


def spaced(value: Any) -> str:
    """JSON with a blank after each comma and colon, as servers in Python write it."""
    return json.dumps(value, ensure_ascii=False)
