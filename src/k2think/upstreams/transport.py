"""The one gate to the network: sends requests upstream, gives bytes, translates the HTTP client's errors into ours.

Nobody above knows which HTTP client this is. Every wait has its own bound: the connection, the first event, the silence
between two reads, the whole. A wait is watched by one timer a request that looks at the clock now and then, because a
timer a read would cost more than the read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn, Self

import aiohttp

from k2think import __version__
from k2think.errors import UpstreamTimeout, UpstreamUnavailable
from k2think.upstreams.door import Address, Door, look_up

USER_AGENT = f"k2think-api-proxy/{__version__}"
"""Who we are, said honestly."""

MAX_WHOLE_BODY = 32 * 1024 * 1024
"""Bytes of an answer that comes in one piece; far above any completion."""

READ_BYTES = 16 * 1024
"""Bytes of an answer that are taken at once; the connection rests while twice as many wait to be taken."""

RECEIVE_BYTES = 48 * 1024
"""The system's receive buffer of a connection, as it is asked for: Linux gives twice that, and the client may bring all
of it in one read. With what waits above, and what the server keeps, it is at most the 256 KB that a client who does not
read shall cost. It is also the window: 2,000 tokens a second over a distance of 100 ms.
"""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait for each thing: a connection, the first event, the next bytes after that, the whole answer."""

    connect: float
    first_event: float
    silence: float
    total: float


