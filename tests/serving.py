"""Serves any ASGI app on a real loopback socket for the length of a `with` block; the port is the system's choice."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from k2think.listening import Connection

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

START_SECONDS = 120.0
STOP_SECONDS = 120.0


@contextmanager
def serving(app: AsgiApp) -> Iterator[str]:
    """Run `app` (its lifespan too) in a thread; yields its base URL without a trailing slash.

    Leaving the block closes open connections, ends the lifespan and joins the thread. What it died of is raised.
    """
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        app,
        http=Connection,
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,  # a stalled stream must not hold up the end of a test
        timeout_keep_alive=3600,  # a client may use its connection again after any pause
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run_to_the_end, args=(listener,), name="serving", daemon=True)
    try:
        thread.start()
        if not server.ready.wait(START_SECONDS):
            raise TimeoutError("The app did not start.")
        if server.died_of is not None:
            raise server.died_of
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.stop()
        thread.join(STOP_SECONDS)
        listener.close()
        if thread.is_alive():
            raise TimeoutError("The app did not stop.")
    if server.died_of is not None:
        raise server.died_of


class _Server(uvicorn.Server):
    """A server that says when it is ready, and leaves signals to the main thread."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self.died_of: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked_to_stop = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._asked_to_stop.set)

    def run_to_the_end(self, listener: socket.socket) -> None:
        try:
            with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
                runner.run(self.serve([listener]))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that asked
            self.died_of = error
        finally:
            self.ready.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.should_exit:
            raise RuntimeError("The app's lifespan failed.")
        self._loop = asyncio.get_running_loop()
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.server_state.connections:
            await super().shutdown(sockets)
            return
        # There is nobody whom to leave a moment, as uvicorn does in any case: hundreds of tests would wait for it.
        for server in self.servers:
            server.close()
        await self.lifespan.shutdown()

    async def main_loop(self) -> None:
        # Once is enough for the Date header, and being told to stop is quicker than looking every 0.1 s.
        await self.on_tick(0)
        await self._asked_to_stop.wait()
