"""Fetches files from URLs that clients name, without lending them our place in the network.

A client must not reach through us what it could not reach by itself: each connection goes to a public address, each
redirect is judged like the first URL, and nothing of ours is sent along. Each fetch has a bound of size and of time.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Callable
from email.message import Message
from urllib.parse import unquote

from msgspec import Struct

from k2think.errors import UnusableUrl, UpstreamUnavailable
from k2think.places import Places
from k2think.upstreams.door import Address, AddressRefused, is_own, look_up
from k2think.upstreams.patience import Patience
from k2think.upstreams.public_urls import INSTEAD, PublicUrl, is_public, read_redirect, read_url
from k2think.upstreams.transport import Reply, Transport

MAX_REDIRECTS = 3
MAX_AT_ONCE = 8
"""Fetches that run at the same time. The files that came are their callers' to bound."""

REDIRECTS = {301, 302, 303, 307, 308}


class Fetched(Struct, frozen=True):
    """What came. `name` is what the server or the URL says, made safe by nobody; it may be empty."""

    data: bytes
    name: str


def is_foreign(address: Address) -> bool:
    """Say whether this is a host of the public internet, and not this machine."""
    return is_public(address) and not is_own(address)


class PublicWeb:
    """Between `start` and `close` it belongs to one event loop. `patience`: seconds for a place, and for a fetch."""

    def __init__(
        self,
        *,
        patience: float = 20.0,
        may_connect: Callable[[Address], bool] = is_foreign,
        find: Callable[[str], list[str]] = look_up,
    ) -> None:
        self._patience = patience
        full = f"Too many URLs are being fetched. Try again later. {INSTEAD}"
        self._places = Places(MAX_AT_ONCE, wait=patience, full=full)
        self._transport = Transport(
            # The one bound over all is kept in `fetch`: the others only must not come before it. A connection may take
            # half of the time, so that another address of the host has the other half.
            patience=Patience(patience / 2, first_event=2 * patience, silence=2 * patience, total=2 * patience),
            max_connections=MAX_AT_ONCE,
            may_connect=may_connect,
            find=find,
        )

    async def start(self) -> None:
        """Open the client."""
        await self._transport.start()

    async def close(self) -> None:
        """Close the client and its connections."""
        await self._transport.close()

    async def fetch(self, url: str, *, limit: int) -> Fetched:
        """Give the file of at most `limit` bytes that lies at this URL.

        Raises `UnusableUrl` (`url_not_allowed`, `url_unreachable`, `url_too_large`), and `Overloaded` when other
        fetches leave no place. Messages name schemes and hosts only: paths and queries may hold secrets.
        """
        first = read_url(url)
        async with self._places:
            try:
                async with asyncio.timeout(self._patience):
                    return await self._follow(first, limit)
            except TimeoutError:
                message = f"{first.origin} did not give the file within {self._patience:g} s. {INSTEAD}"
                raise UnusableUrl(message, code="url_unreachable") from None

    async def _follow(self, url: PublicUrl, limit: int) -> Fetched:
        for _ in range(1 + MAX_REDIRECTS):
            try:
                async with await self._transport.request("GET", str(url), headers={}) as reply:
                    reply.began()
                    if reply.status not in REDIRECTS:
                        return await _read(reply, url, limit)
                    url = read_redirect(url, reply.headers.get("location", ""))
            except AddressRefused:
                raise UnusableUrl(f"{url.origin} has no public address that can be reached. {INSTEAD}") from None
            except UpstreamUnavailable as error:
                message = f"{url.origin} cannot be reached, or its answer cannot be read. Check the URL. {INSTEAD}"
                raise UnusableUrl(message, code="url_unreachable") from error
        message = f"{url.origin} is the end of {MAX_REDIRECTS} redirects and redirects again. {INSTEAD}"
        raise UnusableUrl(message, code="url_unreachable")


async def _read(reply: Reply, url: PublicUrl, limit: int) -> Fetched:
    if reply.status != 200:
        message = f"{url.origin} answered with status {reply.status} instead of the file. Check the URL. {INSTEAD}"
        raise UnusableUrl(message, code="url_unreachable")
    if reply.headers.get("content-encoding", "identity").lower() != "identity":
        # We asked for plain bytes. What these would grow to, nobody knows.
        message = f"{url.origin} gives the file compressed only (Content-Encoding). {INSTEAD}"
        raise UnusableUrl(message, code="url_unreachable")
    said = reply.headers.get("content-length", "")[:20]  # more digits say nothing more
    body = io.BytesIO()
    if not (said.isdecimal() and int(said) > limit):
        while body.tell() <= limit and (chunk := await reply.read()):
            body.write(chunk)
        if body.tell() <= limit:
            return Fetched(data=body.getvalue(), name=_name(reply, url))
    raise UnusableUrl(
        f"The file at {url.origin} is larger than {limit:,} bytes, the most that is fetched. Send a smaller one.",
        code="url_too_large",
    )


def _name(reply: Reply, url: PublicUrl) -> str:
    said = ""
    # A stranger chooses the encoding of the name and how it is cut into pieces; the library trips over some of both.
    with contextlib.suppress(ValueError, TypeError):
        head = Message()
        head["content-disposition"] = _clean(reply.headers.get("content-disposition", ""))
        said = _clean(head.get_filename(""))
    return said or unquote(url.rest.partition("?")[0].rpartition("/")[2])


def _clean(text: str) -> str:
    """Give a header's text without what is no text: bytes that were not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
