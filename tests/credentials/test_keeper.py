"""The keeper: who waits for a token and for how long, what an incident does to them, and what is asked of renewals."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from functools import wraps

import pytest

from k2think.credentials import incident as breaker
from k2think.credentials.credential import Credential
from k2think.credentials.incident import FAILURES, Incident
from k2think.credentials.keeper import Keeper
from k2think.credentials.pool import Lease, Pool
from k2think.credentials.renewals import Renewals
from k2think.errors import (
    CredentialRejected,
    NoCredential,
    QuotaExceeded,
    RequestRefused,
    UpstreamIncident,
    UpstreamUnavailable,
)

A, B, C = (Credential(name, f"secret-{name}") for name in "abc")
REJECTED = CredentialRejected("no")
DOWN = UpstreamUnavailable("It is down.")
LONG = 240.0
"""A wait that no test sees the end of."""


def in_loop(test: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    @wraps(test)
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), LONG / 2))

    return run


@pytest.fixture(autouse=True)
def _no_pause_of_an_incident_is_over_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the machine stands still; they stay as long as they are beside each other."""
    for name in ("FIRST_PAUSE", "MAX_PAUSE", "PROBE_PATIENCE"):
        monkeypatch.setattr(breaker, name, 30 * getattr(breaker, name))


def keeper_of(*credentials: Credential, cap: int = 0, renewals: Renewals | None = None, wait: float = LONG) -> Keeper:
    pool = Pool(credentials, max_failures=3, max_concurrency=cap)
    return Keeper(pool, wait=wait, renewals=renewals, incident=Incident())


async def everybody_moves() -> None:
    """Let each task run until it truly waits: whoever has been woken gets through in a few turns of the loop."""
    for _ in range(10):
        await asyncio.sleep(0)


async def asking(keeper: Keeper, *, patience: float | None = None) -> asyncio.Task[Lease]:
    """A request that has asked and now waits, unless it was answered at once."""
    task = asyncio.create_task(keeper.lease(patience=patience))
    await everybody_moves()
    return task


def limit(keeper: Keeper, credential: Credential, rests_for: float) -> float:
    """Have the token rest for about so long from now on; gives until when."""
    lease = keeper.pool.lease(0, {other.id for other in keeper.pool.credentials()} - {credential.id})
    keeper.pool.failed(lease, QuotaExceeded("slow", retry_after=1), time.time() - 1 + rests_for)
    keeper.pool.release(lease)
    member = keeper.pool.of(credential.id)
    assert member is not None
    return member.available_at


def begin_incident(keeper: Keeper) -> None:
    """One whose first pause is over, so that the next request is the probe."""
    for number in range(FAILURES):
        keeper.incident.failed(DOWN, "abc"[number % 3], 3, time.monotonic() - 2 * breaker.FIRST_PAUSE)
    assert keeper.incident.since is not None


# Waiting for a token


@in_loop
async def test_a_token_that_is_ready_is_lent_at_once() -> None:
    assert (await keeper_of(A, wait=0).lease()).credential == A


@in_loop
async def test_a_request_waits_for_a_token_that_rests() -> None:
    keeper = keeper_of(A)
    until = limit(keeper, A, 0.05)
    lease = await keeper.lease()
    assert (lease.credential, time.time() >= until) == (A, True)


@in_loop
async def test_a_request_waits_for_a_busy_token_and_is_woken_when_it_is_given_back() -> None:
    keeper = keeper_of(A, cap=1)
    first = await keeper.lease()
    second, third = await asking(keeper), await asking(keeper)
    assert not second.done()
    keeper.release(first)
    await everybody_moves()
    assert (second.done(), third.done()) == (True, False)
    keeper.release(await second)
    await everybody_moves()
    assert third.done()


@in_loop
async def test_it_is_given_up_at_once_when_the_next_token_comes_back_too_late() -> None:
    keeper = keeper_of(A)
    until = limit(keeper, A, 120.5)
    before = time.time()
    task = await asking(keeper, patience=5)
    assert task.done()
    error = task.exception()
    assert isinstance(error, NoCredential)
    assert error.retry_after is not None
    assert until - time.time() <= error.retry_after <= until - before
    assert (error.status, error.headers) == (429, {"retry-after": str(math.ceil(error.retry_after))})


