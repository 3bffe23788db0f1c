"""Keeps the pool's health alike in several processes, and over a restart: what one learns, the others know in a second.

Each now and then merges what it has learned since the last time into what is kept, and takes up what the others have
put there. What a killed one had not yet put is lost, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time

import msgspec
from msgspec.structs import replace

from k2think.credentials.health import Health
from k2think.credentials.keeper import Keeper
from k2think.credentials.merging import merge
from k2think.credentials.persistence import KEY
from k2think.storage.base import Storage, StorageUnusable

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.5
"""Seconds between two looks for what others have learned."""
PAUSE = 0.3
"""Seconds between two exchanges; twice as long as one takes, if that is more."""
PAUSE_AFTER_FAILURE = 5.0
STRANGE_FOR = 300.0
"""Seconds for which tokens that are not in this pool are remembered: another may have read a newer token file."""


class Sharing:
    """Belongs to one event loop."""

    def __init__(self, storage: Storage, keeper: Keeper) -> None:
        self._storage = storage
        self._keeper = keeper
        self._told: dict[str, Health] = {}  # what of this pool is already in the store
        self._strangers: dict[str, float] = {}  # ids in the store that are not in the pool, and since when
        self._seen: bytes | None = None  # what was kept when it was last looked at
        self._one_at_a_time = asyncio.Lock()
        self._alone = threading.Lock()
        self._complained = False

    def restore(self) -> None:
        """Take up what is kept. What cannot be read is left alone: the tokens then begin anew."""
        try:
            self._seen = self._storage.get(KEY)
        except StorageUnusable as error:
            self._complain(error)
            return
        self._told = self._decoded(self._seen) or {}
        self._settle(self._told)

    async def run(self) -> None:
        """Share for as long as the gateway runs."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._keeper.touched.wait()
            began = time.monotonic()
            if not await self.sync():
                await asyncio.sleep(PAUSE_AFTER_FAILURE)
            await asyncio.sleep(max(PAUSE, 2 * (time.monotonic() - began)))

    async def sync(self) -> bool:
        """Tell what has been learned here, and learn what others have; False: the store does not allow it."""
        async with self._one_at_a_time:
            touched = self._keeper.touched.is_set()
            self._keeper.touched.clear()
            mine = self._mine() if touched else None
            try:
                if mine is None:
                    if not await asyncio.to_thread(self._is_news):
                        return True
                    mine = self._mine()
                merged = await asyncio.to_thread(self._exchange, mine)
            except StorageUnusable as error:
                self._complain(error)
                if touched:
                    self._keeper.touched.set()
                return False
            except asyncio.CancelledError:
                self._keeper.touched.set()  # what the exchange still gives is not taken up here: there must be another
                raise
            self._complained = False
            self._settle(merge(mine, self._mine(), merged))
            self._told = merged
            return True

    def save(self) -> None:
        """Tell what has been learned here, for the end."""
        if self._keeper.touched.is_set():
            try:
                self._exchange(self._mine())
            except StorageUnusable as error:
                self._complain(error)

    def _mine(self) -> dict[str, Health]:
        """What this process knows: of the tokens of its pool what the pool does, of others what is kept."""
        pool = self._keeper.pool
        mine = {health.id: health for health in pool.health()}
        for key in [key for key in self._strangers if pool.of(key)]:
            del self._strangers[key]  # it has come since, and nothing of what is kept has been taken up
            self._told.pop(key, None)
        now = time.monotonic()
        for key, told in self._told.items():
            if pool.of(key):
                continue
            if key in mine:
                mine[key] = replace(told, failing=True)
            elif now - self._strangers.setdefault(key, now) <= STRANGE_FOR:
                mine[key] = replace(told, failing=False)
        return mine

    def _is_news(self) -> bool:
        return self._storage.get(KEY) != self._seen

    def _exchange(self, mine: dict[str, Health]) -> dict[str, Health]:
        """Merge into what is kept; gives what is then kept. Blocks. Raises `StorageUnusable`."""
        with self._alone, self._storage.lock(KEY):
            value = self._storage.get(KEY)
            theirs = self._decoded(value)
            # What is gone or damaged tells nothing of the tokens: least of all that they are well.
            merged = merge(self._told, mine, self._told if theirs is None else theirs)
            if merged != theirs:
                value = msgspec.json.encode(list(merged.values()))
                self._storage.put(KEY, value)
            self._seen = value
            self._told = mine  # also if nobody waits for this any more
            return merged

    def _settle(self, health: dict[str, Health]) -> None:
        """Have the pool be as is told; what follows from sums is news again."""
        pool = self._keeper.pool
        disabled = self._keeper.summary().disabled
        self._keeper.adopt(health)
        now = time.monotonic()
        self._strangers = {key: self._strangers.get(key, now) for key in health if pool.of(key) is None}
        if self._keeper.summary().disabled != disabled:
            self._keeper.touched.set()

    def _decoded(self, value: bytes | None) -> dict[str, Health] | None:
        if value is None:
            return None
        try:
            return {health.id: health for health in msgspec.json.decode(value, type=list[Health])}
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._complain(error)
            return None

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            logger.warning("the workers cannot share what they know of the tokens: %s", error)
        self._complained = True
