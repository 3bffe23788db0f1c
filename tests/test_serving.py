"""The helper that serves apps to tests, and how the real server stops."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from rawhttp import RawAnswer, connected, parsed, request
from running import on_port
from serving import serving
from waiting import until

from k2think.listening import listen, running_beside, url_of


class Probe:
    """An app that notes its lifespan and answers slowly or not at all."""

    def __init__(self) -> None:
        self.lifespan: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while len(self.lifespan) < 2:
                message = await receive()
                self.lifespan.append(message["type"])
                await send({"type": f"{message['type']}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
        if scope["path"] == "/stall":
            while (await receive())["type"] != "http.disconnect":
                pass
        await send({"type": "http.response.body", "body": b"k"})


def test_an_app_is_served_with_its_lifespan_and_gone_afterwards() -> None:
    probe = Probe()
    threads = set(threading.enumerate())
    with serving(probe) as base:
        assert probe.lifespan == ["lifespan.startup"]
        assert request(base, "GET", "/").body == b"ok"
        listeners = listening_at(base)
        assert len(listeners) == (sys.platform == "linux")
    assert probe.lifespan == ["lifespan.startup", "lifespan.shutdown"]
    assert set(threading.enumerate()) <= threads
    assert not listeners & listening_at(base)


def listening_at(base: str) -> set[str]:
    """The sockets that listen there, as far as the system tells."""
    if sys.platform != "linux":
        return set()
    return on_port(int(base.rpartition(":")[2]))


def test_an_answer_that_never_ends_does_not_hold_up_the_end() -> None:
    with serving(Probe()) as base:
        connection = connected(base, "GET", "/stall")
        connection.recv(1)
    with connection:
        while connection.recv(1000):
            pass


def test_an_app_that_cannot_start_is_an_error() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    with pytest.raises((RuntimeError, SystemExit)), serving(broken):
        pass


# The real server


class Unfinished:
    """An app whose answers end when they may."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.lifespan: list[str] = []
        self.asked = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while len(self.lifespan) < 2:
                message = await receive()
                self.lifespan.append(message["type"])
                await send({"type": f"{message['type']}.complete"})
            return
        self.asked += 1
        begins = scope["path"] == "/stream"
        if begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"o", "more_body": True})
        try:
            while not self.may_end.is_set():  # noqa: ASYNC110 - what sets it is another thread
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            await send({"type": "http.response.body", "body": b", cut off"})
            return
        if not begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"k"})


@contextmanager
def asked(app: Unfinished, path: str, *, drain: float) -> Iterator[tuple[socket.socket, ExitStack]]:
    """A connection on which an answer is running, and what stops the server when it is closed."""
    listener = listen("127.0.0.1", 0)
    with ExitStack() as server:
        server.enter_context(running_beside(app, listener, drain=drain))
        with connected(url_of(listener), "GET", path) as connection:
            until(lambda: app.asked)
            yield connection, server


def rest_of(connection: socket.socket) -> RawAnswer:
    data = b""
    while part := connection.recv(65536):
        data += part
    return parsed(data)


@pytest.mark.parametrize("path", ["/stream", "/"])
def test_an_answer_that_ends_in_time_is_whole(path: str) -> None:
    app = Unfinished()
    with asked(app, path, drain=60) as (connection, server):
        stopping = threading.Thread(target=server.close)
        port = connection.getpeername()[1]
        stopping.start()
        until(lambda: not accepts(port))
        assert stopping.is_alive()
        app.may_end.set()
        answer = rest_of(connection)
        stopping.join()
    assert (answer.status, answer.body) == (200, b"k" if path == "/" else b"ok")
    assert "NOT" not in answer.framing
    assert app.lifespan == ["lifespan.startup", "lifespan.shutdown"]


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_an_answer_that_does_not_end_in_time_is_ended_by_its_app(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TEAR_SECONDS", "CUT_SECONDS"):
        monkeypatch.setattr(f"k2think.listening.{name}", 60)  # a machine that stands still for a while is no fault
    app = Unfinished()
    with asked(app, "/stream", drain=0.1) as (connection, server):
        server.close()
        answer = rest_of(connection)
    assert (answer.status, answer.framing, answer.body) == (200, "chunked, terminated", b"o, cut off")
    assert app.lifespan == ["lifespan.startup", "lifespan.shutdown"]
    assert not any(record.exc_info for record in caplog.records)
    assert [record.getMessage() for record in caplog.records if record.levelname != "INFO"] == [
        "stopping: running answers that are cut off: 1 (DRAIN_TIMEOUT)"
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="there the event loop is another")
def test_clients_that_come_at_once_are_taken_at_once() -> None:
    asked = threading.Event()
    may_go_on = threading.Event()
    turns = 0
    seen: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal turns
        if scope["type"] == "lifespan":
            await Probe()(scope, receive, send)
            return
        if scope["path"] == "/first":
            asked.set()
            may_go_on.wait()  # the whole loop stands still

            def turn() -> None:
                nonlocal turns
                turns += 1
                if len(seen) < 16:
                    asyncio.get_running_loop().call_soon(turn)

            turn()
        else:
            seen.append(turns)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    listener = listen("127.0.0.1", 0)
    base = url_of(listener)
    with running_beside(app, listener, drain=1), ExitStack() as clients:
        until(lambda: request(base, "GET", "/").status == 204)
        seen.clear()
        clients.enter_context(connected(base, "GET", "/first"))
        assert asked.wait()
        for _ in range(16):
            clients.enter_context(connected(base, "GET", "/"))
        may_go_on.set()
        until(lambda: len(seen) == 16)
    assert max(seen) - min(seen) < 8
