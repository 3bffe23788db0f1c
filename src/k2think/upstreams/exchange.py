"""One chat call over HTTP, the same for every upstream: send, check the status, read whatever form the answer has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import msgspec

from k2think import sse
from k2think.dialogue.events import Event
from k2think.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from k2think.upstreams.base import Listed
from k2think.upstreams.frames import FrameReader
from k2think.upstreams.refusals import Speaker, error_of_status
from k2think.upstreams.transport import Reply, Transport

BATCH = 128
"""Events that go on together at most: what becomes of them, which may be a multiple, waits for a client who is slow."""

MAX_ERROR_BODY = 64 * 1024
MODELS_PATIENCE = 5.0  # seconds; clients that list models give up after ten


async def converse(
    transport: Transport, url: str, headers: Mapping[str, str], body: bytes, *, owns_tokens: Speaker
) -> AsyncGenerator[Sequence[Event], None]:
    """Send a chat request; give the events that each read brings. Closing the generator hangs up."""
    head = {**headers, "Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
    async with await transport.request("POST", url, headers=head, body=body) as reply:
        del head, body  # a long question would lie here as long as its answer comes
        await _check(reply, owns_tokens)
        reader = FrameReader()
        if _is_whole(reply):
            yield reader.feed_whole(await reply.read_whole())
            reader.close()
            return
        # The one loop that turns for every event there is: it has no generator of its own.
        decoder = sse.Decoder()
        began = ending = False
        while True:
            try:
                chunk = await reply.read()
            except UpstreamUnavailable:
                if not reader.finished:
                    raise
                return  # the answer was complete; how the connection ends is of no interest
            if not chunk:
                break
            frames = decoder.feed(chunk)
            del chunk  # they are its copy
            for place in range(0, len(frames), BATCH):
                events: list[Event] = []
                try:
                    reader.feed_all(frames[place : place + BATCH], events)
                except UpstreamError:
                    if began and events:
                        yield events  # before any of it was seen, an answer is better tried again
                    raise
                if events:
                    if not began:
                        reply.began()
                        began = True
                    yield events
            if reader.finished and not ending:
                # Read on to the body's end, which comes at once as a rule: only then can the connection serve again.
                if reply.has_ended:
                    break
                reply.ending()
                ending = True
        if rest := [event for data in decoder.close() for event in reader.feed(data)]:
            yield rest
        reader.close()


async def list_models(
    transport: Transport, url: str, headers: Mapping[str, str], *, owns_tokens: Speaker
) -> tuple[Listed, ...]:
    """Ask for the models: `{"data": [{"id": …}]}` or a bare list."""
    try:
        async with (
            asyncio.timeout(MODELS_PATIENCE),
            await transport.request("GET", url, headers={**headers, "Accept": "application/json"}) as reply,
        ):
            await _check(reply, owns_tokens)
            body = await reply.read_whole()
    except TimeoutError:
        raise UpstreamTimeout("The upstream did not list its models in time.") from None
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamUnavailable("The upstream's list of models is not JSON (K2THINK_API_URL?).") from None
    entries: Any = found.get("data") if isinstance(found, dict) else found
    if not isinstance(entries, list):
        raise UpstreamUnavailable("The upstream's list of models holds no list.")
    listed = {
        entry["id"]: Listed(entry["id"], _sees(entry))
        for entry in reversed(entries)
        if isinstance(entry, dict) and isinstance(entry.get("id"), str) and entry["id"]
    }
    return tuple(reversed(listed.values()))


def _sees(entry: dict[str, Any]) -> bool | None:
    """What a list says of a model's eyes: in Open WebUI's words, or in those of OpenRouter and llama.cpp."""
    said = _within(entry, "info", "meta", "capabilities", "vision")
    if isinstance(said, bool):
        return said
    modalities = _within(entry, "architecture", "input_modalities")
    return "image" in modalities if isinstance(modalities, list) else None


def _within(found: Any, *path: str) -> Any:
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


async def _check(reply: Reply, owns_tokens: Speaker) -> None:
    if reply.status != 200:
        body = await reply.read_beginning(MAX_ERROR_BODY)
        raise error_of_status(reply.status, reply.headers, body, owns_tokens=owns_tokens, now=time.time())


def _is_whole(reply: Reply) -> bool:
    """Whether the answer comes in one piece although a stream was asked for. A page is no answer at all."""
    media_type = reply.content_type
    if media_type == "text/html":
        raise UpstreamUnavailable("The upstream answered with a web page (K2THINK_API_URL names another place?).")
    return media_type == "application/json"
