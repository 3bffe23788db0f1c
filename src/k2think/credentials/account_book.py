"""What is known of each account, and when it is to be signed in: a state machine without I/O or clock.

    new ──sign-in──► good
    new, good ──400──► refused       wrong e-mail or password: not tried again until the accounts file changes
    new, good ──429, 5xx──► waiting  tried again at `retry_at`
    good ──its token is rejected, and a sign-in gives the very same──► set aside: tried again with the next full update

Times are Unix seconds.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from k2think.credentials.credential import Account, Credential
from k2think.errors import QuotaExceeded, SignInRefused, UpstreamError

AccountState: TypeAlias = Literal["new", "good", "refused", "waiting", "set_aside"]

MIN_BETWEEN = 30.0
"""Seconds between two sign-ins of one account that nobody asked for by name; doubled each time a fresh token fails."""
LIMITED_FOR = 180.0
"""Seconds after a 429 that names no time: the window in which Open WebUI counts an account's sign-ins."""
FIRST_BACKOFF = 5.0
MAX_BACKOFF = 3600.0
SPARED_FOR = 60.0
FRESH = 60.0
"""A token younger than this need not be made anew."""


class Record(Struct, omit_defaults=True):
    """One account. `user_id` and `token_id` name the token that its last sign-in gave; no secret stands here."""

    email: str
    state: AccountState = "new"
    reason: str = ""
    user_id: str | None = None
    token_id: str | None = None
    signed_in_at: float = 0.0
    retry_at: float = 0.0
    tries: int = 0  # sign-ins since the last that was of use
    wanted: bool = False  # a token of it is missing or bad


class Ledger(Struct, frozen=True, omit_defaults=True):
    """The book as it is kept between two starts. `version`: of the accounts file that it speaks of."""

    version: str = ""
    records: tuple[Record, ...] = ()
    last_update: float = 0.0


