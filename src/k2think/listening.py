"""Runs ASGI apps on sockets: uvicorn, set up for streams, and an address that is taken told in one line."""

from __future__ import annotations

import errno
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import uvicorn

AsgiApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

BACKLOG = 2048
GRACE_SECONDS = 30
IDLE_SECONDS = 75  # longer than the pools of proxies and clients keep a connection, so that they close it and not we


class AddressUnusable(Exception):
    """Nobody can listen there; the message says why and what to do."""


def listen(host: str, port: int) -> socket.socket:
    """Take the address; port 0 is any free one. Raises `AddressUnusable`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
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


def url_of(listener: socket.socket) -> str:
    """The listener's base URL as seen from this machine."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - compared, not listened on
    return f"http://{shown}:{port}"


def run(app: AsgiApp, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until Ctrl-C or SIGTERM, then let running answers end; `on_ready` is called once requests are answered.

    Leaves by SystemExit if the app's lifespan fails.
    """
    signal.signal(signal.SIGTERM, _leave)  # uvicorn raises its signal again when it is done
    server = _Server(app, on_ready)
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


def _leave(_signal: int, _frame: object) -> None:
    sys.exit(0)
