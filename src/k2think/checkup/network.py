"""Whether the gateway could listen where it is told to, and whether what it needs can be reached.

Connections are made and ended again; nothing is sent through them, so nobody learns a secret and nothing is spent.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from k2think import NAME
from k2think.addresses import ask
from k2think.checkup.finding import Finding
from k2think.listening import AddressUnusable, listen
from k2think.settings import Server, Upstream

PATIENCE = 5.0
"""Seconds for all connections, which are tried at once; and for what uses our port to say its name."""
MAX_ADDRESSES = 8
"""Of a name, that are tried."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a connection goes: what it is to us, and what to do if there is none."""

    what: str
    host: str
    port: int
    remedy: str


def check_address(server: Server) -> Iterator[Finding]:
    """Takes the address for a moment, as a start would."""
    host, port = server.host, server.port
    try:
        listen(host, port).close()
    except AddressUnusable as error:
        if error.taken and _is_ours(host, port):
            yield Finding(
                "note",
                f"PORT: a {NAME} is running on {host}, port {port} already.",
                "Stop it before you start another, or set another PORT for that one.",
            )
        else:
            yield Finding("wrong", f"{error.setting}: {error.problem}", error.remedy)
    else:
        yield Finding("ok", f"Address: {host}, " + (f"port {port} is free" if port else "any free port"))


def _is_ours(host: str, port: int) -> bool:
    """Whether what has the port is a gateway of ours. The question stays on this machine."""
    try:
        said = json.loads(ask(host, port, "/", patience=PATIENCE)[1])
    except (OSError, HTTPException, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("name") == NAME


def check_connections(upstream: Upstream) -> Generator[Finding, None, bool]:
    """Connect to the proxy and to the service, where the gateway would do so. Gives besides whether all were there."""
    end = time.monotonic() + PATIENCE
    attempts = [(place, _connecting(place)) for place in _places(upstream)]
    reached = True
    for place, attempt in attempts:
        where = f"{place.host}, port {place.port}"
        try:
            attempt.result(max(0.0, end - time.monotonic()))
        except TimeoutError:
            problem = f"nothing within {PATIENCE:g} s"
        except UnicodeError:
            problem = "no name of a machine"
        except OSError as error:
            problem = error.strerror or str(error)
        else:
            yield Finding("ok", f"{place.what}: {where} takes connections (nothing was sent)")
            continue
        reached = False
        yield Finding("wrong", f"{place.what}: no connection to {where} ({problem}).", place.remedy)
    if upstream.proxy_url and not upstream.proxy_chat and upstream.protocol == "openai":
        yield Finding(
            "note", "PROXY_URL is not used: PROXY_CHAT is false, and there is no sign-in.", "Take one of them out."
        )
    return reached


def _places(upstream: Upstream) -> Iterator[_Place]:
    proxy = upstream.proxy_url.get_secret_value() if upstream.proxy_url else ""
    if proxy and (upstream.proxy_chat or upstream.protocol == "k2think"):
        yield _place("Proxy", proxy, "See to the proxy, correct PROXY_URL, or take it out.")
    if not proxy or not upstream.proxy_chat:
        yield _place(
            "Upstream",
            upstream.k2think_api_url,
            "See to the network and to K2THINK_API_URL; set PROXY_URL where only a proxy leads out.",
        )


def _place(what: str, url: str, remedy: str) -> _Place:
    """Of the URL, which may hold a password, only the host and the port."""
    parts = urlsplit(url)
    return _Place(what, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80), remedy)


def _connecting(place: _Place) -> Future[None]:
    """Connect to all addresses of the name at once; one that answers will do, as it does for the gateway.

    In threads of their own, for the look-up of a name cannot be given a time. Nobody waits for their end.
    """
    outcome: Future[None] = Future()

    def find() -> None:
        try:
            addresses = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[:MAX_ADDRESSES]
        except (OSError, UnicodeError) as error:
            outcome.set_exception(error)
            return
        failed: list[OSError] = []

        def reach(family: int, kind: int, protocol: int, address: tuple[Any, ...]) -> None:
            with suppress(InvalidStateError):  # another address has been as quick
                try:
                    with socket.socket(family, kind, protocol) as made:
                        made.settimeout(PATIENCE)
                        made.connect(address)
                except OSError as error:
                    failed.append(error)
                    if len(failed) == len(addresses):
                        outcome.set_exception(error)
                else:
                    outcome.set_result(None)

        for family, kind, protocol, _, address in addresses:
            Thread(target=reach, args=(family, kind, protocol, address), name="connecting", daemon=True).start()

    Thread(target=find, name="connecting", daemon=True).start()
    return outcome