class AccountBook:
    """The accounts of the file and their records."""

    def __init__(self, *, min_between: float = MIN_BETWEEN, randomness: random.Random | None = None) -> None:
        self.version = ""
        self._min_between = min_between
        self._random = randomness or random.Random()  # noqa: S311 - spreads sign-ins, guards nothing
        self._accounts: dict[str, Account] = {}
        self._records: dict[str, Record] = {}
        self._kept: dict[str, Record] = {}  # of the last run, until the file is read
        self._by_token: dict[str, Record] = {}
        self._by_user: dict[str, Record] = {}
        self._departed: list[Record] = []  # since the last full update

    def __len__(self) -> int:
        return len(self._accounts)

    def learn(self, accounts: Iterable[Account], version: str, *, eager: bool) -> None:
        """Have these accounts from now on; `eager`: those that are new are to be signed in.

        If the file is another than before, those that were refused get another chance.
        """
        changed = version != self.version
        self.version = version
        self._accounts = {account.email.lower(): account for account in accounts}
        known = self._kept | self._records
        self._kept = {}
        records: dict[str, Record] = {}
        for key, account in self._accounts.items():
            record = records[key] = known.get(key) or Record(account.email, wanted=eager)
            record.email = account.email
            if changed and record.state in {"refused", "set_aside"}:
                record.state, record.reason, record.retry_at, record.tries = "new", "", 0.0, 0
                record.wanted = eager
        self._departed += [record for key, record in known.items() if key not in records]
        self._records = records
        self._index()

    def records(self) -> Sequence[Record]:
        """All of them, in the file's order."""
        return list(self._records.values())

    def record(self, email: str) -> Record:
        """What is known of an account of the book."""
        return self._records[email.lower()]

    def owner(self, credential: Credential) -> Record | None:
        """Whose token this is, if a sign-in has told."""
        return self._by_token.get(credential.id) or self._by_user.get(credential.user_id or "")

    def has_departed(self, credential: Credential) -> bool:
        """Whether this token is of an account that is no longer in the file."""
        return self.owner(credential) is None and any(_is_of(credential, record) for record in self._departed)

    def forget_departed(self) -> None:
        """Their tokens are gone."""
        self._departed.clear()

    def account(self, record: Record) -> Account:
        """The account of a record."""
        return self._accounts[record.email.lower()]

    # When to sign in

    def want(self, record: Record, now: float) -> None:
        """A token of this account is bad, or soon will be: sign it in, but not too soon after the last time."""
        if record.wanted or record.state in {"refused", "set_aside"}:
            return
        pause = self._min_between * 2.0 ** min(record.tries, 7)
        if now - record.signed_in_at > 2 * pause:
            record.tries, pause = 0, self._min_between
        record.wanted = True
        record.tries += 1
        record.retry_at = max(record.retry_at, now, min(record.signed_in_at, now) + pause)

    def due(self, now: float) -> list[Record]:
        """Whose sign-in is wanted and may be tried now."""
        return [record for record in self._records.values() if _waits(record) and record.retry_at <= now]

    def next_due(self) -> float | None:
        """When the next of them will be."""
        return min((record.retry_at for record in self._records.values() if _waits(record)), default=None)

    def all_for_update(self, now: float) -> list[Record]:
        """Whom a full update signs in: all but the refused and those who must wait."""
        return [
            record
            for record in self._records.values()
            if record.state != "refused" and not (record.state == "waiting" and record.retry_at > now)
        ]

    def is_fresh(self, record: Record, now: float) -> bool:
        """Whether its token is so new that another sign-in would only be a burden."""
        return record.state == "good" and not record.wanted and 0 <= now - record.signed_in_at < FRESH

    # What came of it

    def signed_in(self, record: Record, credential: Credential, now: float) -> None:
        """A sign-in gave this token."""
        if record.state == "waiting":
            record.tries = 0  # the failures until now say nothing about the token
        record.state, record.reason, record.wanted, record.retry_at = "good", "", False, 0.0
        record.user_id, record.token_id, record.signed_in_at = credential.user_id, credential.id, now
        self._by_token[credential.id] = record
        if credential.user_id:
            self._by_user[credential.user_id] = record

    def set_aside(self, record: Record, reason: str, now: float) -> None:
        """The sign-in works, but what it gives is refused: the account is the fault."""
        record.state, record.reason, record.wanted, record.signed_in_at = "set_aside", reason, False, now

    def lost(self, record: Record, now: float) -> None:
        """Its new token could not be kept: another one is wanted."""
        if record.state == "good":
            record.wanted, record.retry_at = True, now + FIRST_BACKOFF

    def postponed(self, record: Record, now: float) -> None:
        """It was spared, because the service failed for others."""
        if record.wanted:
            record.retry_at = now + SPARED_FOR

    def not_wanted(self, record: Record) -> None:
        """A person has disabled its token, and does not want another."""
        record.wanted = False

    def failed(self, record: Record, error: UpstreamError, now: float) -> None:
        """A sign-in failed."""
        record.reason = error.message
        if isinstance(error, SignInRefused):
            record.state, record.wanted = "refused", False
            return
        record.tries += 1
        if error.retry_after is not None:
            pause = min(error.retry_after, MAX_BACKOFF)
        elif isinstance(error, QuotaExceeded):
            pause = LIMITED_FOR
        else:
            pause = min(FIRST_BACKOFF * 2.0 ** min(record.tries - 1, 16), MAX_BACKOFF)
        record.state, record.wanted = "waiting", True
        record.retry_at = now + pause * (1 + self._random.uniform(0, 0.25))

    # Between two starts

    def ledger(self, last_update: float) -> Ledger:
        """The book, to be kept."""
        return Ledger(self.version, tuple((self._kept | self._records).values()), last_update)

    def restore(self, ledger: Ledger, now: float) -> None:
        """Take up a kept book; `learn` comes after, for whoever signs in. Its tokens' owners are known at once.

        No wait in it is believed that this one could not have set.
        """
        self.version = ledger.version
        for record in ledger.records:
            record.retry_at = min(record.retry_at, now + 2 * MAX_BACKOFF)
        self._records = {}
        self._kept = {record.email.lower(): record for record in ledger.records}
        self._index()

    def _index(self) -> None:
        records = (self._kept | self._records).values()
        self._by_token = {record.token_id: record for record in records if record.token_id}
        self._by_user = {record.user_id: record for record in records if record.user_id}


def _is_of(credential: Credential, record: Record) -> bool:
    return credential.id == record.token_id or (record.user_id is not None and credential.user_id == record.user_id)


def _waits(record: Record) -> bool:
    return record.wanted and record.state not in {"refused", "set_aside"}
