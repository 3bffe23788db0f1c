"""Makes tokens of accounts, or has the user's own script make them, and puts them into stock."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from k2think.credentials.account_book import AccountBook, Record
from k2think.credentials.credential import Credential, Login
from k2think.credentials.keeper import Keeper
from k2think.credentials.pool import BY_HAND
from k2think.credentials.script import run_script
from k2think.credentials.signing_in import Outcome, sign_in_all
from k2think.credentials.stock import Stock
from k2think.errors import CredentialRejected, UpstreamError
from k2think.storage.durable import create

logger = logging.getLogger(__name__)

SCRIPT_SECONDS = 600.0
SCRIPT_SECONDS_PER_ACCOUNT = 30.0
"""How long a script may run."""


MAX_DOUBTFUL = 16
"""Tokens of no account that are asked after in one update."""
STARVING = 16
"""A pool that has so many tokens again can wait for the others."""


class UpdateFailed(Exception):
    """No new tokens; the message says why, without a secret."""


class Mint:
    """What fails raises `UpdateFailed`, `UpdateUnusable`, `TokenFileUnreadable` or `ScriptFailed`; nothing is then
    changed but what the book knows of the accounts. `workers`: accounts signed in at once.
    """

    def __init__(self, *, login: Login, book: AccountBook, stock: Stock, keeper: Keeper, workers: int) -> None:
        self._login = login
        self._book = book
        self._stock = stock
        self._keeper = keeper
        self._workers = workers

    async def all(self) -> None:
        """Sign all accounts in and have their tokens in place of the old ones."""
        now = time.time()
        book = self._book
        pool = self._keeper.pool
        fresh = {
            record.email for record in book.records() if book.is_fresh(record, now) and pool.of(record.token_id or "")
        }
        records = [record for record in self._welcome(book.all_for_update(now)) if record.email not in fresh]
        owners = {credential.id: book.owner(credential) for credential in pool.credentials()}
        starving = not any(member.state == "active" and not member.failures for member in pool.snapshot(now))
        made = await self._sign_in(records, starving=starving)
        if not made and not fresh:
            raise UpdateFailed(_what_failed(book.records()))
        dead = await self._dead()
        await self._stock.replace(lambda: self._merged(made, owners, dead))
        book.forget_departed()

    async def some(self, records: Sequence[Record]) -> None:
        """Sign these accounts in and put their new tokens into the places of their old ones."""
        pool = self._keeper.pool
        places = {credential.id: self._book.owner(credential) for credential in pool.credentials()}
        made = await self._sign_in(self._welcome(records), starving=False)

        def renewed() -> list[str]:
            left = dict(made)
            secrets = []
            for credential in pool.credentials():
                owner = places.get(credential.id) or self._book.owner(credential)
                new = left.pop(owner.email, None) if owner else None
                secrets.append((new or credential).secret)
            return [*secrets, *(credential.secret for credential in left.values())]

        if made:
            await self._stock.replace(renewed)

    async def by_script(self, script: Path, accounts_file: Path) -> None:
        """Have the user's own script make all tokens."""
        accounts = [self._book.account(record) for record in self._book.records()]
        staged = self._stock.file.staged
        try:
            # What an earlier run has left must not be taken for the work of this one; and a file that is there is
            # written into, so that the tokens are nobody else's to read.
            staged.unlink(missing_ok=True)
            create(staged, b"")
        except OSError as error:
            raise UpdateFailed(f"{staged} cannot be written: {error.strerror}.") from error
        try:
            await run_script(
                script,
                accounts_file,
                staged,
                patience=SCRIPT_SECONDS + SCRIPT_SECONDS_PER_ACCOUNT * len(accounts),
                secrets=[account.password for account in accounts],
            )
            await self._stock.commit()
        finally:
            staged.unlink(missing_ok=True)

    def _welcome(self, records: Sequence[Record]) -> list[Record]:
        """Those without whose tokens a person has disabled, who would not want another one of the same account."""
        off = [member for member in self._keeper.pool.snapshot(time.time()) if member.reason == BY_HAND]
        unwelcome = [owner for member in off if (owner := self._book.owner(member.credential))]
        for record in unwelcome:
            self._book.not_wanted(record)
        return [record for record in records if record not in unwelcome]

    async def _dead(self) -> set[str]:
        """Ids of the tokens that are of no account and no good.

        One rejection may have been a whim of the service, and nobody could make such a token anew: so it is asked.
        """
        dead: set[str] = set()
        doubtful: list[Credential] = []
        for member in self._keeper.pool.snapshot(time.time()):
            if member.state == "disabled" and member.reason != BY_HAND:
                dead.add(member.credential.id)
            elif member.failures and self._book.owner(member.credential) is None:
                doubtful.append(member.credential)
        for credential in doubtful[:MAX_DOUBTFUL]:
            try:
                await self._login.verify(credential)
            except CredentialRejected:
                dead.add(credential.id)
            except UpstreamError:
                break  # nobody knows; they stay
        return dead

    def _merged(self, made: dict[str, Credential], owners: dict[str, Record | None], dead: set[str]) -> list[str]:
        """The new tokens, in the order of the accounts, and the old ones that are still worth having.

        An old token stays if its account gave no other just now, or if it is of no account (somebody put it there by
        hand). One that is dead or expired goes, and one whose account is no longer in the file.
        """
        kept: dict[str, str] = {}
        others: list[str] = []
        for member in self._keeper.pool.snapshot(time.time()):
            credential = member.credential
            owner = owners.get(credential.id) or self._book.owner(credential)
            if member.state == "expired" or credential.id in dead:
                continue
            if owner is None:
                if not self._book.has_departed(credential):
                    others.append(credential.secret)
            elif owner.state != "set_aside":
                kept[owner.email] = credential.secret
        kept.update({email: credential.secret for email, credential in made.items()})
        of_accounts = [kept[record.email] for record in self._book.records() if record.email in kept]
        return [*of_accounts, *others]

    async def _sign_in(self, records: Sequence[Record], *, starving: bool) -> dict[str, Credential]:
        """Sign in and write down what came of it; gives the new tokens by e-mail.

        `starving`: there is no token at all, so each is put to work as soon as it is there.
        """
        book = self._book
        of_account = {record.email: record for record in records}
        made: dict[str, Credential] = {}

        def told(outcome: Outcome) -> None:
            if outcome.error:
                logger.warning("%s could not be signed in: %s", outcome.account.masked(), outcome.error.message)
            elif starving and outcome.credential and len(pool := self._keeper.pool) < STARVING:
                pool.replace([*pool.credentials(), outcome.credential])
                self._keeper.changed()

        accounts = [book.account(record) for record in records]
        for outcome in await sign_in_all(self._login, accounts, workers=self._workers, told=told):
            record = of_account[outcome.account.email]
            if outcome.error:
                book.failed(record, outcome.error, time.time())
            elif outcome.credential is None:
                book.postponed(record, time.time())
            elif await self._is_good(record, outcome.credential):
                book.signed_in(record, outcome.credential, time.time())
                made[record.email] = outcome.credential
        return made

    async def _is_good(self, record: Record, credential: Credential) -> bool:
        """Whether a sign-in's token can be used. One that was just rejected may come again: then the account is bad."""
        pool = self._keeper.pool
        member = pool.of(credential.id)
        if record.state != "set_aside" and (member is None or not member.failures):
            return True
        try:
            await self._login.verify(credential)
        except CredentialRejected as error:
            reason = f"Its sign-in works, but the token it gives is refused. {error.message}"
            self._book.set_aside(record, reason, time.time())
            pool.set_aside(credential.id, "its account's sign-in gives this same token again")
            self._keeper.touched.set()
            logger.warning("%s is set aside: %s", self._book.account(record).masked(), reason)
            return False
        except UpstreamError as error:
            self._book.failed(record, error, time.time())
            return False
        if member is not None:
            pool.reset(member.index)
            self._keeper.touched.set()
        return True


def _what_failed(records: Iterable[Record]) -> str:
    reasons: dict[str, int] = {}
    for record in records:
        reasons[record.reason] = reasons.get(record.reason, 0) + 1
    total = sum(reasons.values())
    said = "; ".join(f"{count} of {total}: {reason}" for reason, count in list(reasons.items())[:3] if reason)
    return f"No account could be signed in. {said}"
