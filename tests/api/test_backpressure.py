"""A client that does not read makes its upstream wait, and the gateway keeps little for it."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from running import SCRIPT, started
from waiting import until

CLIENTS = 24
HELD = 256 * 1024
OPEN = 40 * 1024
"""Bytes: what may be kept for a client that reads nothing, and what a stream costs anyway."""
KEY = "sk-test-key"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class EndlessUpstream:
    """Answers each chat with text that never ends, as fast as it is taken; `sent` counts bytes by connection."""

    def __init__(self) -> None:
        self.sent: dict[int, int] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/api/chat/completions"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            head = connection.recv(65536)
            if head.startswith(b"GET"):
                body = b'{"data": [{"id": "MBZUAI-IFM/K2-Think"}]}'
                head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
                connection.sendall(head + body)
                return
            frame = {"choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]}
            frames = b"data: " + json.dumps(frame).encode() + b"\n\n"
            many = frames * 200
            chunk = b"%x\r\n%s\r\n" % (len(many), many)
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            connection.sendall(head)
            number = connection.fileno()
            self.sent[number] = 0
            try:
                while True:
                    connection.sendall(chunk)
                    self.sent[number] += len(chunk)
            except OSError:
                return


@contextmanager
def endless_upstream() -> Iterator[EndlessUpstream]:
    upstream = EndlessUpstream()
    try:
        yield upstream
    finally:
        upstream.close()


def idle_client(port: int) -> socket.socket:
    """A client that has asked for a stream, and leaves what comes where it is."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(60)
    client.connect(("127.0.0.1", port))
    body = json.dumps(
        {"model": "MBZUAI-IFM/K2-Think", "stream": True, "messages": [{"role": "user", "content": "Go on."}]}
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    client.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return client


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def test_a_client_that_does_not_read_stops_its_upstream_and_costs_little(tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").write_text("token\n")
    with endless_upstream() as upstream, ExitStack() as open_clients:
        settings = {"K2THINK_API_URL": upstream.url, "VALID_API_KEY": KEY, "HOST": "127.0.0.1", "PORT": "0"}
        gateway = open_clients.enter_context(started(SCRIPT, environ=settings, directory=tmp_path))
        port = int(gateway.wait_for(r"http://127\.0\.0\.1:(\d+)/v1"))
        seen: list[dict[int, int]] = []

        def standing_still() -> bool:
            """Nothing has moved for a while."""
            seen.append(dict(upstream.sent))
            return len(seen) > 50 and seen[-50] == seen[-1]

        def clients(count: int) -> None:
            wanted = len(upstream.sent) + count
            for _ in range(count):
                open_clients.enter_context(idle_client(port))
            until(lambda: len(upstream.sent) == wanted and all(upstream.sent.values()))
            seen.clear()
            until(standing_still)

        clients(4)  # what is made once, is made now
        before = resident(gateway.process.pid)
        clients(CLIENTS)
        grown = resident(gateway.process.pid) - before
        assert grown < CLIENTS * (HELD + OPEN) * 1.25  # what the allocator needs beside