class Reply:
    """An answer whose head has come and whose body is still coming."""

    __slots__ = (
        "_last_read",
        "_loop",
        "_patience",
        "_reading",
        "_response",
        "_silence",
        "_started",
        "_watch",
        "content_type",
        "headers",
        "status",
    )

    def __init__(self, response: aiohttp.ClientResponse, patience: Patience, started: float) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.content_type = response.content_type if "content-type" in response.headers else ""
        self._response = response
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._started = started
        self._last_read = 0.0  # 0 until the first event: up to then bytes alone (comments, blanks) prove nothing
        self._silence = patience.silence
        self._reading = False  # somebody waits for what comes
        self._watch = self._loop.call_at(started + patience.first_event, self._look)

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies that the answer sets, name → value."""
        return {name: cookie.value for name, cookie in self._response.cookies.items()}

    @property
    def has_ended(self) -> bool:
        """Whether the whole body has been read."""
        return self._response.content.at_eof()

    def began(self) -> None:
        """The first event has come: from here on silence is what counts."""
        self._last_read = self._loop.time()
        self._watch_silence()

    def ending(self, seconds: float = 2.0) -> None:
        """The answer is complete; what may follow (usage, the body's end) is not worth a longer silence than this."""
        self._silence = min(self._silence, seconds)
        self._watch_silence()

    async def read(self) -> bytes:
        """Give what has arrived, at most `READ_BYTES` of it, b"" at the end.

        Raises `UpstreamUnavailable` or `UpstreamTimeout`.
        """
        self._reading = True
        try:
            chunk = await self._response.content.read(READ_BYTES)
        except (aiohttp.ClientError, OSError) as error:
            _translate(error)
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
        self._watch.cancel()
        if self.has_ended:
            self._response.release()  # the connection can serve another request
        else:
            self._response.close()  # hanging up is how a running generation is stopped upstream

    def _watch_silence(self) -> None:
        self._watch.cancel()
        self._watch = self._loop.call_later(self._silence, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        patience = self._patience
        if self._last_read and not self._reading:
            self._last_read = now  # it is the client who is slow, and the upstream has to wait
        end = self._started + patience.total
        due = min(self._last_read + self._silence if self._last_read else self._started + patience.first_event, end)
        if now < due:
            self._watch = self._loop.call_at(due, self._look)
            return
        if due == end:
            message = f"The answer took longer than {patience.total:.0f} s in all (TOTAL_TIMEOUT)."
        elif self._last_read:
            message = f"The upstream was silent for {self._silence:g} s (REQUEST_TIMEOUT)."
        else:
            message = f"The upstream gave no event within {patience.first_event:g} s (FIRST_EVENT_TIMEOUT)."
        self._response.content.set_exception(UpstreamTimeout(message))


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
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the client."""
        limit = self._max_connections
        if self._may_connect is None:
            connector = aiohttp.TCPConnector(limit=limit, ttl_dns_cache=60, socket_factory=_narrow_socket)
        else:
            door = Door(self._may_connect, self._find)
            connector = aiohttp.TCPConnector(
                limit=limit,
                use_dns_cache=False,  # each connection is made to what was looked up and checked for it alone
                force_close=True,
                resolver=door,
                socket_factory=door.socket,
            )
        self._session = aiohttp.ClientSession(
            connector=connector,
            read_bufsize=READ_BYTES,
            auto_decompress=self._may_connect is None,
            cookie_jar=aiohttp.DummyCookieJar(),  # many accounts share this client: a cookie must never stick
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._patience.connect),
            # Named are only the codings that the client decodes by itself.
            headers={
                "User-Agent": USER_AGENT,
                "Accept-Encoding": "gzip, deflate" if self._may_connect is None else "identity",
            },
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the client and its connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | AsyncIterable[bytes] | None = None
    ) -> Reply:
        """Send a request; give the answer once its head is there: a context, at whose end it is hung up on.

        A body that comes in pieces needs its Content-Length in the headers, or it goes in chunks. Raises
        `UpstreamUnavailable`, `UpstreamTimeout`.
        """
        if self._session is None:
            raise UpstreamUnavailable("The gateway is not running.")
        loop = asyncio.get_running_loop()
        started = loop.time()
        sending: _Sending | None = None
        try:
            async with asyncio.timeout(self._patience.first_event) as limit:
                if isinstance(body, AsyncIterable):
                    body = sending = _Sending(body, limit, self._patience)
                try:
                    response = await self._session.request(
                        method, url, headers=headers, data=body, proxy=self._proxy, allow_redirects=False
                    )
                except (aiohttp.ClientError, OSError) as error:
                    _translate(error)
                if sending:
                    sending.stop_watching()
                    started = loop.time()  # how long the sending took is no part of the answer
        except TimeoutError:
            if sending and sending.under_way:
                raise UpstreamTimeout("The upstream was too slow in taking the request (REQUEST_TIMEOUT).") from None
            waited = self._patience.first_event
            raise UpstreamTimeout(
                f"The upstream did not begin to answer within {waited:g} s (FIRST_EVENT_TIMEOUT)."
            ) from None
        return Reply(response, self._patience, started)


def _narrow_socket(wanted: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = wanted
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    return made


class _Sending:
    """A body on its way out, which may take long: what is watched is how long the connection takes for each piece.

    All of it may take as long as a whole answer. The wait for the answer begins at its end.
    """

    def __init__(self, pieces: AsyncIterable[bytes], limit: asyncio.Timeout, patience: Patience) -> None:
        self.under_way = False
        self._pieces = pieces
        self._limit: asyncio.Timeout | None = limit
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + patience.total

    def stop_watching(self) -> None:
        """The answer has come, which may be before the end."""
        self._limit = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.under_way = True
        async for piece in self._pieces:
            self._wait(min(self._loop.time() + self._patience.silence, self._end))
            yield piece  # comes back when the connection has room again
        self.under_way = False
        self._wait(self._loop.time() + self._patience.first_event)

    def _wait(self, until: float) -> None:
        if self._limit is not None:
            self._limit.reschedule(until)


def _translate(error: aiohttp.ClientError | OSError) -> NoReturn:
    """The gate for foreign exceptions. Some of them quote the proxy's URL, password and all: they end here."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            raise UpstreamTimeout("No connection to the upstream could be made in time (CONNECT_TIMEOUT).") from None
        case aiohttp.ClientProxyConnectionError():
            raise UpstreamUnavailable("The proxy named by PROXY_URL cannot be reached.") from error
        case aiohttp.ClientConnectorError():
            raise UpstreamUnavailable(f"No connection to the upstream: {error.strerror or error.os_error}.") from error
        case aiohttp.ClientHttpProxyError():
            raise UpstreamUnavailable(f"The proxy named by PROXY_URL answered {error.status}.") from None
        case aiohttp.ClientPayloadError():
            raise UpstreamUnavailable("The upstream's answer was cut off.") from error
        case _:
            raise UpstreamUnavailable(f"The connection to the upstream failed ({type(error).__name__}).") from None
