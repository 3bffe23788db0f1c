"""Runs ASGI apps on sockets: uvicorn, set up for streams, and an address that is taken told in one line.

How it stops: it accepts no more, running answers have so many seconds to end (`drain`), those that are left are
cancelled, which is when an app tells its client. The same signal once more does that at once, a third one ends the
process.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import math
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal, TypeAlias

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from k2think.addresses import base_url

logger = logging.getLogger(__name__)

AsgiApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

BACKLOG = 2048
ACCEPTED_AT_ONCE = 16
YOUNG_OBJECTS = 20_000  # some two megabytes of them
IDLE_SECONDS = 75  # longer than the pools of proxies and clients keep a connection, so that they close it and not we
TEAR_SECONDS = 1.5
"""Seconds after answers were cut off until connections are torn off whose clients do not take what they were told."""
CUT_SECONDS = 3
"""Seconds beside the time for running answers, after which no client is waited for any more."""


class AddressUnusable(Exception):
    """Nobody can listen there: `problem` and `remedy`, which make the message, and which `setting` is to be another.

    `taken`: something listens there already.
    """

    def __init__(
        self, problem: str, remedy: str, *, setting: Literal["HOST", "PORT"] = "PORT", taken: bool = False
    ) -> None:
        super().__init__(f"{problem} {remedy}")
        self.problem = problem
        self.remedy = remedy
        self.setting = setting
        self.taken = taken


def listen(host: str, port: int) -> socket.socket:
    """Take the address; port 0 is any free one. Raises `AddressUnusable`."""
    with _telling(host, port):
        return _bound(host, port)


@contextmanager
def _telling(host: str, port: int) -> Iterator[None]:
    """Say in `AddressUnusable` what keeps an address from being taken."""
    try:
        yield
    except UnicodeError as error:
        raise _foreign(host, "no name of a machine") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            other = port + 1 if port < 65535 else 8001
            raise AddressUnusable(
                f"Port {port} is taken on {host}.",
                f"Stop what uses it, or choose another, such as --port {other}.",
                taken=True,
            ) from error
        if error.errno == errno.EACCES:
            raise AddressUnusable(
                f"Port {port} may not be used by this user.",
                "Choose one from 1024 up, such as --port 8001.",
            ) from error
        raise _foreign(host, error.strerror or str(error)) from error


def _foreign(host: str, why: str) -> AddressUnusable:
    return AddressUnusable(
        f"Cannot listen on {host} ({why}).",
        "HOST must be an address of this machine: 127.0.0.1 for programs on it alone, 0.0.0.0 for all that reach it.",
        setting="HOST",
    )


def listen_several(host: str, port: int, count: int) -> list[socket.socket]:
    """Take the address for so many processes: each accepts on a listener of its own. Raises `AddressUnusable`.

    Linux deals new connections out to them evenly; elsewhere they are one queue from which each takes what it can.
    """
    first = listen(host, port)
    if count > 1 and sys.platform == "linux":
        # Only now may others be bound beside it, and only by this user: another gateway begins with a listener that
        # does not allow it, as this one did, and is told that the port is taken.
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port = first.getsockname()[1]
        with _telling(host, port):
            return [first, *(_bound(host, port, beside=True) for _ in range(1, count))]
    return [first, *(first.dup() for _ in range(1, count))]


def _bound(host: str, port: int, *, beside: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=beside, dualstack_ipv6=both)


def url_of(listener: socket.socket) -> str:
    """The listener's base URL as seen from this machine."""
    host, port = listener.getsockname()[:2]
    return base_url(host, port)


def run(app: AsgiApp, listener: socket.socket, on_ready: Callable[[], None], *, drain: float) -> None:
    """Serve until Ctrl-C or SIGTERM, then let running answers end for `drain` seconds, and leave by SystemExit.

    `on_ready` is called once requests are answered. A lifespan that fails ends it by SystemExit too, with another code.
    """

    def ready() -> None:
        # What has been made so far stays for good: the collector need not look through it while requests wait.
        # What requests make is nearly all freed without it: looking through every 700 objects costs 7 % of the rate.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS, 50, 50)
        on_ready()

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, leave)  # uvicorn raises its signal again when it is done
    signal.signal(signal.SIGTERM, leave)
    server = _Server(app, ready, drain)
    with _several(listener) as listeners:
        server.run(listeners)


@contextmanager
def running_beside(app: AsgiApp, listener: socket.socket, *, drain: float) -> Iterator[None]:
    """Serve in a thread of its own for the length of the block, and `drain` seconds more where answers are running."""
    server = _Server(app, lambda: None, drain)
    with _several(listener) as listeners:
        thread = threading.Thread(target=server.run, args=(listeners,), name="beside", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.should_exit = True
            thread.join(timeout=drain + CUT_SECONDS + 2)


@contextmanager
def _several(listener: socket.socket) -> Iterator[list[socket.socket]]:
    """The listener, so often as connections are to be taken from it at once; closed at the end.

    uvloop takes one from each listener in a turn, and under load a turn is long: who came last of a hundred that came
    together would wait for seconds. asyncio takes all that are there; on Windows it is the event loop.
    """
    more = 0 if sys.platform == "win32" else ACCEPTED_AT_ONCE - 1
    listeners = [listener, *(listener.dup() for _ in range(more))]
    try:
        yield listeners
    finally:
        for one in listeners:
            one.close()


class Connection(HttpToolsProtocol):
    """A client's connection. Its apps find in their state a future, `gone`, that is done when the client has hung up.

    ASGI tells that only to who asks for it (`receive`): a task for each request, and some 4 % of their rate.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._gone: asyncio.Future[None] = self.loop.create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._gone.set_result(None)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["gone"] = self._gone

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()  # who does not read does not see that the client hangs up


class _Server(uvicorn.Server):
    """Uvicorn that says when it is ready, and lets the app end answers for which it can wait no longer."""

    def __init__(self, app: AsgiApp, on_ready: Callable[[], None], drain: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                interface="asgi3",
                lifespan="on",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # who may call /admin without a key is judged by the true peer
                backlog=BACKLOG,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=math.ceil(drain) + CUT_SECONDS,
            )
        )
        self._on_ready = on_ready
        self._drain = drain
        self._loop: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig not in self._captured_signals:
            super().handle_exit(sig, frame)
            return
        signal.signal(sig, signal.SIG_DFL)
        if self._loop:
            self._loop.call_soon_threadsafe(self._hurry)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started and not self.should_exit:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.server_state.tasks:
            logger.info("stopping: running answers have %g s to end; Ctrl-C once more cuts them off", self._drain)
        end = asyncio.get_running_loop().call_later(self._drain, self._cut_off, " (DRAIN_TIMEOUT)")
        try:
            await super().shutdown(sockets)
        finally:
            end.cancel()

    def _hurry(self) -> None:
        self._drain = 0.0
        self._cut_off()

    def _cut_off(self, why: str = "") -> None:
        """Cancel all answers that are still running."""
        running = list(self.server_state.tasks)
        if running:
            logger.warning("stopping: running answers that are cut off: %d%s", len(running), why)
        for task in running:
            task.cancel()
        asyncio.get_running_loop().call_later(TEAR_SECONDS, self._tear_off)

    def _tear_off(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def leave(_signal: int, _frame: FrameType | None) -> None:
    """Handle a signal by ending the process as one that is done."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it is leaving: whoever is impatient would only disturb it
    sys.exit(0)
