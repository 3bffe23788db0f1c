"""The pool under anything that can happen to it, in any order, against a plain model of what should be."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from k2think.credentials.cooldown import FIRST_COOLDOWN, MAX_COOLDOWN, MAX_UNTOLD_COOLDOWN
from k2think.credentials.credential import Credential
from k2think.credentials.health import Health
from k2think.credentials.pool import BY_HAND, Lease, Pool
from k2think.credentials.rotation import State, Strategy
from k2think.errors import (
    CredentialRejected,
    EdgeBlocked,
    NoCredential,
    QuotaExceeded,
    UpstreamError,
    UpstreamUnavailable,
)

REJECTED = CredentialRejected("no")
STRATEGIES: tuple[Strategy, ...] = ("round_robin", "least_busy", "sticky")
UNIVERSE = (
    *(Credential(name, f"secret-{name}") for name in "abcd"),
    Credential("e", "secret-e", expires_at=1_100.0),
    Credential("f", "secret-f", expires_at=3_000.0),
)
EVERYONE = frozenset(credential.id for credential in UNIVERSE)
ERRORS: tuple[Callable[[], UpstreamError], ...] = (
    lambda: REJECTED,
    lambda: REJECTED,
    lambda: QuotaExceeded("x"),
    lambda: QuotaExceeded("x", retry_after=40),
    lambda: QuotaExceeded("x", retry_after=10.0**6),
    lambda: EdgeBlocked("x"),
    lambda: UpstreamUnavailable("x"),
)
LATER = st.sampled_from([0, 0, 0, 0.5, 1, 30, 61, 700, 3600])
TOKENS = st.lists(st.sampled_from(UNIVERSE), max_size=8)
ANY = st.integers(0, 10**6)


class NoJitter(random.Random):
    """Cooldowns are then as long as they say."""

    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002
        return a


@dataclass(eq=False)
class Known:
    """What should be so of a token."""

    credential: Credential
    failures: int = 0
    limits: int = 0
    running: int = 0
    until: float = 0.0
    off: str = ""
    gone: bool = False

    def state(self, now: float) -> State:
        if self.credential.expires_at is not None and self.credential.expires_at <= now:
            return "expired"
        if self.off:
            return "disabled"
        return "cooling" if self.until > now else "active"

    def turn_off(self, why: str) -> None:
        self.off, self.until = why, 0.0

    def forget(self) -> None:
        self.failures = self.limits = 0
        self.until = 0.0
        if self.off != BY_HAND:
            self.off = ""


class PoolMachine(RuleBasedStateMachine):
    """Each rule first lets `later` seconds pass, so that nothing relies on somebody having looked meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.known: dict[str, Known] = {}
        self.leases: list[tuple[Lease, Known]] = []
        self.streak: set[str] = set()

    def make(self, credentials: list[Credential]) -> None:
        self.pool = Pool(
            credentials,
            max_failures=self.max_failures,
            max_concurrency=self.cap,
            strategy=self.strategy,
            randomness=NoJitter(),
        )

    def state(self, known: Known) -> State:
        return known.state(self.now)

    def has_room(self, known: Known) -> bool:
        return not self.cap or known.running < self.cap

    def some(self, number: int) -> tuple[int, Known]:
        index = number % len(self.known)
        return index, list(self.known.values())[index]

    @initialize(
        tokens=TOKENS, strategy=st.sampled_from(STRATEGIES), cap=st.integers(0, 3), max_failures=st.integers(1, 3)
    )
    def begin(self, tokens: list[Credential], strategy: Strategy, cap: int, max_failures: int) -> None:
        self.strategy, self.cap, self.max_failures = strategy, cap, max_failures
        self.make(tokens)
        self.known = {credential.id: Known(credential) for credential in tokens}

    @rule(
        later=LATER,
        skip=st.one_of(
            st.frozensets(st.sampled_from(sorted(EVERYONE))),
            st.sampled_from(sorted(EVERYONE)).map(lambda key: EVERYONE - {key}),
        ),
        affinity=st.sampled_from([b"", b"x", b"y", b"z"]),
    )
    def lease(self, later: float, skip: frozenset[str], affinity: bytes) -> None:
        self.now += later
        ready = [known for known in self.known.values() if self.state(known) == "active" and self.has_room(known)]
        choices = [known for known in ready if known.credential.id not in skip]
        if not choices:
            self.expect_none(skip, some_ready=bool(ready))
            return
        lease = self.pool.lease(self.now, skip, affinity)
        chosen = self.known[lease.credential.id]
        assert chosen in choices
        if self.strategy == "least_busy":
            assert chosen.running == min(known.running for known in choices)
        chosen.running += 1
        self.leases.append((lease, chosen))

    def expect_none(self, skip: frozenset[str], *, some_ready: bool) -> None:
        with pytest.raises(NoCredential) as none:
            self.pool.lease(self.now, skip)
        error = none.value
        others = [known for key, known in self.known.items() if key not in skip]
        if not any(self.state(known) in {"active", "cooling"} for known in others):
            if some_ready:
                assert (error.retry_after, error.busy, error.status) == (None, False, 503)
                return
            others = list(self.known.values())
        resting = [known.until - self.now for known in others if self.state(known) == "cooling"]
        assert error.busy == any(self.state(known) == "active" for known in others)
        assert error.retry_after == (min(resting) if resting else 1.0 if error.busy else None)
        assert error.status == (503 if error.retry_after is None else 429)

    @precondition(lambda self: self.leases)
    @rule(later=LATER, number=ANY)
    def succeeded(self, later: float, number: int) -> None:
        self.now += later
        lease, known = self.leases[number % len(self.leases)]
        assert self.pool.succeeded(lease) == bool(self.streak or known.failures or known.limits)
        known.failures = known.limits = 0
        self.streak.clear()

    @precondition(lambda self: self.leases)
    @rule(later=LATER, number=ANY, make=st.sampled_from(ERRORS), blameless=st.sampled_from([False, False, True]))
    def failed(self, later: float, number: int, make: Callable[[], UpstreamError], blameless: bool) -> None:
        self.now += later
        lease, known = self.leases[number % len(self.leases)]
        error = make()
        self.pool.failed(lease, error, self.now, blameless=blameless)
        if known.gone:
            return
        if isinstance(error, QuotaExceeded):
            known.limits += 1
            untold = min(FIRST_COOLDOWN * 2 ** (known.limits - 1), MAX_UNTOLD_COOLDOWN)
            rest = untold if error.retry_after is None else min(error.retry_after, MAX_COOLDOWN)
            if not known.off:
                known.until = max(known.until, self.now + rest)
        elif error is REJECTED and not blameless:
            known.failures += 1
            self.streak.add(known.credential.id)
            if known.failures >= self.max_failures and not known.off:
                known.turn_off("rejected")

    @precondition(lambda self: self.leases)
    @rule(later=LATER, number=ANY, twice=st.booleans())
    def release(self, later: float, number: int, twice: bool) -> None:
        self.now += later
        lease, known = self.leases.pop(number % len(self.leases))
        known.running -= 1
        self.pool.release(lease)
        if twice:
            self.pool.release(lease)

    @rule(later=LATER, tokens=TOKENS)
    def replace(self, later: float, tokens: list[Credential]) -> None:
        self.now += later
        self.pool.replace(tokens)
        old = self.known
        self.known = {new.id: old.get(new.id) or Known(new) for new in tokens}
        for key in old.keys() - self.known.keys():
            old[key].gone = True

    @precondition(lambda self: self.known)
    @rule(later=LATER, number=ANY, how=st.sampled_from(["disable", "enable", "reset", "set_aside"]))
    def by_hand(self, later: float, number: int, how: str) -> None:
        self.now += later
        index, known = self.some(number)
        match how:
            case "disable":
                self.pool.disable(index)
                known.turn_off(BY_HAND)
            case "enable":
                self.pool.enable(index)
                known.off = ""
                known.forget()
            case "reset":
                self.pool.reset(index)
                known.forget()
            case "set_aside":
                self.pool.set_aside(known.credential.id, "bad")
                if not known.off:
                    known.turn_off("bad")

    @rule(later=LATER)
    def reset_all(self, later: float) -> None:
        self.now += later
        self.pool.reset_all()
        self.streak.clear()
        for known in self.known.values():
            known.forget()

    @rule(later=LATER, tokens=st.permutations(UNIVERSE))
    def restart(self, later: float, tokens: list[Credential]) -> None:
        self.now += later
        kept = msgspec.json.decode(msgspec.json.encode(self.pool.health()), type=list[Health])
        self.make(tokens)
        self.pool.restore(kept, self.now)
        self.leases.clear()
        self.streak.clear()
        old = self.known
        self.known = {new.id: old.get(new.id) or Known(new) for new in tokens}
        for known in self.known.values():
            known.running = 0

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        found = self.pool.snapshot(self.now)
        assert [member.credential.id for member in found] == list(self.known)
        for index, (member, known) in enumerate(zip(found, self.known.values(), strict=True)):
            assert (member.index, self.pool.member(index)) == (index, member)
            assert self.pool.of(member.credential.id) is member
            assert member.state == self.state(known)
            assert (member.failures, member.limits, member.in_flight) == (known.failures, known.limits, known.running)
            assert not self.cap or member.in_flight <= self.cap
            if member.state == "cooling":
                assert member.available_at == known.until
        counts = Counter(member.state for member in found)
        summary = self.pool.summary(self.now)
        assert summary.total == len(self.pool) == len(found)
        assert (summary.active, summary.cooling) == (counts["active"], counts["cooling"])
        assert (summary.disabled, summary.expired) == (counts["disabled"], counts["expired"])
        assert summary.in_flight == len(self.leases)
        assert self.pool.consecutive_failures == len(self.streak)
        expiries = [member.credential.expires_at for member in found if member.state != "expired"]
        assert self.pool.next_expiry() == min((at for at in expiries if at is not None), default=None)


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=30)
