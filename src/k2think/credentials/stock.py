"""The token file and the pool, kept in step: whatever changes one of them changes the other, one change at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from k2think.credentials.credential import Credential
from k2think.credentials.keeper import Keeper
from k2think.credentials.token_file import TokenFile

logger = logging.getLogger(__name__)


class Stock:
    """All methods raise `TokenFileUnreadable` or `UpdateUnusable`, and then nothing has changed."""

    def __init__(self, file: TokenFile, keeper: Keeper) -> None:
        self.file = file
        self._keeper = keeper
        self._one_at_a_time = asyncio.Lock()

    async def reload(self, *, may_be_empty: bool = True) -> None:
        """Read the file again. Not `may_be_empty`: one without a token is being edited, or gone by accident."""
        async with self._one_at_a_time:
            await self._reload(may_be_empty=may_be_empty)

    async def replace(self, compose: Callable[[], Sequence[str]]) -> None:
        """Have other tokens: those that `compose` makes of the pool, which is then as the file is."""
        async with self._one_at_a_time:
            await self._reload(may_be_empty=False)
            await asyncio.to_thread(self.file.write, compose())
            await self._reload()

    async def commit(self) -> None:
        """Put the file in place that a script has staged."""
        async with self._one_at_a_time:
            await asyncio.to_thread(self.file.commit)
            await self._reload()

    async def add(self, secrets: Sequence[str]) -> int:
        """Add tokens; gives how many of them were new."""
        async with self._one_at_a_time:
            count = await asyncio.to_thread(self.file.add, secrets)
            await self._reload()
            return count

    async def remove(self, credential: Credential) -> None:
        """Take a token out."""
        async with self._one_at_a_time:
            await asyncio.to_thread(self.file.remove, credential.secret)
            await self._reload()

    async def _reload(self, *, may_be_empty: bool = True) -> None:
        credentials = await asyncio.to_thread(self.file.read)
        pool = self._keeper.pool
        if (not credentials and not may_be_empty) or credentials == pool.credentials():
            return
        before = len(pool)
        pool.replace(credentials)
        self._keeper.changed()
        logger.info("token file read: tokens %d, before %d", len(credentials), before)
