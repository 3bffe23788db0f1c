"""The pool: every way from state to state, why it has no token to give, and whose turn it is."""

from __future__ import annotations

import base64
import random
from collections import Counter
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2think.credentials.cooldown import (
    FIRST_COOLDOWN,
    JITTER,
    MAX_COOLDOWN,
    MAX_UNTOLD_COOLDOWN,
    MIN_COOLDOWN,
)
from k2think.credentials.credential import Credential
from k2think.credentials.health import Health, UnknownToken
from k2think.credentials.pool import BY_HAND, Lease, Pool
from k2think.credentials.rotation import LOAD_BOUND, State, Strategy
from k2think.errors import (
    CredentialRejected,
    EdgeBlocked,
    NoCredential,
    QuotaExceeded,
    RequestRefused,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)

A, B, C = (Credential(name, f"secret-{name}") for name in "abc")
MANY = tuple(Credential.of(f"token {number}") for number in range(24))
REJECTED = CredentialRejected("no")


class NoJitter(random.Random):
    """Cooldowns are then as long as they say."""

    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002
        return a


def pool(*credentials: Credential, strategy: Strategy = "round_robin", cap: int = 0) -> Pool:
    return Pool(credentials, max_failures=3, max_concurrency=cap, strategy=strategy, randomness=NoJitter())


def turn(of: Pool, times: int, now: float = 0) -> str:
    """Lease and give back so many times; the ids."""
    ids = ""
    for _ in range(times):
        lease = of.lease(now)
        of.release(lease)
        ids += lease.credential.id
    return ids


def one(of: Pool, credential: Credential, now: float = 0) -> Lease:
    """Lease just this one."""
    return of.lease(now, {other.id for other in of.credentials()} - {credential.id})


def reject(of: Pool, credential: Credential, times: int = 1, now: float = 0) -> None:
    for _ in range(times):
        lease = one(of, credential, now)
        of.failed(lease, REJECTED, now)
        of.release(lease)


def limit(of: Pool, credential: Credential, seconds: float | None, now: float = 0) -> None:
    lease = one(of, credential, now)
    of.failed(lease, QuotaExceeded("slow", retry_after=seconds), now)
    of.release(lease)


def states(of: Pool, now: float = 0) -> list[State]:
    return [member.state for member in of.snapshot(now)]


def none_at(of: Pool, now: float = 0, skip: Iterable[str] = ()) -> NoCredential:
    with pytest.raises(NoCredential) as none:
        of.lease(now, set(skip))
    return none.value


# Each transition


def test_tokens_are_used_in_turn_and_one_that_was_tried_is_not_given_again() -> None:
    turning = pool(A, B, C)
    assert turn(turning, 7) == "abcabca"
    assert {turning.lease(0, {A.id, C.id}).credential for _ in range(3)} == {B}
    refused = none_at(turning, 0, "abc")
    assert (refused.status, refused.retry_after, refused.busy) == (503, None, False)
    assert "every token that was tried" in refused.message


def test_rejections_in_a_row_disable_a_token_and_a_success_clears_them() -> None:
    turning = pool(A, B)
    reject(turning, A, 2)
    assert turning.succeeded(one(turning, A))
    assert not turning.succeeded(one(turning, A))
    reject(turning, A, 2)
    assert states(turning) == ["active", "active"]
    reject(turning, A)
    assert states(turning) == ["disabled", "active"]
    assert turning.member(0).reason == "rejected 3 times in a row"
    assert turn(turning, 2) == "bb"


@pytest.mark.parametrize(
    "error", [UpstreamUnavailable("x"), UpstreamTimeout("x"), EdgeBlocked("x"), RequestRefused("x")]
)
def test_what_is_not_the_tokens_fault_changes_nothing(error: UpstreamError) -> None:
    turning = pool(A)
    for _ in range(10):
        turning.failed(turning.lease(0), error, 0)
    assert (states(turning), turning.member(0).failures, turning.consecutive_failures) == (["active"], 0, 0)
    assert turning.health() == []
    assert turning.member(0).last_error == error.code


def test_a_blameless_rejection_is_not_counted() -> None:
    turning = pool(A)
    turning.failed(turning.lease(0), REJECTED, 0, blameless=True)
    assert (turning.member(0).failures, turning.consecutive_failures) == (0, 0)


def test_a_limited_token_rests_as_long_as_it_was_told_the_longest_counts() -> None:
    turning = pool(A, B)
    leases = [one(turning, A) for _ in range(3)]
    for lease, seconds in zip(leases, (10, 20, 5), strict=True):
        turning.failed(lease, QuotaExceeded("x", retry_after=seconds), 0)
    assert turn(turning, 2, 19.9) == "bb"
    assert sorted(turn(turning, 2, 20)) == ["a", "b"]


