"""Of several processes one makes the tokens for all. The others follow it; when it ends, one of them takes its place.

Who leads holds a lock for as long as it lives. It tells on which state it is in a key of the store (`Standing`), and
answers on the board; who follows tells it of rejections there, and lends no hope to its requests but what it hears.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time

import msgspec
from msgspec import Struct

from k2think.credentials.credential import Credential
from k2think.credentials.keeper import Keeper
from k2think.credentials.mint import UpdateFailed
from k2think.credentials.refresher import Progress, Refresher
from k2think.credentials.renewals import Renewals
from k2think.credentials.sharing import Sharing
from k2think.credentials.stock import Stock
from k2think.credentials.token_file import TokenFileUnreadable
from k2think.errors import Overloaded
from k2think.storage.base import LockTaken, Storage, StorageUnusable
from k2think.storage.board import Board
from k2think.together import Shared

logger = logging.getLogger(__name__)

LEASE = "credentials/refresher"
STANDING = "credentials/leader"

TRY_EVERY = 1.0
"""Seconds between two tries to lead."""
LOOK_EVERY = 0.25
"""Seconds between two looks at what the leader does."""
WORD_PATIENCE = 1.5
"""Seconds in which the leader says whether it makes new tokens now."""
GIVE_UP_AFTER = 10.0
"""Seconds after which nobody is believed to lead any more: far longer than it takes to replace one."""
UPDATE_PATIENCE = 6 * 3600.0
"""Seconds that a full update may take, for the longest of scripts."""

NOBODY = "No worker makes tokens at this moment. Ask again."


class Standing(Struct, frozen=True):
    """How the leader stands: `number` counts the changes, `kept` what it has written down of the accounts."""

    leader: str = ""
    number: int = 0
    making: bool = False
    kept: int = 0


class UpdateTold(Struct, frozen=True):
    """How a full update went, and how the leader stands since."""

    standing: Standing
    failure: str | None = None


class Leadership:
    """What a `Refresher` is to one process alone. Belongs to one event loop."""

    def __init__(
        self,
        *,
        refresher: Refresher,
        keeper: Keeper,
        renewals: Renewals,
        stock: Stock,
        sharing: Sharing,
        storage: Storage,
        board: Board,
    ) -> None:
        self.interval = refresher.interval
        self._refresher = refresher
        self._keeper = keeper
        self._renewals = renewals
        self._stock = stock
        self._sharing = sharing
        self._storage = storage
        self._board = board
        self._name = secrets.token_hex(8)
        self._standing = Standing()
        self._publishing = asyncio.Lock()
        self._seen: bytes | None = None
        self._leading = False
        self._unheard_since: float | None = None
        self._complained = False
        self._updates: Shared[None, None] = Shared()
        renewals.made_here = False
        renewals.asked.set()  # nobody has said yet that no tokens are on their way
        board.answer("word", self._give_word)
        board.answer("progress", self._give_progress)
        board.answer("update", self._give_update)

    # What a refresher can be asked

    async def update_now(self) -> None:
        """Have all tokens made anew, or wait for the update that is under way. Raises `UpdateFailed`."""
        if self._leading:
            await self._refresher.update_now()
        else:
            await self._updates.get(None, self._have_updated)

    async def accounts_edited(self) -> None:
        """The accounts file is another: the leader sees that for itself."""
        if self._leading:
            await self._refresher.accounts_edited()

    def account_of(self, credential: Credential) -> str | None:
        """The e-mail of the account that a token is of, if that is known."""
        return self._refresher.account_of(credential)

    async def progress(self) -> Progress:
        """How things are. Raises `UpdateFailed` where nobody can say."""
        end = time.monotonic() + GIVE_UP_AFTER
        while not self._leading:
            if answers := await self._board.ask("progress", enough=1):
                return msgspec.json.decode(answers[0], type=Progress)
            if time.monotonic() > end:
                raise UpdateFailed(NOBODY)
            await asyncio.sleep(LOOK_EVERY)
        return await self._refresher.progress()

    def restore(self) -> None:
        """Take up what is known of the accounts."""
        self._refresher.restore()

    async def run(self) -> None:
        """Lead or follow for as long as the gateway runs."""
        with contextlib.ExitStack() as lease:
            while not await self._takes(lease):
                end = time.monotonic() + TRY_EVERY
                while time.monotonic() < end:
                    await self._follow()
            await self._lead()

    # Leading

    async def _takes(self, lease: contextlib.ExitStack) -> bool:
        def take() -> bool:
            try:
                lease.enter_context(self._storage.lock(LEASE, patience=0))
            except LockTaken:
                return False
            except StorageUnusable as error:
                self._complain(error)
                return False
            return True

        attempt = asyncio.create_task(asyncio.to_thread(take))
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            await attempt  # what it gets is then given back
            raise

    async def _lead(self) -> None:
        logger.info("this worker makes the tokens from now on")
        await asyncio.to_thread(self._refresher.restore)
        await self._reload()
        self._renewals.made_here = True
        await self._sharing.sync()
        self._keeper.review()
        self._renewals.asked.set()
        self._renewals.under_way = False
        self._standing = Standing(self._name, making=True, kept=-1)  # other than any that is published
        work = asyncio.create_task(self._refresher.run())
        try:
            await self._refresher.makes_tokens()
            self._leading = True
            while not work.done():
                await self._publish()
                await asyncio.wait({work}, timeout=LOOK_EVERY)
            await work
        finally:
            self._leading = False
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _publish(self) -> None:
        async with self._publishing:
            last = self._standing
            making, kept = self._renewals.under_way, self._refresher.kept
            if (making, kept) == (last.making, last.kept):
                return
            standing = Standing(self._name, last.number + 1, making, kept)
            try:
                value = msgspec.json.encode(standing)
                await asyncio.to_thread(self._storage.put, STANDING, value, durable=False)
            except StorageUnusable as error:
                self._complain(error)
            else:
                self._standing = standing

    async def _give_word(self, argument: bytes) -> bytes:
        if not self._leading:
            return b""
        await self._sharing.sync()
        await self._reload(may_be_empty=argument == b"empty")
        await self._refresher.makes_tokens()
        await asyncio.shield(self._publish())
        return msgspec.json.encode(self._standing)

    async def _give_progress(self, _: bytes) -> bytes:
        return msgspec.json.encode(await self._refresher.progress()) if self._leading else b""

    async def _give_update(self, _: bytes) -> bytes:
        if not self._leading:
            return b""
        failure = None
        try:
            await self._refresher.update_now()
        except UpdateFailed as error:
            failure = str(error)
        await self._refresher.makes_tokens()  # what is known of the accounts has then been kept
        await asyncio.shield(self._publish())
        return msgspec.json.encode(UpdateTold(self._standing, failure))

    # Following

    async def _follow(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY):
                await self._renewals.asked.wait()
        if self._renewals.asked.is_set():
            await self._consult()
        else:
            await self._look()

    async def _consult(self) -> None:
        """Tell the leader of what was asked for here, and hear whether new tokens are on their way."""
        self._renewals.taken()
        self._renewals.under_way = True  # until it is known better
        await self._sharing.sync()
        argument = b"" if len(self._keeper.pool) else b"empty"
        try:
            answers = await self._board.ask("word", argument, patience=WORD_PATIENCE, enough=1)
        except Overloaded:
            answers = []
        if answers:
            self._unheard_since = None
            await self._heed(msgspec.json.decode(answers[0], type=Standing))
            return
        now = time.monotonic()
        self._unheard_since = self._unheard_since or now
        if now - self._unheard_since < GIVE_UP_AFTER:
            self._renewals.asked.set()
            await asyncio.sleep(LOOK_EVERY)
            return
        self._unheard_since = None
        self._renewals.under_way = False
        self._keeper.look_again()

    async def _look(self) -> None:
        try:
            value = await asyncio.to_thread(self._storage.get, STANDING)
            if value is not None and value != self._seen:
                self._seen = value
                await self._heed(msgspec.json.decode(value, type=Standing))
        except (StorageUnusable, msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._complain(error)

    async def _heed(self, standing: Standing) -> None:
        """Do what follows from how the leader stands; nothing, if later news have come already."""
        last = self._standing
        if standing.leader == last.leader and standing.number < last.number:
            return
        if standing != last:
            await self._reload()
            await asyncio.to_thread(self._refresher.restore)
        self._standing = standing
        self._renewals.under_way = standing.making
        self._keeper.look_again()

    async def _have_updated(self) -> None:
        """Have the leader update, and the next one if it ends meanwhile."""
        end = time.monotonic() + GIVE_UP_AFTER
        while not self._leading:
            leader = self._standing.leader
            if not leader and time.monotonic() < end:  # it has not been heard of yet
                await asyncio.sleep(LOOK_EVERY)
                continue
            asking = asyncio.create_task(self._board.ask("update", patience=UPDATE_PATIENCE, enough=1))
            replaced = asyncio.create_task(self._replaced(leader))
            try:
                await asyncio.wait({asking, replaced}, return_when=asyncio.FIRST_COMPLETED)
                answers = asking.result() if asking.done() else []
            finally:
                asking.cancel()
                replaced.cancel()
                await asyncio.gather(asking, replaced, return_exceptions=True)
            if answers:
                told = msgspec.json.decode(answers[0], type=UpdateTold)
                await self._caught_up(told.standing)
                if told.failure:
                    raise UpdateFailed(told.failure)
                return
            if self._standing.leader != leader:
                end = time.monotonic() + GIVE_UP_AFTER
            elif time.monotonic() > end:
                raise UpdateFailed(NOBODY)
            await asyncio.sleep(LOOK_EVERY)
        await self._refresher.update_now()

    async def _replaced(self, leader: str) -> None:
        while self._standing.leader == leader and not self._leading:  # noqa: ASYNC110 - no more often than the store
            await asyncio.sleep(LOOK_EVERY)

    async def _caught_up(self, standing: Standing) -> None:
        """Wait until this process has taken up what the leader has done."""
        end = time.monotonic() + WORD_PATIENCE
        while self._standing.leader == standing.leader and self._standing.number < standing.number:
            await asyncio.sleep(LOOK_EVERY)
            if time.monotonic() > end:
                return

    async def _reload(self, *, may_be_empty: bool = False) -> None:
        try:
            await self._stock.reload(may_be_empty=may_be_empty)
        except TokenFileUnreadable as error:
            logger.warning("%s", error)

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            logger.warning("the workers cannot agree on who makes the tokens: %s", error)
        self._complained = True
