"""How many generations run at once: a place, a short wait for one, or a clear no."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from k2think.errors import Overloaded

WAIT = 10.0
"""Seconds that a request waits for a place."""


class Admission:
    """Holds `places` places, as many as there may be connections upstream."""

    def __init__(self, places: int, *, wait: float = WAIT) -> None:
        self._places = asyncio.Semaphore(places)
        self._wait = wait

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Take a place for the time of the context. Raises `Overloaded`."""
        if self._places.locked():
            try:
                async with asyncio.timeout(self._wait):
                    await self._places.acquire()
            except TimeoutError:
                raise Overloaded(
                    "The gateway carries as many requests as it may (MAX_CONNECTIONS).", retry_after=self._wait
                ) from None
        else:
            await self._places.acquire()
        try:
            yield
        finally:
            self._places.release()
