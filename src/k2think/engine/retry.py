"""Whether a failed attempt is followed by another, and when. Pure: decides, never waits.

token rejected or limited   the next token at once, at most 16 tokens a request
upstream or edge failed     again after a pause, 3 attempts in all
queued as a task            again at once, but only once
model id unknown            again at once, but only once, with the upstream's list read anew
anything else               no
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from k2think.errors import (
    CredentialRejected,
    QuotaExceeded,
    TaskAccepted,
    UpstreamError,
    UpstreamModelUnknown,
)

MAX_ATTEMPTS = 3
MAX_TOKENS = 16
RETRY_SHARE = 0.2
RETRIES_PER_SECOND = 1.0
RETRY_RESERVE = 50.0
"""Repetitions because the upstream failed: so many for each request that comes, so many a second even if few come, and
so many saved up at most. An outage must not be made worse by all who try again."""
FIRST_PAUSE = 0.2
"""Seconds; each next pause is twice as long, and each is shortened by up to a half at random."""


@dataclass(frozen=True, slots=True)
class Again:
    """Try once more, `after` seconds; `rediscover` first if the model's id was wrong."""

    after: float = 0.0
    rediscover: bool = False


class RetryBudget:
    """What all requests together may still repeat. `now`: seconds of a clock that never goes back."""

    def __init__(self, now: float) -> None:
        self._left = RETRY_RESERVE
        self._then = now

    def earn(self, now: float) -> None:
        """A request has come."""
        earned = RETRY_SHARE + (now - self._then) * RETRIES_PER_SECOND
        self._left = min(self._left + earned, RETRY_RESERVE)
        self._then = now

    def spend(self) -> bool:
        """Take a repetition out; False if there is none left."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Retries:
    """What one request has used up, out of a budget that all share."""

    __slots__ = ("_attempts", "_budget", "_renamed", "_tasks", "_tokens", "tried")

    def __init__(self, budget: RetryBudget) -> None:
        self._budget = budget
        self.tried: frozenset[str] = frozenset()  # ids of tokens that this request shall not lease again
        self._tokens = 0
        self._attempts = 0
        self._tasks = 0
        self._renamed = False

    def decide(self, error: UpstreamError, credential_id: str) -> Again | None:
        """Answer for an attempt that failed before anything was given away; None = give up."""
        match error:
            case CredentialRejected() | QuotaExceeded():
                if isinstance(error, CredentialRejected):
                    self.tried |= {credential_id}  # a limited one may serve again when it has rested
                self._tokens += 1
                return Again() if self._tokens < MAX_TOKENS else None
            case TaskAccepted():
                self._tasks += 1
                return Again() if self._tasks == 1 else None
            case UpstreamModelUnknown():
                first, self._renamed = not self._renamed, True
                return Again(rediscover=True) if first else None
            case _ if error.retryable:
                self._attempts += 1
                if self._attempts >= MAX_ATTEMPTS or not self._budget.spend():
                    return None
                pause = FIRST_PAUSE * 2 ** (self._attempts - 1)
                return Again(after=pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret is drawn
            case _:
                return None