@in_loop
async def test_patience_is_the_shorter_of_the_clients_and_ours() -> None:
    for wait, patience in ((LONG, 0.05), (0.05, LONG), (0.05, None)):
        keeper = keeper_of(A, cap=1, wait=wait)
        await keeper.lease()
        with pytest.raises(NoCredential, match="busy") as none:
            await keeper.lease(patience=patience)
        assert none.value.busy


@in_loop
async def test_who_has_tried_all_tokens_is_told_so_at_once() -> None:
    with pytest.raises(NoCredential, match="every token that was tried"):
        await keeper_of(A).lease({A.id})


@in_loop
async def test_who_has_tried_the_ready_one_waits_for_the_busy_one() -> None:
    keeper = keeper_of(A, B, cap=1)
    busy = await keeper.lease({A.id})
    task = asyncio.create_task(keeper.lease({A.id}))
    await everybody_moves()
    keeper.release(busy)
    await everybody_moves()
    assert task.result().credential == B


@in_loop
async def test_a_waiter_that_goes_away_hands_its_turn_on() -> None:
    keeper = keeper_of(A, cap=1)
    first = await keeper.lease()
    gone, next_one = await asking(keeper), await asking(keeper)
    keeper.release(first)
    gone.cancel()
    await everybody_moves()
    assert gone.cancelled()
    assert next_one.result().credential == A


@in_loop
async def test_one_that_went_away_before_is_not_woken() -> None:
    keeper = keeper_of(A, cap=1)
    first = await keeper.lease()
    gone, next_one = await asking(keeper), await asking(keeper)
    gone.cancel()
    await everybody_moves()
    keeper.release(first)
    await everybody_moves()
    assert next_one.done()


@in_loop
async def test_all_that_wait_look_again_when_the_pool_was_changed() -> None:
    keeper = keeper_of(A)
    limit(keeper, A, 120)
    waiting = [await asking(keeper) for _ in range(3)]
    assert not any(task.done() for task in waiting)
    keeper.pool.enable(0)
    keeper.changed()
    await everybody_moves()
    assert {task.result().credential for task in waiting} == {A}
    assert keeper.touched.is_set()


# An incident


@in_loop
async def test_failures_of_the_service_are_an_incident_and_no_fault_of_the_tokens() -> None:
    keeper = keeper_of(A, B, C, wait=0)
    for _ in range(FAILURES):
        lease = await keeper.lease()
        keeper.failed(lease, DOWN)
        keeper.release(lease)
    assert keeper.incident.since is not None
    assert (keeper.summary().active, keeper.pool.health()) == (3, [])


@in_loop
async def test_tokens_that_are_out_of_use_do_not_hide_an_incident() -> None:
    keeper = keeper_of(A, B, C)
    keeper.pool.disable(1)
    keeper.pool.disable(2)
    for _ in range(FAILURES):
        keeper.failed(await keeper.lease(), DOWN)
    assert keeper.incident.since is not None


@in_loop
async def test_in_an_incident_others_wait_for_the_probe_and_go_on_when_it_gets_through() -> None:
    keeper = keeper_of(A, B, C)
    begin_incident(keeper)
    probe = await keeper.lease()
    others = [await asking(keeper) for _ in range(4)]
    assert probe.probe
    assert not any(task.done() for task in others)
    keeper.succeeded(probe)
    await everybody_moves()
    assert not any(task.result().probe for task in others)
    assert keeper.incident.since is None


@in_loop
async def test_when_the_probe_fails_the_others_wait_on() -> None:
    keeper = keeper_of(A, B, C)
    begin_incident(keeper)
    probe = await keeper.lease()
    other = await asking(keeper)
    keeper.failed(probe, DOWN)
    keeper.release(probe)
    await everybody_moves()
    assert not other.done()
    with pytest.raises(UpstreamIncident) as none:
        await keeper.lease(patience=0)
    assert none.value.retry_after is not None
    assert 0 < none.value.retry_after <= 2 * breaker.FIRST_PAUSE  # and not the patience with a probe
    other.cancel()


@in_loop
async def test_when_the_probe_goes_away_another_takes_its_place() -> None:
    keeper = keeper_of(A, B, C)
    begin_incident(keeper)
    probe = await keeper.lease()
    others = [await asking(keeper) for _ in range(3)]
    keeper.release(probe)
    await everybody_moves()
    assert [task.result().probe for task in others if task.done()] == [True]
    for task in others:
        task.cancel()


