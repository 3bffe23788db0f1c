"""The one gate to the network: sends requests upstream, gives bytes, translates the HTTP client's errors into ours.

Nobody above knows which HTTP client this is. Every wait has its own bound: the connection, the first event, the silence
between two reads, the whole. A wait is watched by one timer a request that looks at the clock now and then, because a
timer a read would cost more than the read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp

from k2think import __version__
from k2think.errors import UpstreamTimeout, UpstreamUnavailable

USER_AGENT = f"k2think-api-proxy/{__version__}"
"""Who we are, said honestly."""

MAX_WHOLE_BODY = 32 * 1024 * 1024
"""Bytes of an answer that comes in one piece; far above any completion."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait for each thing: a connection, the first event, the next bytes after that, the whole answer."""

    connect: float
    first_event: float
    silence: float
    total: float


class Reply:
    """An answer whose head has come and whose body is still coming."""

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
        """Give what has arrived, b"" at the end. Raises `UpstreamUnavailable` or `UpstreamTimeout`."""
        with _translated():
            chunk = await self._response.content.readany()
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
    """The long-lived HTTP client. Between `start` and `close` it belongs to one event loop."""

    def __init__(self, *, patience: Patience, max_connections: int, proxy: str | None = None) -> None:
        self._patience = patience
        self._max_connections = max_connections
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the client."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._max_connections, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),  # many accounts share this client: a cookie must never stick
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._patience.connect),
            # Named are only the codings that the client decodes by itself.
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip, deflate"},
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the client and its connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncIterator[Reply]:
        """Send a request; give the answer once its head is there. Raises `UpstreamUnavailable`, `UpstreamTimeout`."""
        if self._session is None:
            raise UpstreamUnavailable("The gateway is not running.")
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._patience.first_event):
                with _translated():
                    response = await self._session.request(
                        method, url, headers=headers, data=body, proxy=self._proxy, allow_redirects=False
                    )
        except TimeoutError:
            waited = self._patience.first_event
            raise UpstreamTimeout(
                f"The upstream did not begin to answer within {waited:g} s (FIRST_EVENT_TIMEOUT)."
            ) from None
        async with Reply(response, self._patience, started) as reply:
            yield reply


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """The gate for foreign exceptions. Some of them quote the proxy's URL, password and all: they end here."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError:
        raise UpstreamTimeout("No connection to the upstream could be made in time (CONNECT_TIMEOUT).") from None
    except aiohttp.ClientProxyConnectionError as error:
        raise UpstreamUnavailable("The proxy named by PROXY_URL cannot be reached.") from error
    except aiohttp.ClientConnectorError as error:
        raise UpstreamUnavailable(f"No connection to the upstream: {error.strerror or error.os_error}.") from error
    except aiohttp.ClientHttpProxyError as error:
        raise UpstreamUnavailable(f"The proxy named by PROXY_URL answered {error.status}.") from None
    except aiohttp.ClientPayloadError as error:
        raise UpstreamUnavailable("The upstream's answer was cut off.") from error
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamUnavailable(f"The connection to the upstream failed ({type(error).__name__}).") from None
