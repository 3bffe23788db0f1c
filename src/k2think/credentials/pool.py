"""Which credential serves next: a state machine without I/O and without a clock (`now` comes in, seconds of any clock).

    active ──quota──► cooling ──its time is over──► active
    active ──MAX_TOKEN_FAILURES rejections in a row──► disabled
    a success clears the count of rejections

The active ones stand in a ring, next first. Taking the first to the end and taking any one out cost the same for ten
tokens and for a hundred thousand, because the ring is an `OrderedDict`: a linked list with an index.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from k2think.credentials.credential import Credential
from k2think.errors import NoCredential, QuotaExceeded, UpstreamError

DEFAULT_COOLDOWN = 30.0
MAX_COOLDOWN = 3600.0
"""Seconds that a rate-limited token rests: where the upstream does not say, and at most."""


@dataclass(slots=True)
class _Member:
    index: int
    credential: Credential
    state: Literal["active", "cooling", "disabled"] = "active"
    failures: int = 0
    available_at: float = 0.0


@dataclass(frozen=True, slots=True)
class PoolSummary:
    """How many tokens there are, and in which state."""

    total: int
    active: int
    cooling: int
    disabled: int


class Pool:
    """The tokens and their health."""

    def __init__(self, credentials: Iterable[Credential], *, max_failures: int) -> None:
        self._max_failures = max_failures
        self._members = {c.id: _Member(i, c) for i, c in enumerate(credentials)}
        self._ring = OrderedDict(self._members)
        self._cooling: list[tuple[float, int, _Member]] = []  # a heap; its times may be older than the members' own
        self._disabled = 0

    def lease(self, now: float, tried: AbstractSet[str] = frozenset()) -> Credential:
        """Give the next active credential whose id is not in `tried`. Raises `NoCredential`, with the reason."""
        self._wake(now)
        for _ in range(min(len(self._ring), len(tried) + 1)):
            key = next(iter(self._ring))
            self._ring.move_to_end(key)
            if key not in tried:
                return self._ring[key].credential
        raise self._nothing_left(now)

    def succeeded(self, credential: Credential) -> None:
        """The credential did its work: earlier rejections are forgotten."""
        if member := self._members.get(credential.id):
            member.failures = 0

    def failed(self, credential: Credential, error: UpstreamError, now: float) -> None:
        """The credential's call failed; what that means for it, the error's type says."""
        member = self._members.get(credential.id)
        if member is None:  # replaced meanwhile
            return
        if isinstance(error, QuotaExceeded):
            self._cool(member, now + min(error.retry_after or DEFAULT_COOLDOWN, MAX_COOLDOWN))
        elif error.blames_credential and member.state != "disabled":
            member.failures += 1
            if member.failures >= self._max_failures:
                self._disable(member)

    def summary(self, now: float) -> PoolSummary:
        """Count the tokens by state."""
        self._wake(now)
        total, active = len(self._members), len(self._ring)
        return PoolSummary(total, active, total - active - self._disabled, self._disabled)

    def _cool(self, member: _Member, until: float) -> None:
        if member.state == "disabled" or until <= member.available_at:
            return
        member.available_at = until
        if member.state == "active":
            del self._ring[member.credential.id]
            member.state = "cooling"
            heapq.heappush(self._cooling, (until, member.index, member))

    def _disable(self, member: _Member) -> None:
        if member.state == "active":
            del self._ring[member.credential.id]
        member.state = "disabled"
        self._disabled += 1

    def _wake(self, now: float) -> None:
        while self._cooling and self._cooling[0][0] <= now:
            _, index, member = heapq.heappop(self._cooling)
            if member.state != "cooling":
                continue
            if member.available_at > now:  # told meanwhile to rest longer
                heapq.heappush(self._cooling, (member.available_at, index, member))
            else:
                member.state = "active"
                self._ring[member.credential.id] = member

    def _nothing_left(self, now: float) -> NoCredential:
        if not self._members:
            return NoCredential("The gateway has no upstream token. Put one into the token file and reload.")
        if self._ring:
            return NoCredential("The upstream refused every token that was tried for this request.")
        if self._cooling:
            wait = max(self._cooling[0][0] - now, 1.0)
            return NoCredential(
                "All upstream tokens are rate-limited for the moment.",
                status=429,
                code="rate_limit_exceeded",
                retry_after=wait,
            )
        return NoCredential("The upstream has rejected all tokens; they need to be renewed.")
