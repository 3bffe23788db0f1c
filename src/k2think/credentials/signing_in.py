"""Signs many accounts in, a few at a time, and stops when it is the service that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from msgspec import Struct

from k2think.credentials.credential import Account, Credential, Login
from k2think.errors import QuotaExceeded, SignInRefused, UpstreamError

GIVE_UP_AFTER = 5
"""Failures of the service in a row after which the accounts that are left are spared."""


class Outcome(Struct, frozen=True):
    """What a sign-in gave: a token or an error; neither, if the account was spared."""

    account: Account
    credential: Credential | None = None
    error: UpstreamError | None = None


async def sign_in_all(
    login: Login,
    accounts: Sequence[Account],
    *,
    workers: int,
    told: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """Sign each account in once, `workers` at a time; outcomes in the order of the accounts.

    `told` hears of each as it comes.
    """
    outcomes: dict[int, Outcome] = {}
    queue = list(enumerate(accounts))[::-1]
    failures = 0

    async def work() -> None:
        nonlocal failures
        while queue:
            number, account = queue.pop()
            if failures >= GIVE_UP_AFTER:
                outcomes[number] = Outcome(account)
                continue
            outcome = outcomes[number] = await _sign_in(login, account)
            of_the_service = outcome.error and not isinstance(outcome.error, SignInRefused | QuotaExceeded)
            failures = failures + 1 if of_the_service else 0
            told(outcome)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(workers, len(accounts))):
            group.create_task(work())
    return [outcomes[number] for number in range(len(accounts))]


async def _sign_in(login: Login, account: Account) -> Outcome:
    try:
        return Outcome(account, credential=Credential.of(await login.sign_in(account)))
    except UpstreamError as error:
        error.hide(account.password)
        error.hide(account.email, account.masked())
        return Outcome(account, error=error)
