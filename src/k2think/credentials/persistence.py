"""Carries the pool's health over a restart."""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec

from k2think.credentials.health import Health
from k2think.credentials.keeper import Keeper
from k2think.storage.base import Storage, StorageUnusable

logger = logging.getLogger(__name__)

KEY = "credentials/health"
PAUSE = 0.5
"""Seconds between two savings; the first after a quiet time is at once."""


class HealthDamaged(StorageUnusable):
    """What was kept cannot be read."""


def kept_health(storage: Storage) -> list[Health]:
    """What the last run knew of its tokens; nothing, if there was none. Raises `StorageUnusable`."""
    kept = storage.get(KEY)
    try:
        return msgspec.json.decode(kept, type=list[Health]) if kept else []
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise HealthDamaged(str(error)) from error


class Persistence:
    """Saves what is to be known of the tokens whenever it has changed."""

    def __init__(self, storage: Storage, keeper: Keeper) -> None:
        self._storage = storage
        self._keeper = keeper
        self._complained = False

    def restore(self) -> None:
        """Take up what was kept. What cannot be read is left alone: the tokens then begin anew."""
        try:
            health = kept_health(self._storage)
        except StorageUnusable as error:
            logger.warning("the tokens' health of the last run cannot be read: %s", error)
            return
        self._keeper.pool.restore(health, time.time())

    async def run(self) -> None:
        """Save for as long as the gateway runs."""
        while True:
            await self._keeper.touched.wait()
            self._keeper.touched.clear()
            await asyncio.to_thread(self._put, msgspec.json.encode(self._keeper.pool.health()))
            await asyncio.sleep(PAUSE)

    def save(self) -> None:
        """Save now, for the end."""
        if self._keeper.touched.is_set():
            self._put(msgspec.json.encode(self._keeper.pool.health()))

    def _put(self, value: bytes) -> None:
        try:
            self._storage.put(KEY, value)
            self._complained = False
        except StorageUnusable as error:
            if not self._complained:
                logger.warning("the tokens' health cannot be kept for the next start: %s", error)
            self._complained = True