@in_loop
async def test_a_probe_that_finds_no_token_is_none() -> None:
    keeper = keeper_of(A, cap=1)
    busy = await keeper.lease()
    begin_incident(keeper)
    with pytest.raises(NoCredential, match="busy"):
        await keeper.lease(patience=0)
    keeper.release(busy)
    assert (await keeper.lease(patience=0)).probe


@in_loop
async def test_an_old_probe_that_ends_does_not_shorten_the_next_incident() -> None:
    keeper = keeper_of(A, B, C)
    begin_incident(keeper)
    old = await keeper.lease()
    keeper.succeeded(old)
    begin_incident(keeper)
    new = await keeper.lease()
    keeper.release(old)
    assert new.probe
    with pytest.raises(UpstreamIncident) as none:
        await keeper.lease(patience=0)
    assert none.value.retry_after is not None
    assert none.value.retry_after > 1


@in_loop
async def test_nobody_is_blamed_in_an_incident_and_a_word_of_the_service_ends_it() -> None:
    for error in (REJECTED, RequestRefused("bad")):
        renewals = Renewals()
        keeper = keeper_of(A, B, C, renewals=renewals)
        lease = await keeper.lease()
        begin_incident(keeper)
        keeper.failed(lease, error)
        assert keeper.incident.since is None
        assert keeper.pool.member(0).failures == 0
        assert not renewals.asked.is_set()
        keeper.failed(lease, error)
        assert keeper.pool.member(0).failures == (error is REJECTED)


# What is asked of renewals


async def fail_with_two(keeper: Keeper) -> None:
    for _ in range(2):
        lease = await keeper.lease()
        keeper.failed(lease, REJECTED)
        keeper.release(lease)


@in_loop
async def test_two_tokens_rejected_in_a_row_ask_once_for_new_ones_of_all() -> None:
    renewals = Renewals()
    keeper = keeper_of(A, B, C, renewals=renewals)
    lease = await keeper.lease()
    keeper.failed(lease, REJECTED)
    keeper.failed(lease, REJECTED)
    assert renewals.taken() == (None, (A,))
    await fail_with_two(keeper)
    assert renewals.asked.is_set()
    assert renewals.taken() == ("consecutive failures", (B, C))
    assert renewals.taken() == (None, ())
    assert not renewals.asked.is_set()


@in_loop
async def test_a_success_between_them_or_a_pool_of_two_asks_for_less() -> None:
    for credentials, succeed in (((A, B), False), ((A, B, C), True)):
        renewals = Renewals()
        keeper = keeper_of(*credentials, renewals=renewals)
        leases = [await keeper.lease() for _ in credentials]
        keeper.failed(leases[0], REJECTED)
        if succeed:
            keeper.succeeded(leases[-1])
        keeper.failed(leases[1], REJECTED)
        assert renewals.taken() == (None, (A, B))


@in_loop
async def test_what_is_no_rejection_asks_for_nothing() -> None:
    renewals = Renewals()
    keeper = keeper_of(A, B, C, renewals=renewals)
    for error in (DOWN, QuotaExceeded("slow"), RequestRefused("bad")):
        keeper.failed(await keeper.lease(), error)
    assert not renewals.asked.is_set()
    assert keeper.touched.is_set()


@in_loop
async def test_new_tokens_under_way_are_waited_for_as_long_as_they_are() -> None:
    renewals = Renewals()
    keeper = keeper_of(renewals=renewals)
    task = await asking(keeper)
    assert isinstance(task.exception(), NoCredential)
    renewals.under_way = True
    lucky = await asking(keeper)
    assert not lucky.done()
    keeper.pool.replace([A])
    keeper.changed()
    await everybody_moves()
    assert lucky.result().credential == A
    keeper.pool.replace([])
    unlucky = await asking(keeper)
    assert not unlucky.done()
    renewals.under_way = False
    renewals.taken()
    keeper.look_again()
    await everybody_moves()
    assert isinstance(unlucky.exception(), NoCredential)


@in_loop
async def test_a_success_is_worth_keeping_only_if_it_changes_something() -> None:
    keeper = keeper_of(A)
    lease = await keeper.lease()
    keeper.succeeded(lease)
    assert not keeper.touched.is_set()
    keeper.failed(lease, REJECTED)
    keeper.touched.clear()
    keeper.succeeded(lease)
    assert keeper.touched.is_set()
