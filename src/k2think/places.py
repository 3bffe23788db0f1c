"""How many may do something at once: a place, a short wait for one, or a clear no."""

from __future__ import annotations

import asyncio

from k2think.errors import Overloaded


class Places:
    """A context that holds one of `number` places. Who finds none free waits for `wait` seconds, and is told `full`."""

    def __init__(self, number: int, *, wait: float, full: str, retry_after: float | None = None) -> None:
        self._free = asyncio.Semaphore(number)
        self._wait = wait
        self._full = full
        self._retry_after = retry_after

    async def __aenter__(self) -> None:
        """Take a place for the time of the context. Raises `Overloaded`."""
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(self._wait):
                await self._free.acquire()
        except TimeoutError:
            raise Overloaded(self._full, retry_after=self._retry_after) from None

    async def __aexit__(self, *_: object) -> None:
        self._free.release()
