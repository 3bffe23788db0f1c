"""Which credential serves next: a state machine without I/O and without a clock (`now` comes in, Unix seconds).

    active ──quota──► cooling ──its time is over──► active
    active ──MAX_TOKEN_FAILURES rejections in a row, or by hand──► disabled ──reset, enable──► active
    any ──its own expiry──► expired
    a success clears the counts of rejections and limits

A token is ready when it is active and carries fewer requests than it may; the ready ones stand in a rotation. Whoever
takes one holds a `Lease`, says how it went (`succeeded`, `failed`) if that is known, and gives it back (`release`).
Wall-clock time, because cooldowns outlive the process and a laptop's sleep.

Several processes may each have a pool of the same tokens: `health` and `adopt` let them know alike how those do, the
requests that a token may carry are shared out, and running requests and whose turn it is stay each one's own.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeAlias

from msgspec.structs import replace

from k2think.credentials.cooldown import believed, cooldown
from k2think.credentials.credential import Credential
from k2think.credentials.health import Health, PoolSummary, UnknownToken, health_of, shortage
from k2think.credentials.rotation import Member, State, Strategy, rotation
from k2think.credentials.worker import ALONE, Worker
from k2think.errors import NoCredential, QuotaExceeded, UpstreamError

CONSECUTIVE_THRESHOLD = 2
"""Tokens rejected one after the other that call for a refresh of all."""

BY_HAND = "disabled by hand"

_UNUSABLE: frozenset[State] = frozenset({"disabled", "expired"})

_Due: TypeAlias = tuple[float, int, Member]


class Lease:
    """A token in use by one request."""

    __slots__ = ("_member", "_open", "credential", "probe")

    def __init__(self, member: Member) -> None:
        self.credential = member.credential
        self.probe = False  # whether this request finds out if an incident is over
        self._member = member
        self._open = True


class Pool:
    """The tokens and their health."""

    def __init__(
        self,
        credentials: Iterable[Credential],
        *,
        max_failures: int,
        max_concurrency: int = 0,
        strategy: Strategy = "round_robin",
        worker: Worker = ALONE,
        randomness: random.Random | None = None,
    ) -> None:
        self.max_failures = max_failures
        self.strategy = strategy
        self.current_index = 0
        self._max_concurrency = max_concurrency
        self._worker = worker
        self._to_be_dealt = False
        self._random = randomness or random.Random()  # noqa: S311 - spreads returns, guards nothing
        self._in_flight = 0
        self._failing: set[str] = set()  # ids of the tokens rejected since the last success of any
        self._sequence = itertools.count()
        self._members: dict[str, Member] = {}
        self.replace(credentials)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def consecutive_failures(self) -> int:
        """How many tokens have been rejected since one was last accepted."""
        return len(self._failing)

    # A request's way

    def lease(self, now: float, skip: AbstractSet[str] = frozenset(), affinity: bytes = b"") -> Lease:
        """Give the next ready credential whose id is not in `skip`. Raises `NoCredential`, with the reason."""
        self.wake(now)
        if self._to_be_dealt:
            self._deal_again()
        member = self._ready.take(skip, affinity, self._in_flight)
        if member is None:
            raise self._nothing_left(now, skip)
        member.in_flight += 1
        member.last_used = now
        self._in_flight += 1
        self.current_index = member.index
        if member.in_flight < member.places:
            self._ready.changed(member)
        else:
            self._ready.remove(member)
        return Lease(member)

    def succeeded(self, lease: Lease) -> bool:
        """The credential was accepted: earlier rejections are forgotten. Says whether there was any."""
        member = lease._member  # noqa: SLF001 - a lease is the pool's own
        forgotten = bool(self._failing or member.failures or member.limits)
        self._failing.clear()
        member.failures = member.limits = 0
        member.last_error = None
        return forgotten

    def failed(self, lease: Lease, error: UpstreamError, now: float, *, blameless: bool = False) -> None:
        """The credential's call failed; what that means for it, the error's type says. `blameless`: not its fault."""
        member = lease._member  # noqa: SLF001
        if member.state == "gone":  # replaced meanwhile: what it did is no longer of interest
            return
        member.last_error = error.code
        if isinstance(error, QuotaExceeded):
            member.limits += 1
            self._cool(member, now + cooldown(error.retry_after, member.limits, self._random))
        elif error.blames_credential and not blameless:
            member.failures += 1
            self._failing.add(member.credential.id)
            if member.failures >= self.max_failures and member.state in {"active", "cooling"}:
                self._disable(member, f"rejected {member.failures} times in a row")

    def release(self, lease: Lease) -> None:
        """The request is over. More than once is as good as once."""
        if not lease._open:  # noqa: SLF001
            return
        lease._open = False  # noqa: SLF001
        member = lease._member  # noqa: SLF001
        self._in_flight -= 1
        member.in_flight -= 1
        if member.state != "active":
            return
        if member in self._ready:
            self._ready.changed(member)
        elif member.in_flight < member.places:
            self._ready.add(member)

    # Who is in it

    def replace(self, credentials: Iterable[Credential]) -> None:
        """Have these tokens from now on. Those that stay keep their health; those that go finish what they carry."""
        old = self._members
        members: dict[str, Member] = {}
        for credential in credentials:
            if credential.id not in members:
                member = members[credential.id] = old.get(credential.id) or Member(credential)
                member.index = len(members) - 1
        for key, member in old.items():
            if key not in members:
                member.state = "gone"
        self.current_index = min(self.current_index, max(0, len(members) - 1))
        self._members = members
        self._list = list(members.values())
        self._states: Counter[State] = Counter(member.state for member in self._list)
        self._ready = rotation(self.strategy, self._list)
        self._deal()
        # Whoever was used last comes last, so that a change does not begin the round anew. Each worker begins at
        # another place, so that they do not walk in step.
        first = len(self._list) * self._worker.number // self._worker.of
        for member in sorted(self._list[first:] + self._list[:first], key=lambda member: member.last_used or 0.0):
            if member.state == "active" and member.in_flight < member.places:
                self._ready.add(member)
        # Heaps of when something is due; a sequence number keeps those of one time from comparing members.
        number = self._sequence
        self._cooling: list[_Due] = [(m.available_at, next(number), m) for m in self._list if m.state == "cooling"]
        self._expiring: list[_Due] = [
            (m.credential.expires_at, next(number), m)
            for m in self._list
            if m.credential.expires_at is not None and m.state != "expired"
        ]
        heapq.heapify(self._cooling)
        heapq.heapify(self._expiring)

    def credentials(self) -> tuple[Credential, ...]:
        """All of them, in their order."""
        return tuple(member.credential for member in self._list)

    def member(self, index: int) -> Member:
        """The token of this index, to be looked at. Raises `UnknownToken`."""
        if not 0 <= index < len(self._list):
            raise UnknownToken(index, len(self._list))
        return self._list[index]

    def of(self, credential_id: str) -> Member | None:
        """The token with this credential, to be looked at."""
        return self._members.get(credential_id)

    def next_expiry(self) -> float | None:
        """When the next token expires, in Unix seconds."""
        return self._expiring[0][0] if self._expiring else None

    # By hand

    def reset(self, index: int) -> None:
        """Forget what a token did; one disabled by hand stays so. Raises `UnknownToken`."""
        self._reset(self.member(index))

    def reset_consecutive(self) -> int:
        """Begin the count of consecutive failures anew; gives what it was."""
        count = len(self._failing)
        self._failing.clear()
        return count

    def reset_all(self) -> None:
        """Forget what all of them did."""
        self._failing.clear()
        for member in self._list:
            self._reset(member)

    def disable(self, index: int) -> None:
        """Use this token no more. Raises `UnknownToken`."""
        member = self.member(index)
        if member.state != "expired":
            self._disable(member, BY_HAND)

    def enable(self, index: int) -> None:
        """Use this token again, as if new. Raises `UnknownToken`."""
        member = self.member(index)
        member.reason = None
        self._reset(member)

    def set_aside(self, credential_id: str, reason: str) -> None:
        """Use this token no more, if it is there: something is known of it that no request has to find out."""
        if (member := self._members.get(credential_id)) and member.state not in {"disabled", "expired"}:
            self._disable(member, reason)

    # What is to be seen and kept

    def summary(self, now: float) -> PoolSummary:
        """Count the tokens by state."""
        self.wake(now)
        states = self._states
        return PoolSummary(
            len(self._list),
            states["active"],
            states["cooling"],
            states["disabled"],
            states["expired"],
            self._in_flight,
        )

    def snapshot(self, now: float) -> Sequence[Member]:
        """All tokens, to be looked at."""
        self.wake(now)
        return self._list

    def health(self) -> list[Health]:
        """What to keep of them for the next start, and to tell other processes."""
        failing = self._failing
        ill = (member for member in self._list if not member.is_well or member.credential.id in failing)
        left = (Health(key, failing=True) for key in failing if key not in self._members)
        return [*(health_of(member, failing=member.credential.id in failing) for member in ill), *left]

    def restore(self, kept: Iterable[Health], now: float) -> None:
        """Take up what an earlier process kept; consecutive failures begin anew."""
        self.adopt({health.id: replace(health, failing=False) for health in kept}, now)

    def adopt(self, kept: Mapping[str, Health], now: float) -> tuple[Credential, ...]:
        """Be as is told, by id: well where nothing is. Gives the tokens that have been rejected more often than known.

        A cooldown is believed only as far as this pool could have set it.
        """
        known = {health.id: health for health in self.health()}
        rejected: list[Credential] = []
        for key in known.keys() | kept.keys():
            told = kept.get(key) or Health(key)
            if told == known.get(key):
                continue
            (self._failing.add if told.failing else self._failing.discard)(key)
            if member := self._members.get(key):
                if told.failures > member.failures:
                    rejected.append(member.credential)
                self._become_as(member, told, now)
        return tuple(rejected)

    def wake(self, now: float) -> None:
        """Do what is due: the expired go, those whose cooldown is over come back."""
        while self._expiring and self._expiring[0][0] <= now:
            member = heapq.heappop(self._expiring)[2]
            if member.state != "gone":
                self._become(member, "expired")
        while self._cooling and self._cooling[0][0] <= now:
            member = heapq.heappop(self._cooling)[2]
            if member.state != "cooling":
                continue
            if member.available_at > now:  # told meanwhile to rest longer
                heapq.heappush(self._cooling, (member.available_at, next(self._sequence), member))
            else:
                self._become(member, "active")

    # Inside

    def _cool(self, member: Member, until: float) -> None:
        if member.state not in {"active", "cooling"}:
            return
        entered = member.state == "active"
        if entered or until > member.available_at:
            member.available_at = until
        if entered:
            self._become(member, "cooling")
            heapq.heappush(self._cooling, (until, next(self._sequence), member))

    def _become_as(self, member: Member, told: Health, now: float) -> None:
        member.failures, member.limits, member.last_error = told.failures, told.limits, told.error
        if member.state == "expired":
            return
        until = believed(told.until, now)
        if told.disabled:
            self._disable(member, told.disabled)
        elif member.failures >= self.max_failures:
            self._disable(member, f"rejected {member.failures} times in a row")
        elif until > now:
            member.reason, member.available_at = None, until
            self._become(member, "cooling")
            heapq.heappush(self._cooling, (until, next(self._sequence), member))
        elif member.state != "active":
            member.reason = None
            self._become(member, "active")

    def _disable(self, member: Member, reason: str) -> None:
        member.reason = reason
        self._become(member, "disabled")

    def _reset(self, member: Member) -> None:
        member.failures = member.limits = 0
        member.last_error = None
        if member.state == "cooling" or (member.state == "disabled" and member.reason != BY_HAND):
            member.reason = None
            self._become(member, "active")

    def _become(self, member: Member, state: State) -> None:
        if (member.state in _UNUSABLE) != (state in _UNUSABLE):
            self._to_be_dealt = self._max_concurrency > 0 and not self._worker.is_alone
        self._states[member.state] -= 1
        self._states[state] += 1
        member.state = state
        if state == "active" and member.in_flight < member.places:
            self._ready.add(member)
        else:
            self._ready.remove(member)

    def _deal(self) -> None:
        """Say how many requests each token that can be used may carry in this process; all come to the same."""
        self._to_be_dealt = False
        if each := self._max_concurrency:
            for member in self._list:
                member.places = each
            usable = [member for member in self._list if member.state not in _UNUSABLE]
            for member, places in zip(usable, self._worker.hand(each, len(usable)), strict=True):
                member.places = places

    def _deal_again(self) -> None:
        self._deal()
        for member in self._list:
            if member.state != "active" or member.in_flight >= member.places:
                self._ready.remove(member)
            elif member not in self._ready:
                self._ready.add(member)

    def _nothing_left(self, now: float, skip: AbstractSet[str]) -> NoCredential:
        untried = self._states.copy()
        for key in skip:
            if member := self._members.get(key):
                untried[member.state] -= 1
        if untried["active"] or untried["cooling"]:
            return shortage(untried, self._first_awake(skip) - now if untried["cooling"] else None)
        if self._ready:
            return NoCredential("The upstream refused every token that was tried for this request.")
        cooling = self._states["cooling"]
        return shortage(self._states, self._first_awake(frozenset()) - now if cooling else None)

    def _first_awake(self, skip: AbstractSet[str]) -> float:
        """When the first of the cooling ones comes back that is not in `skip`; there must be one."""
        aside: list[_Due] = []
        while True:
            at, number, member = heapq.heappop(self._cooling)
            if member.state != "cooling":
                continue
            if member.available_at > at:  # told meanwhile to rest longer
                heapq.heappush(self._cooling, (member.available_at, number, member))
                continue
            aside.append((at, number, member))
            if member.credential.id not in skip:
                break
        for due in aside:
            heapq.heappush(self._cooling, due)
        return at
