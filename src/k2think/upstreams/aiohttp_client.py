"""The long way upstream, through the HTTP library, for what has no other: proxies, bodies in pieces, strangers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from typing import NoReturn

import aiohttp

from k2think.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from k2think.upstreams.door import Address, Door
from k2think.upstreams.patience import Patience

READ_BYTES = 16 * 1024
"""Bytes of an answer that are taken at once; the connection rests while twice as many wait to be taken."""


class AiohttpAnswer:
    """An answer whose head has come."""

    __slots__ = ("_response",)

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @property
    def status(self) -> int:
        """The status."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; names in any case find them."""
        return self._response.headers

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies that the answer sets, name → value."""
        return {name: cookie.value for name, cookie in self._response.cookies.items()}

    @property
    def has_ended(self) -> bool:
        """Whether the whole body has been read."""
        return self._response.content.at_eof()

    async def read(self) -> bytes:
        """Give what has come, b"" at the end. Raises `UpstreamUnavailable` or what it was made to `fail` with."""
        try:
            return await self._response.content.read(READ_BYTES)
        except (aiohttp.ClientError, OSError) as error:
            _translate(error)

    def fail(self, error: UpstreamError) -> None:
        """Whoever waits, and whoever reads from now on, gets this error."""
        self._response.content.set_exception(error)

    def close(self) -> None:
        """Nothing more is wanted."""
        if self.has_ended:
            self._response.release()  # the connection can serve another request
        else:
            self._response.close()  # hanging up is how a running generation is stopped upstream


class AiohttpClient:
    """The long-lived client; between `start` and `close` it belongs to one event loop. See `Transport`."""

    def __init__(
        self,
        *,
        patience: Patience,
        max_connections: int,
        headers: Mapping[str, str],
        proxy: str | None,
        may_connect: Callable[[Address], bool] | None,
        find: Callable[[str], list[str]],
        make_socket: Callable[[aiohttp.AddrInfoType], socket.socket],
    ) -> None:
        self._patience = patience
        self._proxy = proxy
        if may_connect is None:
            connector = aiohttp.TCPConnector(limit=max_connections, ttl_dns_cache=60, socket_factory=make_socket)
        else:
            door = Door(may_connect, find)
            connector = aiohttp.TCPConnector(
                limit=max_connections,
                use_dns_cache=False,  # each connection is made to what was looked up and checked for it alone
                force_close=True,
                resolver=door,
                socket_factory=door.socket,
            )
        self._session = aiohttp.ClientSession(
            connector=connector,
            read_bufsize=READ_BYTES,
            auto_decompress=may_connect is None,
            cookie_jar=aiohttp.DummyCookieJar(),  # many accounts share this client: a cookie must never stick
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=patience.connect),
            headers=headers,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the client and its connections."""
        await self._session.close()

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | AsyncIterable[bytes] | None
    ) -> tuple[AiohttpAnswer, float]:
        """Send a request; give the answer once its head is there, and since when it was waited for, by the loop's time.

        Raises `UpstreamUnavailable`, `UpstreamTimeout`.
        """
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
        return AiohttpAnswer(response), started


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
