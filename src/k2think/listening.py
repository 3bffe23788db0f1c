"""Runs ASGI apps on sockets: uvicorn, set up for streams, and an address that is taken told in one line."""

from __future__ import annotations

import errno
import gc
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeAlias

import uvicorn

AsgiApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

BACKLOG = 2048
GRACE_SECONDS = 30
YOUNG_OBJECTS = 20_000  # some two megabytes of them
IDLE_SECONDS = 75  # longer than the pools of proxies and clients keep a connection, so that they close it and not we


class AddressUnusable(Exception):
    """Nobody can listen there; the message says why and what to do."""


def listen(host: str, port: int) -> socket.socket:
    """Take the address; port 0 is any free one. Raises `AddressUnusable`."""
    try:
        return _bound(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"Port {port} is taken on {host}. Stop what uses it, or choose another, such as --port {port + 1}."
        elif error.errno == errno.EACCES:
            reason = f"Port {port} may not be used by this user. Choose one from 1024 up, such as --port 8001."
        else:
            reason = (
                f"Cannot listen on {host}, port {port} ({error.strerror}). HOST must be an address of this machine."
            )
        raise AddressUnusable(reason) from error


def listen_several(host: str, port: int, count: int) -> list[socket.socket]:
    """Take the address for so many processes: each accepts on a listener of its own. Raises `AddressUnusable`.

    Linux deals new connections out to them evenly; elsewhere they are one queue from which each takes what it can.
    """
    first = listen(host, port)
    if count > 1 and sys.platform == "linux":
        # Only now may others be bound beside it, and only by this user: another gateway begins with a listener that
        # does not allow it, as this one did, and is told that the port is taken.
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return [first, *(_bound(host, first.getsockname()[1], beside=True) for _ in range(1, count))]
    return [first, *(first.dup() for _ in range(1, count))]


def _bound(host: str, port: int, *, beside: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=beside, dualstack_ipv6=both)


def url_of(listener: socket.socket) -> str:
    """The listener's base URL as seen from this machine."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - compared, not listened on
    return f"http://{shown}:{port}"


def run(app: AsgiApp, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until Ctrl-C or SIGTERM, then let running answers end; `on_ready` is called once requests are answered.

    Leaves by SystemExit if the app's lifespan fails.
    """

    def ready() -> None:
        # What has been made so far stays for good: the collector need not look through it while requests wait.
        # What requests make is nearly all freed without it: looking through every 700 objects costs 7 % of the rate.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS, 50, 50)
        on_ready()

    signal.signal(signal.SIGTERM, leave)  # uvicorn raises its signal again when it is done
    server = _Server(app, ready)
    try:
        server.run([listener])
    except KeyboardInterrupt:
        return
    finally:
        listener.close()


@contextmanager
def running_beside(app: AsgiApp, listener: socket.socket) -> Iterator[None]:
    """Serve in a thread of its own for the length of the block."""
    server = _Server(app, lambda: None)
    thread = threading.Thread(target=server.run, args=([listener],), name="beside", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=5)
        listener.close()


class _Server(uvicorn.Server):
    """Uvicorn that says when it is ready."""

    def __init__(self, app: AsgiApp, on_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="on",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # who may call /admin without a key is judged by the true peer
                backlog=BACKLOG,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()


def leave(_signal: int, _frame: FrameType | None) -> None:
    """Handle a signal by ending the process as one that is done."""
    sys.exit(0)
