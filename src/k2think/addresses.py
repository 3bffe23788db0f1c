"""Where a gateway is found from this machine, by the address that it listens on."""

from __future__ import annotations

_NEARBY = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}  # noqa: S104 - compared, not listened on


def nearby(host: str) -> str:
    """The address to connect to, for one that is listened on."""
    return _NEARBY.get(host, host)


def base_url(host: str, port: int) -> str:
    """The base URL of what listens there, as seen from this machine."""
    address = nearby(host)
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
