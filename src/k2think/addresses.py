"""Where a gateway is found from this machine, by the address that it listens on, and how it is asked something."""

from __future__ import annotations

import http.client

MAX_ANSWER = 64 * 1024
_NEARBY = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}  # noqa: S104 - compared, not listened on


def _nearby(host: str) -> str:
    """The address to connect to, for one that is listened on."""
    return _NEARBY.get(host, host)


def base_url(host: str, port: int) -> str:
    """The base URL of what listens there, as seen from this machine."""
    address = _nearby(host)
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def ask(host: str, port: int, path: str, *, patience: float) -> tuple[int, bytes]:
    """The status and the body, at most `MAX_ANSWER` bytes of it, that it answers to a GET. `patience`: seconds a wait.

    Raises `OSError`, `UnicodeError` or `HTTPException` if nothing does, or nothing that speaks HTTP.
    """
    connection = http.client.HTTPConnection(_nearby(host), port, timeout=patience)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_ANSWER)
    finally:
        connection.close()