def test_an_untold_rest_doubles_up_to_a_bound_until_a_success() -> None:
    turning = pool(A)
    now, rests = 0.0, []
    for _ in range(7):
        limit(turning, A, None, now)
        rests.append(turning.member(0).available_at - now)
        now = turning.member(0).available_at
    assert rests == [FIRST_COOLDOWN, 60, 120, 240, 480, MAX_UNTOLD_COOLDOWN, MAX_UNTOLD_COOLDOWN]
    turning.succeeded(turning.lease(now))
    limit(turning, A, None, now)
    assert turning.member(0).available_at == now + FIRST_COOLDOWN


@pytest.mark.parametrize(("told", "rest"), [(0, MIN_COOLDOWN), (-5, MIN_COOLDOWN), (7, 7), (10**9, MAX_COOLDOWN)])
def test_what_the_upstream_says_of_a_rest_is_believed_within_bounds(told: float, rest: float) -> None:
    turning = pool(A)
    limit(turning, A, told)
    assert turning.member(0).available_at == rest


def test_tokens_limited_together_come_back_apart_and_none_too_early() -> None:
    turning = Pool(MANY, max_failures=3, randomness=random.Random(1))
    for credential in MANY:
        limit(turning, credential, 100)
    rests = {member.available_at for member in turning.snapshot(0)}
    assert len(rests) == len(MANY)
    assert all(100 <= rest <= 100 * (1 + JITTER) for rest in rests)


@pytest.mark.parametrize("bad", ["active", "cooling", "disabled"])
def test_an_expired_token_is_never_used_again(bad: State) -> None:
    mortal = Credential("m", "secret-m", expires_at=100)
    turning = pool(A, mortal)
    lease = one(turning, mortal)
    if bad == "cooling":
        limit(turning, mortal, 500)
    elif bad == "disabled":
        turning.disable(1)
    assert turning.next_expiry() == 100
    assert states(turning, 99.9) == ["active", bad]
    assert states(turning, 100) == ["active", "expired"]
    assert turning.next_expiry() is None
    for _ in range(3):
        turning.failed(lease, REJECTED, 101)
    turning.restore([Health("m", disabled="long ago")], 101)
    turning.disable(1)
    turning.set_aside("m", "bad")
    turning.enable(1)
    turning.reset_all()
    turning.release(lease)
    assert states(turning, 102) == ["active", "expired"]
    assert turn(turning, 3, 103) == "aaa"


def test_by_hand_tokens_are_disabled_enabled_and_reset() -> None:
    turning = pool(A, B, C)
    turning.disable(0)
    reject(turning, B, 3)
    limit(turning, C, 100)
    turning.reset(0)
    turning.reset_all()
    assert (states(turning), turning.consecutive_failures) == (["disabled", "active", "active"], 0)
    assert turning.member(0).reason == BY_HAND
    turning.enable(0)
    turning.set_aside("b", "its account is bad")
    turning.set_aside("unknown", "whatever")
    assert (states(turning), turning.member(1).reason) == (["active", "disabled", "active"], "its account is bad")
    turning.reset(1)
    assert states(turning) == ["active"] * 3
    for index in (-1, 3):
        with pytest.raises(UnknownToken, match="0 to 2"):
            turning.enable(index)


def test_the_streak_counts_different_tokens_until_any_is_accepted() -> None:
    turning = pool(A, B, C)
    reject(turning, A, 2)
    assert turning.consecutive_failures == 1
    reject(turning, B)
    assert turning.consecutive_failures == 2
    assert turning.reset_consecutive() == 2
    reject(turning, A)
    turning.succeeded(one(turning, C))
    assert turning.consecutive_failures == 0


def test_no_more_requests_than_a_token_may_carry_and_giving_back_twice_is_once() -> None:
    turning = pool(A, B, cap=2)
    leases = [turning.lease(0) for _ in range(4)]
    busy = none_at(turning)
    assert (busy.busy, busy.status, busy.retry_after) == (True, 429, 1)
    turning.release(leases[0])
    turning.release(leases[0])
    assert turning.lease(0).credential == leases[0].credential
    assert none_at(turning).busy
    assert turning.summary(0).in_flight == 4


# Why there is none


def test_an_empty_pool_and_a_dead_one_say_so() -> None:
    assert "no upstream token" in none_at(pool()).message
    dead = pool(A)
    reject(dead, A, 3)
    assert "Of 1: 1 disabled" in none_at(dead).message
    assert none_at(dead).retry_after is None


def test_when_all_rest_the_error_says_for_how_long() -> None:
    turning = pool(A, B)
    limit(turning, A, 30)
    limit(turning, B, 10.5)
    none = none_at(turning, 4)
    assert (none.status, none.retry_after, none.headers, none.busy) == (429, 6.5, {"retry-after": "7"}, False)
    turning.disable(1)
    turning.enable(1)
    limit(turning, B, 100, 4)
    assert none_at(turning, 4).retry_after == 26


def test_who_has_tried_the_ready_ones_waits_for_the_others() -> None:
    turning = pool(A, B, C, cap=1)
    held = one(turning, B)
    assert none_at(turning, 0, "ac").busy
    turning.release(held)
    limit(turning, B, 10)
    limit(turning, C, 5)
    assert none_at(turning, 0, "a").retry_after == 5
    assert none_at(turning, 0, "ac").retry_after == 10
    assert none_at(turning, 0, "abc").retry_after is None


