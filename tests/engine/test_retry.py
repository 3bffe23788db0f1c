"""What is tried again, and how often."""

from __future__ import annotations

import pytest

from k2think import errors
from k2think.engine.retry import FIRST_PAUSE, MAX_TOKENS, RETRY_RESERVE, Again, Retries, RetryBudget


@pytest.mark.parametrize("kind", [errors.CredentialRejected, errors.QuotaExceeded])
def test_a_refused_token_gives_way_to_the_next_at_once_up_to_sixteen(kind: type[errors.UpstreamError]) -> None:
    retries = Retries(RetryBudget(0))
    for number in range(MAX_TOKENS - 1):
        assert retries.decide(kind("x"), f"token-{number}") == Again()
    assert retries.decide(kind("x"), "the last") is None
    # A limited token has its rest to keep it away; the rejected ones must not be tried again.
    assert ("token-3" in retries.tried) is (kind is errors.CredentialRejected)


@pytest.mark.parametrize("kind", [errors.UpstreamUnavailable, errors.UpstreamTimeout, errors.EdgeBlocked])
def test_an_upstream_failure_is_tried_three_times_with_growing_pauses(kind: type[errors.UpstreamError]) -> None:
    retries = Retries(RetryBudget(0))
    first, second, third = (retries.decide(kind("x"), "t") for _ in range(3))
    assert first is not None
    assert second is not None
    assert FIRST_PAUSE / 2 <= first.after <= FIRST_PAUSE <= second.after <= 2 * FIRST_PAUSE
    assert third is None
    assert not retries.tried


def test_refused_tokens_use_up_none_of_the_attempts() -> None:
    retries = Retries(RetryBudget(0))
    for number in range(5):
        retries.decide(errors.CredentialRejected("x"), str(number))
    assert retries.decide(errors.UpstreamUnavailable("x"), "t") is not None
    assert retries.decide(errors.UpstreamUnavailable("x"), "t") is not None


def test_a_queued_task_and_an_unknown_model_are_tried_once_more() -> None:
    retries = Retries(RetryBudget(0))
    assert retries.decide(errors.TaskAccepted("x"), "t") == Again()
    assert retries.decide(errors.TaskAccepted("x"), "t") is None
    assert retries.decide(errors.UpstreamModelUnknown("x"), "t") == Again(rediscover=True)
    assert retries.decide(errors.UpstreamModelUnknown("x"), "t") is None


def test_a_refused_request_is_never_repeated() -> None:
    assert Retries(RetryBudget(0)).decide(errors.RequestRefused("x"), "t") is None


def test_of_all_requests_a_fifth_may_be_repeated_because_the_upstream_failed() -> None:
    budget = RetryBudget(0.0)
    spent = 0
    for _ in range(1000):
        budget.earn(0.0)
        spent += Retries(budget).decide(errors.UpstreamUnavailable("x"), "t") is not None
    assert RETRY_RESERVE + 190 <= spent <= RETRY_RESERVE + 210
    assert Retries(budget).decide(errors.CredentialRejected("x"), "t") == Again()  # no burden on a service that is well
    budget.earn(10.0)
    assert [budget.spend() for _ in range(12)].count(True) in {10, 11}
    budget.earn(1e6)
    assert [budget.spend() for _ in range(100)].count(True) == RETRY_RESERVE
