"""The one gate to the network: sends requests upstream, gives bytes, translates the HTTP client's errors into ours.

Nobody above knows which HTTP client this is. Every wait has its own bound: the connection, the first event, the silence
between two reads, the whole. A wait is watched by one timer a request that looks at the clock now and then, because a
timer a read would cost more than the read.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from types import TracebackType
from typing import NoReturn, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from k2think import __version__
from k2think.errors import UpstreamTimeout, UpstreamUnavailable

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

MAX_ADDRESSES = 4
"""Addresses of one checked name that are tried; its owner could give us hundreds to knock at."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(UpstreamUnavailable):
    """No connection was made: the host has no address that this transport may connect to, or none at all.

    Which of the two it is must not be told: it would say which names an internal name server knows.
    """


def look_up(name: str) -> list[str]:
    """The addresses of a name, in the system's order of preference; blocks. Raises `OSError`."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_own(address: Address) -> bool:
    """Say whether this machine has the address; asks the system, not the network.

    To our own public address we would come from within, past what guards it. Where the system lets everybody use
    addresses that it does not have (`ip_nonlocal_bind`), every one counts as its own.
    """
    plain = address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address
    try:
        with socket.socket(socket.AF_INET if plain.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind((str(plain), 0))
    except OSError as error:
        return error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # any other says nothing of the address
    return True


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
        if self._response.content.at_eof():
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
            door = _Door(self._may_connect, self._find)
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


class _Door(AbstractResolver):
    """Lets connections out to allowed addresses only.

    The HTTP client asks `resolve` for the addresses of a name, and `socket` for a socket to each address before it
    connects: also to one that stands in the URL itself. So what is checked is what is connected to.
    """

    def __init__(self, may_connect: Callable[[Address], bool], find: Callable[[str], list[str]]) -> None:
        self._may_connect = may_connect
        self._find = find

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        allowed = [address for address in await self._look_up(host) if self._may_connect(ipaddress.ip_address(address))]
        if not allowed:
            raise AddressRefused("None of the host's addresses may be connected to.")
        return [
            {"hostname": host, "host": address, "port": port, "family": family, "proto": 0, "flags": 0}
            for address in allowed[:MAX_ADDRESSES]
        ]

    def socket(self, wanted: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = wanted
        if not self._may_connect(ipaddress.ip_address(address[0])):
            raise AddressRefused("The address may not be connected to.")
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        """Nothing is kept."""

    async def _look_up(self, host: str) -> list[str]:
        """The addresses, none where the name is not known.

        Each look-up has a thread: one whose name server never answers holds up no other, nor the end of the process.
        What remains: a look-up cannot be stopped, so its thread lives on until the system gives up (half a minute, as
        most are set), longer than the fetch that wanted it. So there may be a few more threads than fetches.
        """
        looking: Future[list[str]] = Future()
        looking.set_running_or_notify_cancel()  # whoever waits may give up, and the answer then goes nowhere

        def look() -> None:
            try:
                found = self._find(host)
            except (OSError, UnicodeError):
                found = []
            looking.set_result(found)

        Thread(target=look, name="look-up", daemon=True).start()
        return await asyncio.wrap_future(looking)


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