# Who is in it


def test_new_tokens_leave_the_health_of_those_that_stay_and_requests_of_those_that_go() -> None:
    turning = pool(A, B)
    reject(turning, A, 3)
    gone = one(turning, B)
    turning.replace([C, A, C, A])
    assert [(member.credential, member.index) for member in turning.snapshot(0)] == [(C, 0), (A, 1)]
    assert (states(turning), turning.summary(0).in_flight) == (["active", "disabled"], 1)
    for error in (REJECTED, QuotaExceeded("x")):
        turning.failed(gone, error, 0)
    turning.release(gone)
    turning.replace([A, B])
    assert (states(turning), turning.summary(0).in_flight) == (["disabled", "active"], 0)


def test_a_change_of_tokens_does_not_begin_the_round_anew() -> None:
    turning = pool(A, B, C)
    used = ""
    for now in range(1, 7):
        used += turn(turning, 1, now)
        turning.replace([A, B, C])
    assert used == "abcabc"


def test_health_outlives_a_restart_but_no_nonsense_does() -> None:
    first = pool(A, B, C)
    reject(first, A, 3)
    limit(first, B, 100)
    first.disable(2)
    kept = msgspec.json.decode(msgspec.json.encode(first.health()), type=list[Health])
    second = pool(C, B, A)
    second.restore([*kept, Health("unknown", 1), Health("b", until=10.0**12)], 50)
    assert states(second, 50) == ["disabled", "cooling", "disabled"]
    assert second.member(1).available_at <= 50 + MAX_COOLDOWN * (1 + JITTER)
    second.reset_all()
    assert states(second, 50) == ["disabled", "active", "active"]  # by hand remains by hand


# Whose turn it is


@settings(max_examples=40)
@given(st.data(), st.integers(1, 9))
def test_in_turn_means_that_no_token_serves_two_requests_more_than_another(data: st.DataObject, size: int) -> None:
    turning = pool(*MANY[:size])
    served: Counter[str] = Counter({credential.id: 0 for credential in MANY[:size]})
    running: list[Lease] = []
    for action in data.draw(st.lists(st.sampled_from("llr"), max_size=40)):
        if action == "l":
            running.append(turning.lease(0))
            served[running[-1].credential.id] += 1
        elif running:
            turning.release(running.pop(data.draw(st.integers(0, len(running) - 1))))
        assert max(served.values()) - min(served.values()) <= 1


def home(of: Pool, affinity: bytes, now: float = 0) -> Credential:
    lease = of.lease(now, affinity=affinity)
    of.release(lease)
    return lease.credential


TALKS = [f"conversation {number}".encode() for number in range(60)]


@settings(max_examples=25)
@given(st.permutations(MANY[:8]), st.sampled_from(range(8)), st.sampled_from(["disable", "limit", "drop"]))
def test_a_conversation_stays_with_its_token_whatever_happens_to_others(
    order: list[Credential], ill: int, how: str
) -> None:
    turning = pool(*MANY[:8], strategy="sticky")
    homes = {talk: home(turning, talk) for talk in TALKS}
    assert homes == {talk: home(turning, talk) for talk in TALKS}
    assert len(set(homes.values())) > 4
    turning.replace(order)
    assert homes == {talk: home(turning, talk) for talk in TALKS}
    lost = order[ill]
    if how == "disable":
        turning.disable(ill)
    elif how == "limit":
        limit(turning, lost, 60)
    else:
        turning.replace([credential for credential in order if credential != lost])
    for talk, credential in homes.items():
        assert home(turning, talk) == credential if credential != lost else home(turning, talk) != lost


@settings(max_examples=30)
@given(st.integers(1, 12), st.lists(st.sampled_from(TALKS[:3]), max_size=60))
def test_a_busy_conversation_does_not_overload_its_token(size: int, talks: list[bytes]) -> None:
    turning = pool(*MANY[:size], strategy="sticky")
    for number, talk in enumerate(talks, start=1):
        turning.lease(0, affinity=talk)
        most = max(member.in_flight for member in turning.snapshot(0))
        assert most <= -(-LOAD_BOUND * number // size) + 1  # one more: where all its places are busy, it takes turns


def test_a_token_says_whose_it_is_and_when_it_ends_if_it_can_be_read() -> None:
    def token(payload: bytes) -> Credential:
        return Credential.of(f"head.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.mark")

    readable = token(b'{"id": "me", "exp": 1790000000, "x": [1]}')
    assert (readable.user_id, readable.expires_at) == ("me", 1790000000)
    for payload in (b"", b"{", b"[]", b'{"exp": "soon"}', b"\xff", b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}"):
        assert (token(payload).user_id, token(payload).expires_at) == (None, None)
    assert Credential.of("no.jwt").expires_at is None
