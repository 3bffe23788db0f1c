"""Signing many accounts in: all of them, a few at a time, and not against a service that is down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from k2think.credentials.credential import Account, Credential
from k2think.credentials.signing_in import GIVE_UP_AFTER, Outcome, sign_in_all
from k2think.errors import QuotaExceeded, SignInRefused, UpstreamError, UpstreamTimeout, UpstreamUnavailable

DOWN = UpstreamUnavailable("It is down.")
REFUSED = SignInRefused("Wrong password.")
LIMITED = QuotaExceeded("Slow down.")


def accounts(count: int) -> list[Account]:
    return [Account(f"{number}@example.com", "password") for number in range(count)]


def number_of(account: Account) -> int:
    return int(account.email.split("@")[0])


class Door:
    """A login that answers as told, later accounts of a batch first, and knows how many were there at once."""

    def __init__(self, answer: Callable[[int], UpstreamError | None] = lambda _: None) -> None:
        self._answer = answer
        self._inside = 0
        self.most = 0
        self.tried: list[int] = []

    async def sign_in(self, account: Account) -> str:
        number = number_of(account)
        self.tried.append(number)
        self._inside += 1
        self.most = max(self.most, self._inside)
        for _ in range(7 - number % 7):
            await asyncio.sleep(0)
        self._inside -= 1
        if error := self._answer(number):
            raise error
        return f"token-{number}"

    async def verify(self, credential: Credential) -> None:
        raise NotImplementedError


def sign_in(door: Door, count: int, workers: int = 1) -> list[Outcome]:
    """Sign in; each that was tried must have been told of once."""
    told: list[Outcome] = []
    outcomes = asyncio.run(sign_in_all(door, accounts(count), workers=workers, told=told.append))
    tried = [outcome for outcome in outcomes if outcome.credential or outcome.error]
    assert sorted(told, key=lambda outcome: number_of(outcome.account)) == tried
    return outcomes


def errors(outcomes: list[Outcome]) -> list[UpstreamError | None]:
    return [outcome.error for outcome in outcomes]


@pytest.mark.parametrize("workers", [1, 3, 50])
def test_outcomes_come_in_the_order_of_the_accounts_and_never_too_many_at_once(workers: int) -> None:
    door = Door(lambda number: REFUSED if number % 4 == 3 else None)
    outcomes = sign_in(door, 20, workers)
    assert [outcome.account for outcome in outcomes] == accounts(20)
    for number, outcome in enumerate(outcomes):
        good = Outcome(outcome.account, credential=Credential.of(f"token-{number}"))
        assert outcome == (Outcome(outcome.account, error=REFUSED) if number % 4 == 3 else good)
    assert door.most == min(workers, 20)
    assert sorted(door.tried) == list(range(20))


def test_nobody_is_signed_in_where_there_is_nobody() -> None:
    assert sign_in(Door(), 0) == []


@pytest.mark.parametrize("error", [DOWN, UpstreamTimeout("Silence."), UpstreamError("?")])
def test_a_service_that_fails_five_times_in_a_row_is_left_alone(error: UpstreamError) -> None:
    door = Door(lambda _: error)
    found = errors(sign_in(door, 12))
    assert door.tried == list(range(GIVE_UP_AFTER))
    assert found[:GIVE_UP_AFTER] == [error] * GIVE_UP_AFTER
    assert found[GIVE_UP_AFTER:] == [None] * (12 - GIVE_UP_AFTER)


def test_with_several_workers_no_more_than_are_under_way_are_tried_in_vain() -> None:
    door = Door(lambda _: DOWN)
    sign_in(door, 50, workers=4)
    assert len(door.tried) <= GIVE_UP_AFTER + 3


@pytest.mark.parametrize("error", [REFUSED, LIMITED])
def test_wrong_passwords_and_limits_spare_nobody(error: UpstreamError) -> None:
    door = Door(lambda _: error)
    assert errors(sign_in(door, 12)) == [error] * 12
    assert len(door.tried) == 12


@pytest.mark.parametrize("between", [None, REFUSED, LIMITED])
def test_failures_that_are_not_in_a_row_spare_nobody(between: UpstreamError | None) -> None:
    door = Door(lambda number: between if number % GIVE_UP_AFTER == 4 else DOWN)
    sign_in(door, 20)
    assert len(door.tried) == 20


def test_told_hears_of_each_as_it_comes() -> None:
    heard: list[tuple[int, int]] = []
    door = Door()

    def told(outcome: Outcome) -> None:
        heard.append((number_of(outcome.account), len(door.tried)))

    asyncio.run(sign_in_all(door, accounts(3), workers=1, told=told))
    assert heard == [(0, 1), (1, 2), (2, 3)]
