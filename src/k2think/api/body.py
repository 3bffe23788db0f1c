"""Reads a request's JSON body within its bounds."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope

from k2think.api.access import header
from k2think.api.event_stream import HungUp
from k2think.errors import BodyTooLarge, BodyTooSlow, UnsupportedMediaType

PATIENCE = 60.0
"""Seconds that a body may take to arrive."""


async def read_json_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Give the body. Raises `UnsupportedMediaType`, `BodyTooLarge` over `limit` bytes, `BodyTooSlow`, `HungUp`."""
    media_type = (header(scope, b"content-type") or b"application/json").partition(b";")[0].strip().lower()
    if media_type != b"application/json" and not media_type.endswith(b"+json"):
        raise UnsupportedMediaType("The body must be JSON: send it with 'Content-Type: application/json'.")
    announced = header(scope, b"content-length") or b"0"
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(PATIENCE):
            return await _read(receive, limit)
    except TimeoutError:
        raise BodyTooSlow(f"The request body did not arrive within {PATIENCE:.0f} s.") from None


async def _read(receive: Receive, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HungUp
        piece: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
    return b"".join(pieces)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The request body is larger than {limit // 1024 // 1024} MB (MAX_BODY_MB). Upload files with POST /v1/files "
        "and send their ids."
    )
