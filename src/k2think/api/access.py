"""Who may pass. Closed by default: a path is open only if it is listed here, with a reason."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from k2think.errors import Unauthorized

OPEN_PATHS = frozenset(
    {
        "/",  # says what this is
        "/health",  # container health checks carry no key
        "/docs",  # the page asks for the key before it calls anything
        "/docs/oauth2-redirect",
        "/openapi.json",  # what /docs shows
    }
)


class Keys:
    """The keys that clients may use."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def check(self, authorization: bytes | None) -> None:
        """Check an `Authorization` header. Raises `Unauthorized`.

        Compared are digests, all of them: neither a key's length nor its place in the list shows in the time it takes.
        """
        scheme, _, key = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            raise Unauthorized("No API key. Send it as 'Authorization: Bearer YOUR_KEY'.")
        digest = _digest(key.strip())
        if not any([hmac.compare_digest(digest, known) for known in self._digests]):  # noqa: C419 - no early exit
            raise Unauthorized("The API key is wrong. It must be one of those in VALID_API_KEY.")


class Gate:
    """Stands before an app and lets those pass who have a key, or who want an open path."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then pass on. Raises `Unauthorized`."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            self._keys.check(header(scope, b"authorization"))
        await self._app(scope, receive, send)


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of this (lower-case) name."""
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    return next((value for key, value in headers if key == name), None)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
