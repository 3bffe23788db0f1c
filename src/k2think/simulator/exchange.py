"""One HTTP request and its answer on plain ASGI, with what frameworks hide: hanging up, and being hung up on."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import msgspec

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers: TypeAlias = Sequence[tuple[str, str]]

_COMPRESS_FROM = 500  # bytes
_WRITES_PER_TURN = 16  # of the event loop


class ClientLeft(Exception):
    """The client closed the connection before it had its answer."""


class Exchange:
    """A request, and the means to answer it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, compress: bool) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: dict[str, str] = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))
        self.headers: dict[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        self.status = 0
        self._receive = receive
        self._send = send
        self._compress = compress
        self._gone: asyncio.Future[Any] | None = None
        self._writes = 0

    @property
    def cookies(self) -> dict[str, str]:
        """Name -> value."""
        pairs = (pair.strip().partition("=") for pair in self.headers.get("cookie", "").split(";"))
        return {name: value for name, _, value in pairs}

    async def body(self) -> bytes:
        """The whole body. Raises ClientLeft."""
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)

    def watch(self) -> None:
        """From here on notice a client that leaves; only after the body was read."""
        self._gone = asyncio.ensure_future(self._receive())

    async def unwatch(self) -> None:
        """The opposite, and a must for all that was watched."""
        if self._gone is not None and not self._gone.done():
            self._gone.cancel()
            with suppress(asyncio.CancelledError):
                await self._gone

    async def pause(self, seconds: float | None) -> None:
        """Wait; None: until the client leaves. Raises ClientLeft as soon as it does."""
        assert self._gone is not None
        if seconds != 0 and not self._gone.done():
            await asyncio.wait({self._gone}, timeout=seconds)
        if self._gone.done():
            raise ClientLeft

    async def answer(self, status: int, body: bytes, content_type: str, headers: Headers = ()) -> None:
        """The whole answer."""
        extra = list(headers)
        if (
            self._compress
            and len(body) >= _COMPRESS_FROM
            and content_type == "application/json"
            and "gzip" in self.headers.get("accept-encoding", "")
        ):
            body = gzip.compress(body, compresslevel=1)
            extra.append(("content-encoding", "gzip"))
        await self._start(status, [("content-length", str(len(body))), ("content-type", content_type), *extra])
        await self._send({"type": "http.response.body", "body": body})

    async def json(self, status: int, value: Any, headers: Headers = ()) -> None:
        """The whole answer, as JSON."""
        await self.answer(status, msgspec.json.encode(value), "application/json", headers)

    async def begin(self, headers: Headers) -> None:
        """Status 200 and headers of a streamed answer."""
        await self._start(200, headers)
        # An empty body message makes servers send the headers now rather than with the first event.
        await self._send({"type": "http.response.body", "body": b"", "more_body": True})

    async def write(self, data: bytes) -> None:
        """The next bytes of a streamed answer. Raises ClientLeft."""
        assert self._gone is not None
        self._writes += 1
        if self._writes % _WRITES_PER_TURN == 0:
            await asyncio.sleep(0)  # a write seldom waits, so nobody else would ever have a turn
        if self._gone.done():
            raise ClientLeft
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """The end of a streamed answer."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def hang_up(self) -> None:
        """Close the connection in the middle of whatever it is, after what was written has left.

        ASGI has no word for this, so it is asked of uvicorn's transport. Under other servers the answer is left
        incomplete, which makes most of them do the same.
        """
        assert self._gone is not None
        transport = getattr(getattr(self._send, "__self__", None), "transport", None)
        if transport is not None:
            transport.close()
            await self._gone

    async def _start(self, status: int, headers: Headers) -> None:
        self.status = status
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})
