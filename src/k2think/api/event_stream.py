"""A streamed answer on its way to the client, and the attendant who stays beside it.

The head goes out with the first bytes, so that an error found before them has its right status. If the upstream is
silent, the head goes out all the same after a moment, and a comment now and then, so that nothing between hangs up.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

from starlette.types import Send

from k2think.telemetry.records import Trace
from k2think.wire.openai_chat.outbound import keep_alive

COMMIT_AFTER = 1.0
"""Seconds of an upstream's silence after which the head is sent: later errors become frames of the stream."""

POLL = 0.25
"""Seconds between looks at a request that has not been sent upstream yet."""

STUCK_AFTER = 300.0
"""Seconds that a client may take nothing of what is sent; then it counts as gone."""

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the stream otherwise
]


class HungUp(Exception):
    """The client closed the connection: there is nobody to answer."""


class EventStream:
    """Sends frames. A write returns when the client's side has room again, so a slow client slows its upstream."""

    __slots__ = ("_send", "blocked", "started", "written_at")

    def __init__(self, send: Send) -> None:
        self.started = False
        self.written_at = 0.0
        self.blocked = False  # a write waits for the client to take something
        self._send = send

    async def write(self, frames: bytes, *, last: bool = False) -> None:
        """Send frames; the head before the first. The `last` end the answer."""
        if not self.started:
            self.started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        self.written_at = time.monotonic()
        self.blocked = True
        await self._send({"type": "http.response.body", "body": frames, "more_body": not last})
        self.blocked = False


class Attendant:
    """A context beside the work on one request: stops the work when the client is `gone` (then raises `HungUp`), and
    keeps its stream, if it has one, alive while nothing is written.
    """

    __slots__ = ("_gone", "_hung_up", "_keepalive", "_sign", "_stream", "_timer", "_trace", "_work")

    def __init__(
        self, gone: asyncio.Future[None], trace: Trace, stream: EventStream | None = None, *, keepalive: float
    ) -> None:
        self._gone = gone
        self._trace = trace
        self._stream = stream
        self._keepalive = keepalive
        self._hung_up = False
        self._timer: asyncio.TimerHandle | None = None
        self._sign: asyncio.Task[None] | None = None  # of life, on its way

    async def __aenter__(self) -> Self:
        work = asyncio.current_task()
        assert work is not None
        self._work = work
        self._gone.add_done_callback(self._leave)
        if self._stream is not None:
            self._look(self._stream)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gone.remove_done_callback(self._leave)
        if self._timer is not None:
            self._timer.cancel()
        if self._sign is not None:
            self._sign.cancel()
            self._sign = None
        if self._hung_up and (error is None or isinstance(error, asyncio.CancelledError)):
            self._work.uncancel()
            raise HungUp from None

    def _leave(self, _: object = None) -> None:
        self._hung_up = True
        self._work.cancel()

    def _look(self, stream: EventStream) -> None:
        """See whether the stream needs a sign of life, or its client has taken nothing for too long; and look again."""
        loop = asyncio.get_running_loop()
        seconds = self._until_due(stream)
        if seconds <= 0:
            if stream.blocked:
                self._leave()
                return
            self._sign = loop.create_task(stream.write(keep_alive()))
            seconds = self._keepalive
        self._timer = loop.call_later(seconds, self._look, stream)

    def _until_due(self, stream: EventStream) -> float:
        """Seconds until the stream needs a sign of life."""
        if stream.blocked:
            return stream.written_at + STUCK_AFTER - time.monotonic()
        if stream.started:
            return stream.written_at + self._keepalive - time.monotonic()
        if not self._trace.asked_at:
            return POLL
        return self._trace.asked_at + min(COMMIT_AFTER, self._keepalive) - time.monotonic()
