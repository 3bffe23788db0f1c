"""The helper that serves apps to tests."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
from rawhttp import connected, request
from serving import serving


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
    threads = threading.active_count()
    with serving(probe) as base:
        assert probe.lifespan == ["lifespan.startup"]
        assert request(base, "GET", "/").body == b"ok"
    assert probe.lifespan == ["lifespan.startup", "lifespan.shutdown"]
    assert threading.active_count() == threads
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2])))


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
