"""A client that shows an answer as it is on the wire: headers in order, framing, and whether it ended as it should."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from waiting import PATIENCE


@dataclass(frozen=True)
class RawAnswer:
    """`framing`: `content-length`, `chunked, terminated`, `chunked, NOT terminated`, or `none`: no answer at all."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    framing: str

    def header(self, name: str) -> str | None:
        """The first header of this name (lower case)."""
        return next((value for key, value in self.headers if key == name), None)

    def json(self) -> Any:
        return json.loads(self.body)


def request(
    base: str, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: Any = None
) -> RawAnswer:
    """Send one request on a connection of its own and read all that comes. `body`: bytes, or anything for JSON."""
    with connected(base, method, path, headers=headers, body=body) as connection:
        data = b""
        try:
            while part := connection.recv(65536):
                data += part
        except ConnectionResetError:
            pass
    return parsed(data)


def connected(
    base: str, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: Any = None
) -> socket.socket:
    """A connection on which the request was sent; to be closed by the caller."""
    where = urlsplit(base)
    payload = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    sent = {"Host": where.netloc, "Connection": "close", **(headers or {})}
    if payload or method == "POST":
        sent.setdefault("Content-Length", str(len(payload)))
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    connection = socket.create_connection((where.hostname or "", where.port or 0), timeout=PATIENCE)
    connection.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + payload)
    return connection


def parsed(data: bytes) -> RawAnswer:
    """The answer that these bytes are."""
    if not data:
        return RawAnswer(0, (), b"", "none")
    head, _, rest = data.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = tuple((name.strip().lower(), value.strip()) for name, _, value in pairs)
    status = int(status_line.split(" ")[1])
    if ("transfer-encoding", "chunked") not in headers:
        return RawAnswer(status, headers, rest, "content-length")
    body, terminated = _without_chunks(rest)
    return RawAnswer(status, headers, body, f"chunked, {'' if terminated else 'NOT '}terminated")


def _without_chunks(data: bytes) -> tuple[bytes, bool]:
    body = b""
    while True:
        line, found, data = data.partition(b"\r\n")
        if not found:
            return body, False
        size = int(line, 16)
        if size == 0:
            return body, True
        body, data = body + data[:size], data[size + 2 :]
