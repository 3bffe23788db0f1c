"""The one gate to the network: sends requests upstream, gives bytes, and every error as one of ours.

Nobody above knows which HTTP client this is: the short way where there is one, else aiohttp. Every wait has its own
bound: the connection, the first event, the silence between two reads, the whole. A wait is watched by one timer a
request that looks at the clock now and then, because a timer a read would cost more than the read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterable, Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from k2think import __version__
from k2think.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from k2think.upstreams.aiohttp_client import AiohttpClient
from k2think.upstreams.connection import Unanswered
from k2think.upstreams.direct import Direct
from k2think.upstreams.door import Address, look_up
from k2think.upstreams.patience import Patience

USER_AGENT = f"k2think-api-proxy/{__version__}"
"""Who we are, said honestly."""

MAX_WHOLE_BODY = 32 * 1024 * 1024
"""Bytes of an answer that comes in one piece; far above any completion."""

RECEIVE_BYTES = 48 * 1024
"""The system's receive buffer of a connection, as it is asked for: Linux gives twice that, beside what we hold. It is
also the window: 2,000 tokens a second over a distance of 100 ms.
"""


class Answer(Protocol):
    """An answer on its way, whichever client asked for it."""

    @property
    def status(self) -> int:
        """The status; 0 until the head is there."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, to be found by their names in lower case."""

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies that it sets, name → value."""

    @property
    def has_ended(self) -> bool:
        """Whether the whole body has been read."""

    async def read(self) -> bytes:
        """Give what has come of the body, b"" at its end. Raises `UpstreamError`."""

    def fail(self, error: UpstreamError) -> None:
        """Whoever waits, and whoever reads from now on, gets this error."""

    def close(self) -> None:
        """Nothing more is wanted. The connection can serve again if the answer has ended, else it is hung up on."""


class Reply:
    """An answer, watched: a context, at whose end it is hung up on."""

    __slots__ = ("_answer", "_last_read", "_loop", "_patience", "_reading", "_silence", "_started", "_watch")

    def __init__(self, answer: Answer, patience: Patience, started: float) -> None:
        self._answer = answer
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._started = started
        self._last_read = 0.0  # 0 until the first event: up to then bytes alone (comments, blanks) prove nothing
        self._silence = patience.silence
        self._reading = False  # somebody waits for what comes
        self._watch = self._loop.call_at(started + min(patience.first_event, patience.silence), self._look)

    @property
    def status(self) -> int:
        """The status."""
        return self._answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, to be found by their names in lower case."""
        return self._answer.headers

    @property
    def content_type(self) -> str:
        """The media type, in lower case, without parameters; "" if none is said."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies that the answer sets, name → value."""
        return self._answer.cookies

    @property
    def has_ended(self) -> bool:
        """Whether the whole body has been read."""
        return self._answer.has_ended

    def began(self) -> None:
        """The first event has come: from here on silence is what counts."""
        self._last_read = self._loop.time()

    def ending(self, seconds: float = 2.0) -> None:
        """The answer is complete; what may follow (usage, the body's end) is not worth a longer silence than this."""
        self._silence = min(self._silence, seconds)
        self._watch.cancel()
        self._watch = self._loop.call_later(self._silence, self._look)

    async def read(self) -> bytes:
        """Give what has arrived, b"" at the end.

        Raises `UpstreamUnavailable` or `UpstreamTimeout`.
        """
        self._reading = True
        chunk = await self._answer.read()
        self._reading = False
        if self._last_read:
            self._last_read = self._loop.time()
        return chunk

    async def read_whole(self, limit: int = MAX_WHOLE_BODY) -> bytes:
        """Give the whole body. Raises `UpstreamUnavailable` if it is longer than `limit`."""
        pieces: list[bytes] = []
        size = 0
        while chunk := await self.read():
            pieces.append(chunk)
            size += len(chunk)
            if size > limit:
                raise UpstreamUnavailable(f"The upstream's answer is longer than {limit} bytes.")
        return b"".join(pieces)

    async def read_beginning(self, limit: int) -> bytes:
        """Give at most `limit` bytes of the body, whatever happens to the rest: for error pages."""
        pieces: list[bytes] = []
        size = 0
        with contextlib.suppress(UpstreamUnavailable):
            while size < limit and (chunk := await self.read()):
                pieces.append(chunk)
                size += len(chunk)
        return b"".join(pieces)[:limit]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing more of it is wanted: hanging up is how a running generation is stopped upstream."""
        self._watch.cancel()
        self._answer.close()

    def _look(self) -> None:
        now = self._loop.time()
        patience = self._patience
        if self._last_read and not self._reading:
            self._last_read = now  # it is the client who is slow, and the upstream has to wait
        end = self._started + patience.total
        due = min(self._last_read + self._silence if self._last_read else self._started + patience.first_event, end)
        if now < due:
            # An answer that begins meanwhile may be due sooner.
            self._watch = self._loop.call_at(min(due, now + self._silence), self._look)
            return
        if due == end:
            message = f"The answer took longer than {patience.total:.0f} s in all (TOTAL_TIMEOUT)."
        elif self._last_read:
            message = f"The upstream was silent for {self._silence:g} s (REQUEST_TIMEOUT)."
        elif not self._answer.status:
            message = f"The upstream did not begin to answer within {patience.first_event:g} s (FIRST_EVENT_TIMEOUT)."
        else:
            message = f"The upstream gave no event within {patience.first_event:g} s (FIRST_EVENT_TIMEOUT)."
        self._answer.fail(UpstreamTimeout(message))


class Transport:
    """The long-lived HTTP client. Between `start` and `close` it belongs to one event loop.

    With `may_connect` it is one for strangers: it connects only to addresses of which that says yes, asks for plain
    bodies and gives compressed ones as they are, and keeps no connection. Not to be used with a proxy.
    """

    def __init__(
        self,
        *,
        patience: Patience,
        max_connections: int,
        proxy: str | None = None,
        may_connect: Callable[[Address], bool] | None = None,
        find: Callable[[str], list[str]] = look_up,
    ) -> None:
        self._patience = patience
        self._max_connections = max_connections
        self._proxy = proxy
        self._may_connect = may_connect
        self._find = find
        self._aiohttp: AiohttpClient | None = None
        self._direct: Direct | None = None

    async def start(self) -> None:
        """Open the client."""
        # Named is only the coding that the clients decode by themselves.
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip" if self._may_connect is None else "identity"}
        self._aiohttp = AiohttpClient(
            patience=self._patience,
            max_connections=self._max_connections,
            headers=headers,
            proxy=self._proxy,
            may_connect=self._may_connect,
            find=self._find,
            make_socket=_narrow_socket,
        )
        if self._proxy is None and self._may_connect is None:
            self._direct = Direct(
                patience=self._patience,
                max_connections=self._max_connections,
                headers=headers,
                make_socket=_narrow_socket,
            )

    async def close(self) -> None:
        """Close the client and its connections."""
        if self._direct is not None:
            self._direct.close()
        if self._aiohttp is not None:
            await self._aiohttp.close()
        self._direct = self._aiohttp = None

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | AsyncIterable[bytes] | None = None
    ) -> Reply:
        """Send a request; give the answer once its head is there: a context, at whose end it is hung up on.

        A body that comes in pieces needs its Content-Length in the headers, or it goes in chunks. Raises
        `UpstreamUnavailable`, `UpstreamTimeout`.
        """
        if self._aiohttp is None:
            raise UpstreamUnavailable("The gateway is not running.")
        if self._direct is None or isinstance(body, AsyncIterable):
            answer, started = await self._aiohttp.request(method, url, headers, body)
            return Reply(answer, self._patience, started)
        try:
            return await self._ask(self._direct, method, url, headers, body)
        except Unanswered:
            if method != "GET":
                raise
        # A connection that was kept may be closed at that moment; to ask twice does no harm.
        return await self._ask(self._direct, method, url, headers, body, anew=True)

    async def _ask(
        self,
        client: Direct,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        anew: bool = False,
    ) -> Reply:
        coming = await client.send(method, url, headers, body, anew=anew)
        reply = Reply(coming, self._patience, asyncio.get_running_loop().time())
        is_there = False
        try:
            await coming.head()
            is_there = True
        finally:
            if not is_there:
                reply.close()
        return reply


def _narrow_socket(wanted: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, *_ = wanted
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    return made
