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

logger = logging.getLogger(__name__)

SCRIPT_SECONDS = 600.0
SCRIPT_SECONDS_PER_ACCOUNT = 30.0
"""How long a script may run."""


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
        if not len(book):
            raise UpdateFailed("There is no account in the accounts file (ACCOUNTS_FILE).")
        records = book.all_for_update(now)
        fresh = [record for record in book.records() if book.is_fresh(record, now)]
        owners = {credential.id: book.owner(credential) for credential in self._keeper.pool.credentials()}
        summary = self._keeper.summary()
        made = await self._sign_in(records, starving=summary.total == summary.expired)
        if not made and not fresh:
            raise UpdateFailed(_what_failed(book.records()))
        await self._stock.replace(self._merged(made, owners))

    async def some(self, records: Sequence[Record]) -> None:
        """Sign these accounts in and put their new tokens into the places of their old ones."""
        pool = self._keeper.pool
        places = {credential.id: self._book.owner(credential) for credential in pool.credentials()}
        made = await self._sign_in(records, starving=False)
        if made:
            secrets = []
            for credential in pool.credentials():
                owner = places.get(credential.id)
                new = made.pop(owner.email, None) if owner else None
                secrets.append((new or credential).secret)
            secrets += [credential.secret for credential in made.values()]
            await self._stock.replace(secrets)

    async def by_script(self, script: Path, accounts_file: Path) -> None:
        """Have the user's own script make all tokens."""
        accounts = [self._book.account(record) for record in self._book.records()]
        await run_script(
            script,
            accounts_file,
            self._stock.file.staged,
            patience=SCRIPT_SECONDS + SCRIPT_SECONDS_PER_ACCOUNT * len(accounts),
            secrets=[account.password for account in accounts],
        )
        await self._stock.commit()

    def _merged(self, made: dict[str, Credential], owners: dict[str, Record | None]) -> list[str]:
        """The new tokens, in the order of the accounts, and the old ones that are still worth having.

        An old token stays if its account gave no other just now, or if it is of no account (somebody put it there by
        hand). One that was rejected last, or has expired, goes.
        """
        pool = self._keeper.pool
        kept: dict[str, str] = {}
        others: list[str] = []
        for member in pool.snapshot(time.time()):
            credential = member.credential
            owner = owners.get(credential.id)
            if member.state == "expired" or (member.failures and member.reason != BY_HAND):
                continue
            if owner is None:
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
            elif starving and outcome.credential:
                pool = self._keeper.pool
                pool.replace([*pool.credentials(), outcome.credential])
                self._keeper.changed()

        accounts = [book.account(record) for record in records]
        for outcome in await sign_in_all(self._login, accounts, workers=self._workers, told=told):
            record = of_account[outcome.account.email]
            if outcome.credential is None:
                assert outcome.error is not None
                book.failed(record, outcome.error, time.time())
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
            logger.warning("%s is set aside: %s", self._book.account(record).masked(), reason)
            return False
        except UpstreamError as error:
            self._book.failed(record, error, time.time())
            return False
        if member is not None:
            pool.reset(member.index)
        return True


def _what_failed(records: Iterable[Record]) -> str:
    reasons: dict[str, int] = {}
    for record in records:
        reasons[record.reason] = reasons.get(record.reason, 0) + 1
    total = sum(reasons.values())
    said = "; ".join(f"{count} of {total}: {reason}" for reason, count in list(reasons.items())[:3] if reason)
    return f"No account could be signed in. {said}"
