"""What the simulator knows at run time: users, their tokens and files, records of chats. Lost when the process ends."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from k2think.simulator.options import Account, SimulatorOptions
from k2think.simulator.tokens import session_claims, session_stamp, sign, user_id
from k2think.simulator.uploads import Uploads

Ending: TypeAlias = Literal["open", "completed", "cancelled", "failed"]

MAX_RECORDS = 200


@dataclass
class ChatRecord:
    """One chat request. `headers` show a token only as its account's e-mail; times are Unix seconds.

    `seen`: the messages as the model got them, with files and images in place; None if no model was asked.
    `ending`: `completed`; `cancelled` by the client; `failed`: it got an error or a broken answer on purpose; `open`.
    """

    number: int
    path: str
    account: str
    headers: dict[str, str]
    body: Any
    started: float
    seen: Any = None
    fault: str = ""
    status: int = 0
    ending: Ending = "open"
    ended: float | None = None


@dataclass
class SignIns:
    """Attempts of one e-mail, and how many of them got a token."""

    attempts: int = 0
    good: int = 0


@dataclass
class Totals:
    """How chats ended."""

    completed: int = 0
    cancelled: int = 0
    failed: int = 0


@dataclass
class SimulatorState:
    """All of it. Methods that change it are what `/simulator/...` offers."""

    options: SimulatorOptions
    records: deque[ChatRecord] = field(default_factory=lambda: deque(maxlen=MAX_RECORDS))
    open: dict[str, int] = field(default_factory=Counter)
    """Account -> chats that are being answered."""
    totals: Totals = field(default_factory=Totals)
    sign_ins: dict[str, SignIns] = field(default_factory=dict)
    chats: int = 0
    deleted: set[str] = field(default_factory=set)
    uploads: Uploads = field(default_factory=Uploads)
    _users: dict[str, str] = field(default_factory=dict)
    _generations: Counter[str] = field(default_factory=Counter)
    _revoked: set[str] = field(default_factory=set)
    _attempts: dict[str, deque[float]] = field(default_factory=dict)
    _faults: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._users = {user_id(email): email.lower() for email in self.options.accounts}

    def reset(self) -> None:
        """Forget what happened; accounts are as at the start. Chats still open will be counted when they end."""
        self.records.clear()
        self.totals = Totals()
        self.chats = 0
        self.uploads.clear()
        for forgotten in (self.sign_ins, self.deleted, self._generations, self._revoked, self._attempts, self._faults):
            forgotten.clear()

    def revoke(self, email: str) -> None:
        """Make all tokens of this account invalid that were given out so far (0.6.28: until the next sign-in)."""
        self._generations[email.lower()] += 1
        self._revoked.add(email.lower())

    def delete(self, email: str) -> None:
        """Delete the user: no sign-in any more, and tokens are answered as those of a user who is gone."""
        self.deleted.add(email.lower())

    def account(self, email: str) -> Account | None:
        """The account of this e-mail, if there is one."""
        email = email.lower()
        if email in self.deleted:
            return None
        if self.options.accounts:
            return next((account for name, account in self.options.accounts.items() if name.lower() == email), None)
        for name in ("wrong", "limited"):
            if email.startswith(name):
                return Account(faults=(name,))
        return Account(role="pending" if email.startswith("pending") else "user")

    def owner(self, claims: dict[str, Any]) -> str | None:
        """The e-mail of the user that a token is of; None if there is no such user."""
        email = self._users.get(claims["id"])
        if email is None and isinstance(claims.get("email"), str) and user_id(claims["email"]) == claims["id"]:
            email = claims["email"]
        if email is None and not self.options.accounts:
            email = claims["id"]  # signed well, so it is of somebody who signed in before this process began
        return email if email is not None and self.account(email) is not None else None

    def revoked(self, email: str, claims: dict[str, Any]) -> bool:
        """Whether a token of this owner has been made invalid."""
        if self.options.release == "0.6.28":
            return email in self._revoked
        return "session_stamp" in claims and claims["session_stamp"] != session_stamp(email, self._generations[email])

    def session(self, email: str, now: float) -> tuple[str, int | None]:
        """A new token of this user, and when it expires (Unix seconds; None: never)."""
        options = self.options
        self._users[user_id(email)] = email
        self._revoked.discard(email)
        claims = session_claims(
            email,
            ttl=options.ttl,
            release=options.release,
            now=now,
            generation=self._generations[email],
            jti=options.jti,
        )
        return sign(claims, options.secret), claims.get("exp")

    def limited(self, email: str, now: float) -> bool:
        """Count a sign-in and say whether it is one too many. `now` in seconds of a clock that never goes back."""
        options = self.options
        if options.release == "0.6.28" or not options.sign_in_limit:
            return False
        attempts = self._attempts.setdefault(email, deque())
        while attempts and attempts[0] <= now - options.sign_in_window:
            attempts.popleft()
        if len(attempts) >= options.sign_in_limit:
            return True
        attempts.append(now)
        return False

    def still_faulty(self, key: str, times: int) -> bool:
        """Count a request that shares `key`, and say whether it is among the first `times`."""
        self._faults[key] += 1
        return self._faults[key] <= times

    def begin(self, path: str, account: str, headers: dict[str, str], body: Any) -> ChatRecord:
        """A chat request has come in."""
        self.chats += 1
        record = ChatRecord(self.chats, path, account, shown_headers(headers, account), body, time.time())
        self.records.append(record)
        self.open[account] = self.open.get(account, 0) + 1
        return record

    def end(self, record: ChatRecord, ending: Literal["completed", "cancelled", "failed"], status: int) -> None:
        """That chat is over."""
        record.ending, record.status, record.ended = ending, status, time.time()
        self.open[record.account] -= 1
        if not self.open[record.account]:
            del self.open[record.account]
        setattr(self.totals, ending, getattr(self.totals, ending) + 1)

    def summary(self) -> dict[str, Any]:
        """What `/simulator/state` shows."""
        return {
            "release": self.options.release,
            "open": sum(self.open.values()),
            "open_by_account": dict(self.open),
            "chats": self.chats,
            "totals": asdict(self.totals),
            "sign_ins": {email: asdict(counts) for email, counts in self.sign_ins.items()},
        }


def shown_headers(headers: dict[str, str], account: str) -> dict[str, str]:
    """Headers as they are recorded: with the account in the token's place."""
    own = {"authorization": f"Bearer {account}", "cookie": f"token={account}"}
    return {name: own.get(name, value) for name, value in headers.items()}
