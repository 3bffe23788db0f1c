"""The door to strangers' servers: connections go to allowed addresses only, and to those that were looked at."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from k2think.errors import UpstreamUnavailable

MAX_ADDRESSES = 4
"""Addresses of one checked name that are tried; its owner could give us hundreds to knock at."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(UpstreamUnavailable):
    """No connection was made: the host has no address that this transport may connect to, or none at all.

    Which of the two it is must not be told: it would say which names an internal name server knows.
    """


def look_up(name: str) -> list[str]:
    """The addresses of a name, in the system's order of preference; blocks. Raises `OSError`."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_own(address: Address) -> bool:
    """Say whether this machine has the address; asks the system, not the network.

    To our own public address we would come from within, past what guards it. Where the system lets everybody use
    addresses that it does not have (`ip_nonlocal_bind`), every one counts as its own.
    """
    plain = address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address
    try:
        with socket.socket(socket.AF_INET if plain.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind((str(plain), 0))
    except OSError as error:
        return error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # any other says nothing of the address
    return True


class Door(AbstractResolver):
    """Lets connections out to allowed addresses only.

    The HTTP client asks `resolve` for the addresses of a name, and `socket` for a socket to each address before it
    connects: also to one that stands in the URL itself. So what is checked is what is connected to.
    """

    def __init__(self, may_connect: Callable[[Address], bool], find: Callable[[str], list[str]]) -> None:
        self._may_connect = may_connect
        self._find = find

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        allowed = [address for address in await self._look_up(host) if self._may_connect(ipaddress.ip_address(address))]
        if not allowed:
            raise AddressRefused("None of the host's addresses may be connected to.")
        return [
            {"hostname": host, "host": address, "port": port, "family": family, "proto": 0, "flags": 0}
            for address in allowed[:MAX_ADDRESSES]
        ]

    def socket(self, wanted: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = wanted
        if not self._may_connect(ipaddress.ip_address(address[0])):
            raise AddressRefused("The address may not be connected to.")
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        """Nothing is kept."""

    async def _look_up(self, host: str) -> list[str]:
        """The addresses, none where the name is not known.

        Each look-up has a thread: one whose name server never answers holds up no other, nor the end of the process.
        What remains: a look-up cannot be stopped, so its thread lives on until the system gives up (half a minute, as
        most are set), longer than the fetch that wanted it. So there may be a few more threads than fetches.
        """
        looking: Future[list[str]] = Future()
        looking.set_running_or_notify_cancel()  # whoever waits may give up, and the answer then goes nowhere

        def look() -> None:
            try:
                found = self._find(host)
            except (OSError, UnicodeError):
                found = []
            looking.set_result(found)

        Thread(target=look, name="look-up", daemon=True).start()
        return await asyncio.wrap_future(looking)
