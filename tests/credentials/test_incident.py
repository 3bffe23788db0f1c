"""The breaker: what is an incident, who finds out that it is over, and when."""

from __future__ import annotations

import pytest

from k2think.credentials.incident import FIRST_PAUSE, MAX_PAUSE, MEMORY, PROBE_PATIENCE, Incident
from k2think.errors import (
    CredentialRejected,
    EdgeBlocked,
    QuotaExceeded,
    RequestRefused,
    UpstreamError,
    UpstreamIncident,
    UpstreamTimeout,
    UpstreamUnavailable,
)

DOWN = UpstreamUnavailable("It is down.")
EDGE = EdgeBlocked("A wall.")
MANY = 100  # tokens in the pool


def fail(incident: Incident, tokens: str, *, of: int = MANY, error: UpstreamError = DOWN, at: float = 0) -> list[bool]:
    """A failure with each of these tokens, a second apart; what each said."""
    return [incident.failed(error, token, of, at + second) for second, token in enumerate(tokens)]


def opened(error: UpstreamError = DOWN) -> Incident:
    """An incident since 0."""
    incident = Incident()
    fail(incident, "abcab", error=error, at=-4)
    assert incident.since == 0
    return incident


def wait(incident: Incident, now: float) -> float:
    """How long a request has to wait."""
    with pytest.raises(UpstreamIncident) as raised:
        incident.enter(now)
    error = raised.value
    assert (error.status, error.busy, error.code) == (503, True, "upstream_unavailable")
    assert error.retry_after is not None
    return error.retry_after


def test_all_is_calm_at_first_and_nobody_is_a_probe() -> None:
    incident = Incident()
    assert incident.since is None
    assert not incident.enter(0)
    assert not incident.alive()


@pytest.mark.parametrize("error", [DOWN, EDGE, UpstreamTimeout("Silence.")])
def test_five_failures_in_a_row_on_three_tokens_are_an_incident_and_say_so_once(error: UpstreamError) -> None:
    incident = Incident()
    assert fail(incident, "abcabab", error=error) == [False] * 4 + [True, False, False]
    assert incident.since == 4


@pytest.mark.parametrize(("tokens", "of"), [("aaaaa", 1), ("aaaab", 2), ("abcde", 3)])
def test_of_a_small_pool_all_tokens_are_enough(tokens: str, of: int) -> None:
    assert fail(Incident(), tokens, of=of)[-1]


@pytest.mark.parametrize(("tokens", "of"), [("a" * 20, 2), ("a" * 20, MANY), ("abababababab", 3), ("abcd", MANY)])
def test_too_few_tokens_or_failures_are_none(tokens: str, of: int) -> None:
    assert not any(fail(Incident(), tokens, of=of))


def test_a_third_token_late_in_the_row_completes_it() -> None:
    assert fail(Incident(), "aaaaaabbbc").index(True) == 9


def test_failures_of_two_kinds_are_two_stories() -> None:
    incident = Incident()
    fail(incident, "abca")
    assert not any(fail(incident, "bcab", error=EDGE, at=4))
    assert fail(incident, "c", error=EDGE, at=8) == [True]


def test_a_long_silence_between_failures_parts_them() -> None:
    incident = Incident()
    fail(incident, "abca", at=-3)
    assert not incident.failed(DOWN, "b", MANY, MEMORY + 0.1)
    together = Incident()
    fail(together, "abca", at=-3)
    assert together.failed(DOWN, "b", MANY, MEMORY)


def test_any_word_of_the_service_itself_ends_the_row() -> None:
    incident = Incident()
    fail(incident, "abca")
    assert not incident.alive()  # there was no incident to end
    assert not any(fail(incident, "bcab", at=4))


@pytest.mark.parametrize("error", [CredentialRejected("x"), QuotaExceeded("x"), RequestRefused("x")])
def test_what_the_service_says_for_itself_is_no_failure(error: UpstreamError) -> None:
    incident = Incident()
    assert not incident.is_failure(error)
    assert not any(fail(incident, "abcabc", error=error))
    assert incident.is_failure(DOWN)
    assert incident.is_failure(EDGE)


def test_after_a_pause_one_request_at_a_time_finds_out() -> None:
    incident = opened()
    assert wait(incident, 0) == FIRST_PAUSE
    assert wait(incident, FIRST_PAUSE - 0.25) == 0.25
    assert incident.enter(FIRST_PAUSE)
    assert wait(incident, FIRST_PAUSE) == PROBE_PATIENCE


def test_the_message_tells_the_failure() -> None:
    with pytest.raises(UpstreamIncident, match="A wall"):
        opened(EDGE).enter(0)


def test_the_pause_doubles_with_each_failed_probe_up_to_a_bound() -> None:
    incident = opened()
    now, pauses = 0.0, []
    for _ in range(7):
        now += wait(incident, now)
        assert incident.enter(now)
        now += 0.5
        incident.probe_failed(now)
        pauses.append(wait(incident, now))
    assert pauses == [2, 4, 8, 16, MAX_PAUSE, MAX_PAUSE, MAX_PAUSE]


def test_failures_of_others_do_not_lengthen_the_pause() -> None:
    incident = opened()
    fail(incident, "abcabc")
    fail(incident, "abcabc", error=EDGE)
    assert incident.since == 0
    assert incident.enter(FIRST_PAUSE)


def test_a_probe_that_found_out_nothing_is_followed_by_the_next_at_once() -> None:
    incident = opened()
    assert incident.enter(1)
    incident.probe_lost(2)
    assert incident.enter(2)
    assert wait(incident, 2) == PROBE_PATIENCE


def test_a_probe_that_stays_silent_is_not_waited_for_without_end() -> None:
    incident = opened()
    assert incident.enter(1)
    assert incident.enter(1 + PROBE_PATIENCE)


def test_a_sign_of_life_closes_it_and_all_begins_anew() -> None:
    incident = opened()
    incident.enter(1)
    incident.probe_failed(1)
    assert incident.alive()
    assert incident.since is None
    assert not incident.enter(1)
    assert not any(fail(incident, "abca", at=2))
    assert fail(incident, "b", at=6) == [True]
    assert wait(incident, 6) == FIRST_PAUSE


def test_late_news_of_a_probe_does_nothing_once_it_is_over() -> None:
    incident = opened()
    incident.enter(1)
    incident.alive()
    incident.probe_failed(2)
    incident.probe_lost(2)
    assert incident.since is None
    assert not incident.enter(2)
