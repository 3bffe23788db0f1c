"""The short way upstream: connections straight to its servers, kept for the next request.

It is there for its speed alone (`docs/speed.md`). Whatever it has no way for goes through aiohttp.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import aiohappyeyeballs
from yarl import URL

from k2think.errors import UpstreamTimeout, UpstreamUnavailable
from k2think.together import Shared
from k2think.upstreams.connection import BUFFER_BYTES, Answer, Connection, PlainConnection, SecureConnection
from k2think.upstreams.patience import Patience

KEPT_SECONDS = 15.0
"""How long a connection waits for its next request. Servers hang up on idle ones after some time, and a request that
is sent at that moment is lost."""

ADDRESSES_SECONDS = 60.0
"""How long the addresses of a name are good."""

SECOND_ADDRESS_AFTER = 0.25
"""Seconds after which the next of a name's addresses is tried beside the first."""

ROUTES = 64
"""Of so many URLs it is remembered where they lead."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who is connected to."""

    host: str
    port: int
    secure: bool


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes, and how it begins."""

    origin: Origin
    head: str


class Direct:
    """The long-lived client; it belongs to one event loop. See `Transport`."""

    def __init__(
        self,
        *,
        patience: Patience,
        max_connections: int,
        headers: Mapping[str, str],
        make_socket: Callable[[aiohappyeyeballs.AddrInfoType], socket.socket],
    ) -> None:
        self._patience = patience
        self._places = asyncio.Semaphore(max_connections)
        self._always = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._route = lru_cache(ROUTES)(self._read)
        self._make_socket = make_socket
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._kept: dict[Origin, deque[tuple[Connection, float]]] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._lookups: Shared[Origin, Sequence[aiohappyeyeballs.AddrInfoType]] = Shared()
        self._found: dict[Origin, tuple[float, Sequence[aiohappyeyeballs.AddrInfoType]]] = {}
        self._tls: ssl.SSLContext | None = None
        self._loop = asyncio.get_running_loop()
        self._closed = False

    def close(self) -> None:
        """Close the connections that nobody uses; the others are closed when they are left."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for origin in list(self._kept):
            self._drop_kept(origin)

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, *, anew: bool = False
    ) -> Answer:
        """Send a request; give its answer, of which nothing need be there yet, to be closed.

        `anew`: on no connection that was kept. Raises `UpstreamUnavailable`, `UpstreamTimeout`.
        """
        route = self._route(method, url)
        said = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if not said.count("\n") == said.count("\r") == len(headers):
            raise ValueError("A header must not hold a line end.")
        length = "" if body is None and method == "GET" else f"Content-Length: {len(body or b'')}\r\n"
        try:
            head = f"{route.head}{said}{length}\r\n".encode()
        except UnicodeEncodeError:
            raise ValueError("A header must be text.") from None  # the error would show what it cannot encode
        origin = route.origin
        if anew:
            self._drop_kept(origin)
        if self._places.locked() or (connection := self._kept_one(origin)) is None:
            connection = await self._opened(origin)
        else:
            await self._places.acquire()  # which there is
        return connection.send(head, body)

    def _read(self, method: str, url: str) -> Route:
        try:
            read = URL(url)
        except ValueError:
            read = URL()
        if read.scheme not in {"http", "https"} or not read.raw_host or not read.port:
            raise UpstreamUnavailable("The upstream's URL names no server (K2THINK_API_URL).")
        head = f"{method} {read.raw_path_qs} HTTP/1.1\r\nHost: {read.host_port_subcomponent}\r\n{self._always}"
        return Route(Origin(read.raw_host, read.port, read.scheme == "https"), head)

    def _kept_one(self, origin: Origin) -> Connection | None:
        """A connection that waits for a request, the one that waited least."""
        kept = self._kept.get(origin)
        while kept:
            connection, since = kept.pop()
            if connection.is_open and self._loop.time() - since < KEPT_SECONDS:
                return connection
            connection.hang_up()
        return None

    def _drop_kept(self, origin: Origin) -> None:
        for connection, _ in self._kept.pop(origin, ()):
            connection.hang_up()

    async def _opened(self, origin: Origin) -> Connection:
        """A place among the connections, and a connection, if need be a new one."""
        try:
            async with asyncio.timeout(self._patience.first_event):
                await self._places.acquire()
        except TimeoutError:
            raise UpstreamTimeout("No connection to the upstream became free in time (MAX_CONNECTIONS).") from None
        connection = None
        try:
            if self._closed:
                raise UpstreamUnavailable("The gateway is not running.")
            connection = self._kept_one(origin) or await self._connected(origin)
        finally:
            if connection is None:
                self._places.release()
        return connection

    async def _connected(self, origin: Origin) -> Connection:
        try:
            async with asyncio.timeout(self._patience.connect):
                addresses = await self._addresses(origin)
                made = await aiohappyeyeballs.start_connection(
                    addresses, happy_eyeballs_delay=SECOND_ADDRESS_AFTER, socket_factory=self._make_socket
                )
                _, connection = await self._loop.create_connection(
                    partial(self._made, origin),
                    sock=made,
                    ssl=self._context() if origin.secure else None,
                    server_hostname=origin.host.rstrip(".") if origin.secure else None,
                )
        except TimeoutError:
            self._found.pop(origin, None)
            raise UpstreamTimeout("No connection to the upstream could be made in time (CONNECT_TIMEOUT).") from None
        except (OSError, UnicodeError, RuntimeError) as error:  # the last is uvloop's, now and then
            self._found.pop(origin, None)
            told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            reason = told or "the server hung up"
            raise UpstreamUnavailable(f"No connection to the upstream: {reason}.") from error
        return connection

    def _made(self, origin: Origin) -> Connection:
        left = partial(self._left, origin)
        return SecureConnection(left) if origin.secure else PlainConnection(self._buffer, left)

    async def _addresses(self, origin: Origin) -> Sequence[aiohappyeyeballs.AddrInfoType]:
        """The addresses of a host; asked for once, however many connections are made to it at once."""
        until, found = self._found.get(origin, (0.0, []))
        if self._loop.time() >= until:
            found = await self._lookups.get(origin, partial(self._look_up, origin))
            self._found[origin] = self._loop.time() + ADDRESSES_SECONDS, found
        return found

    async def _look_up(self, origin: Origin) -> Sequence[aiohappyeyeballs.AddrInfoType]:
        return await self._loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)

    def _context(self) -> ssl.SSLContext:
        """What a server's certificate is checked with; made for the first that has one, as it takes a while."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _left(self, origin: Origin, connection: Connection, serves: bool) -> None:
        """A request is done with its connection."""
        self._places.release()
        if not serves:
            return
        if self._closed:
            connection.hang_up()
            return
        self._kept.setdefault(origin, deque()).append((connection, self._loop.time()))
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(KEPT_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close what has waited too long, again and again as long as something waits."""
        self._sweeping = None
        due = self._loop.time() - KEPT_SECONDS
        for origin, kept in list(self._kept.items()):
            while kept and (kept[0][1] <= due or not kept[0][0].is_open):
                kept.popleft()[0].hang_up()
            if not kept:
                del self._kept[origin]
        if self._kept:
            oldest = min(kept[0][1] for kept in self._kept.values())
            self._sweeping = self._loop.call_at(oldest + KEPT_SECONDS, self._sweep)
