"""When tokens are made anew: on schedule, when they fail or expire, and when somebody asks.

One loop does one thing at a time, so there is never more than one update. A full update renews all tokens, a partial
one those that are bad or soon will be. What fails leaves the file and the pool as they were, and is tried again later
and later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from k2think.credentials.account_book import AccountBook, Ledger, Record
from k2think.credentials.accounts import AccountFileUnreadable, read_accounts
from k2think.credentials.credential import Credential
from k2think.credentials.keeper import Keeper
from k2think.credentials.mint import Mint, UpdateFailed
from k2think.credentials.pool import BY_HAND
from k2think.credentials.renewals import Renewals
from k2think.credentials.rotation import Member
from k2think.credentials.script import ScriptFailed
from k2think.credentials.token_file import TokenFileUnreadable, UpdateUnusable
from k2think.storage.base import Storage, StorageUnusable

logger = logging.getLogger(__name__)

KEY = "credentials/accounts"

RENEW_BEFORE = 300.0
"""Seconds before its expiry that a token is renewed; a tenth of its life, if that is less."""
FIRST_BACKOFF = 60.0
MAX_BACKOFF = 3600.0
"""Seconds after a failed full update until the next, unless somebody asks for it."""


ASKED_FOR = frozenset({"asked for", "schedule"})
"""Why a full update is made, where nothing has failed."""

STOPPED = "The gateway no longer makes tokens: its log says why."


class Progress(Struct, frozen=True):
    """What the refresher has done and will do. Times are Unix seconds."""

    updating: bool
    last_update: float | None
    next_update: float | None
    update_count: int
    error_count: int
    last_error: str | None
    trigger: str | None
    accounts: tuple[Record, ...]


class Refresher:
    """Belongs to one event loop. `script`: the user's own, which then makes the tokens."""

    def __init__(
        self,
        *,
        keeper: Keeper,
        renewals: Renewals,
        mint: Mint,
        book: AccountBook,
        storage: Storage,
        accounts_file: Path,
        script: Path | None,
        interval: float,
    ) -> None:
        self.interval = interval
        self.accounts_file = accounts_file
        self._keeper = keeper
        self._renewals = renewals
        self._mint = mint
        self._storage = storage
        self._script = script
        self._book = book
        self._wish: str | None = None  # why a full update is to be made
        self._not_before = 0.0
        self._failures = 0
        self._last_update: float | None = None
        self._next_update = 0.0
        self._update_count = self._error_count = 0
        self._last_error: str | None = None
        self._trigger: str | None = None
        self._expired = 0  # tokens, when they were last looked at
        self._foreseen: set[str] = set()  # ids of tokens whose expiry has been seen to
        self._look_again = 0.0  # when the next expiry is to be seen to
        self._edited = False
        self._ended = False
        self._pause = 0.0
        self._asking: list[asyncio.Future[None]] = []
        self._curious: list[asyncio.Future[bool]] = []
        self.kept = 0
        """How often what is known of the accounts has been kept."""

    # What others may ask

    async def update_now(self) -> None:
        """Make all tokens anew, or wait for the update that is under way. Raises `UpdateFailed`."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asking.append(answer)
        if self._ended:
            self._answer(STOPPED)
        elif self._trigger is None:
            self._not_before = 0.0
            self._renewals.everything("asked for")
        await answer

    async def accounts_edited(self) -> None:
        """The accounts file is another."""
        self._edited = True
        self._not_before = 0.0
        self._renewals.asked.set()

    def account_of(self, credential: Credential) -> str | None:
        """The e-mail of the account that a token is of, if that is known."""
        record = self._book.owner(credential)
        return record.email if record else None

    async def makes_tokens(self) -> bool:
        """Say whether new tokens are being made, once all has been looked at that was asked for until now."""
        if self._ended or self._renewals.under_way:
            return self._renewals.under_way
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._curious.append(answer)
        self._renewals.asked.set()
        return await answer

    async def progress(self) -> Progress:
        """How things are."""
        wish_at = max(self._not_before, time.time()) if self._wish else None
        return Progress(
            updating=self._trigger is not None,
            last_update=self._last_update,
            next_update=wish_at or self._next_update or None,
            update_count=self._update_count,
            error_count=self._error_count,
            last_error=self._last_error,
            trigger=self._trigger,
            accounts=tuple(self._book.records()),
        )

    # The loop

    def restore(self) -> None:
        """Take up what the last run knew of the accounts."""
        try:
            kept = self._storage.get(KEY)
            ledger = msgspec.json.decode(kept, type=Ledger) if kept else Ledger()
        except (StorageUnusable, msgspec.MsgspecError, UnicodeDecodeError) as error:
            logger.warning("what was known of the accounts cannot be read: %s", error)
            return
        self._book.restore(ledger, time.time())
        self._last_update = min(ledger.last_update, time.time()) or None

    async def run(self) -> None:
        """Work for as long as the gateway runs."""
        try:
            await self._work()
        finally:
            self._ended = True
            self._answer(STOPPED)
            self._tell_whether(making=False)

    async def _work(self) -> None:
        self._next_update = (self._last_update or time.time()) + self.interval
        await self._look_at_accounts(eager=self._last_update is not None)  # edited while the gateway did not run
        if all(_is_bad(member) for member in self._keeper.pool.snapshot(time.time())):
            self._renewals.everything("no valid token at the start")
        while True:
            await self._listen()
            now = time.time()
            if self._wish is None and now >= self._next_update:
                self._wish = "schedule"
            if self._wish is not None and now >= self._not_before:
                await self._update(self._wish)
            elif self._script is None and (due := self._book.due(now)):
                await self._renew(due)
            else:
                await self._rest(now)

    async def _listen(self) -> None:
        """Take in what is asked for and what is to be foreseen."""
        asked = self._renewals.asked.is_set()
        everything, rejected = self._renewals.taken()
        self._wish = everything or self._wish
        if asked:
            self._look_again = 0.0
            self._keeper.look_again()  # those who wait for something that is not coming
        if self._edited:
            self._edited = False
            await self._look_at_accounts(eager=True)
        now = time.time()
        for credential in rejected:
            if (record := self._book.owner(credential)) and self._keeper.pool.of(credential.id):
                self._book.want(record, now)
        if now >= self._look_again:
            self._look_again = self._foresee(now)
        if not self._has_valid_token():
            self._wish = self._wish or "no valid token"

    def _foresee(self, now: float) -> float:
        """See to tokens that expire soon; gives when to look again."""
        pool = self._keeper.pool
        next_expiry = pool.next_expiry() or float("inf")
        expired = self._keeper.summary().expired
        if next_expiry - RENEW_BEFORE > now and expired == self._expired:
            return next_expiry - RENEW_BEFORE
        self._expired = expired
        times = [next_expiry]
        for member in pool.snapshot(now):
            credential = member.credential
            if credential.expires_at is None or credential.id in self._foreseen:
                continue
            record = self._book.owner(credential)
            life = credential.expires_at - record.signed_in_at if record and record.signed_in_at else float("inf")
            renewal = credential.expires_at - min(RENEW_BEFORE, life / 10)
            if renewal > now:
                times.append(renewal)
                continue
            self._foreseen.add(credential.id)
            if record:
                self._book.want(record, now)
            elif len(self._book) and member.state != "expired":
                self._wish = self._wish or "a token is about to expire"
        return max(min(times), now + 0.5)

    def _begin(self) -> None:
        self._renewals.under_way = True
        self._tell_whether(making=True)

    def _tell_whether(self, *, making: bool) -> None:
        curious, self._curious = self._curious, []
        for answer in curious:
            if not answer.done():
                answer.set_result(making)

    async def _rest(self, now: float) -> None:
        self._tell_whether(making=False)
        times = [self._next_update if self._wish is None else self._not_before, self._look_again]
        if self._script is None and (due := self._book.next_due()) is not None:
            times.append(due)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(min(times) - now, 0.01)):
                await self._renewals.asked.wait()

    # A full update

    async def _update(self, why: str) -> None:
        logger.info("updating all tokens: %s", why)
        self._trigger = why
        self._begin()
        failure: str | None = None
        try:
            await self._learn(eager=False)
            if self._script is None:
                await self._mint.all()
            else:
                await self._mint.by_script(self._script, self.accounts_file)
            self._check_clock()
        except (UpdateFailed, ScriptFailed, UpdateUnusable, TokenFileUnreadable) as error:
            failure = str(error)
        finally:
            self._trigger = None
            self._renewals.under_way = False
        now = time.time()
        self._last_error = failure
        if failure is None:
            self._wish, self._failures = None, 0
            self._not_before = 0.0 if why in ASKED_FOR else now + self._pause_after_success(now)
            self._last_update = now
            self._next_update = now + self.interval
            self._update_count += 1
            self._keeper.pool.reset_consecutive()
            logger.info("tokens updated: %d", len(self._keeper.pool))
        else:
            self._error_count += 1
            self._not_before = now + min(FIRST_BACKOFF * 2.0 ** min(self._failures, 16), MAX_BACKOFF)
            self._failures += 1
            logger.warning("tokens not updated: %s", failure)
        self._renewals.taken()  # what failed meanwhile has been seen to, or waits with everything else
        self._answer(failure)
        await self._keep()
        self._keeper.changed()

    def _pause_after_success(self, now: float) -> float:
        """How long no failure shall bring another full update: new tokens may be refused just as the old ones were."""
        again = self._last_update is not None and now - self._last_update < 2 * max(self._pause, FIRST_BACKOFF)
        self._pause = min(max(self._pause * 2, FIRST_BACKOFF), MAX_BACKOFF) if again else 0.0
        return self._pause

    def _answer(self, failure: str | None) -> None:
        """Tell those who asked for an update how it went."""
        asking, self._asking = self._asking, []
        for answer in asking:
            if answer.done():
                continue
            if failure is None:
                answer.set_result(None)
            else:
                answer.set_exception(UpdateFailed(failure))

    def _check_clock(self) -> None:
        if not self._has_valid_token():
            raise UpdateFailed("The new tokens have expired already. Is the clock of this machine right?")

    async def _renew(self, due: Sequence[Record]) -> None:
        self._begin()
        try:
            await self._mint.some(due)
        except (UpdateUnusable, TokenFileUnreadable) as error:
            self._last_error = str(error)
            self._error_count += 1
            logger.warning("tokens not renewed: %s", error)
            for record in due:
                self._book.lost(record, time.time())
        finally:
            self._renewals.under_way = False
        await self._keep()
        self._keeper.look_again()

    async def _look_at_accounts(self, *, eager: bool) -> None:
        try:
            await self._learn(eager=eager)
        except UpdateFailed as error:
            self._last_error = str(error)
            logger.warning("%s", error)

    async def _learn(self, *, eager: bool) -> None:
        """Read the accounts file. Raises `UpdateFailed` if it holds none; what was known of them then stays known."""
        try:
            found = await asyncio.to_thread(read_accounts, self.accounts_file)
        except AccountFileUnreadable as error:
            raise UpdateFailed(str(error)) from error
        if found.version != self._book.version:
            for fault in found.faults:
                logger.warning("%s, %s", self.accounts_file, fault)
        if not found.accounts:
            raise UpdateFailed(f"There is no account in {self.accounts_file} (ACCOUNTS_FILE).")
        self._book.learn(found.accounts, found.version, eager=eager)

    async def _keep(self) -> None:
        self._look_again = 0.0
        self._foreseen &= {credential.id for credential in self._keeper.pool.credentials()}
        try:
            value = msgspec.json.encode(self._book.ledger(self._last_update or 0.0))
            await asyncio.to_thread(self._storage.put, KEY, value)
            self.kept += 1
        except StorageUnusable as error:
            logger.warning("what is known of the accounts cannot be kept: %s", error)

    def _has_valid_token(self) -> bool:
        summary = self._keeper.summary()
        return summary.total > summary.expired


def _is_bad(member: Member) -> bool:
    """Whether only new tokens can help. One that a person has disabled is that person's matter."""
    return member.state == "expired" or (member.state == "disabled" and member.reason != BY_HAND)
