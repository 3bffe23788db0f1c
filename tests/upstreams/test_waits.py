"""How long an upstream asks us to wait, in each way that servers say it."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from k2think.upstreams.waits import WEEK, parse_retry_after, wait_in, wait_of

NOW = 1_800_000_000.0


def headers(**named: str) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in named.items()}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 1.5 ", 1.5),
        ("0", 0),
        ("1s", 1),
        ("250ms", 0.25),
        ("6m0s", 360),
        ("1h2m3.5s", 3723.5),
        ("2d", 172800),
        ("100µs", 0.0001),
        ("2 minutes", 120),
        (str(int(NOW) + 30), 30),
        (str(int(NOW * 1000) + 1500), 1.5),
        (str(int(NOW) - 30), 0),
        ("2027-01-15T08:00:30Z", 30),
        ("2027-01-15T08:00:30", 30),
        ("2027-01-15T10:00:30.5+02:00", 30.5),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30),
        ("Fri, 15 Jan 2027 10:00:30 +0200", 30),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0),
        ("999999999", WEEK),
        ("9999-12-31T00:00:00Z", WEEK),
    ],
)
def test_a_wait_is_read_in_each_form(value: str, seconds: float) -> None:
    assert parse_retry_after(value, NOW) == pytest.approx(seconds, abs=1e-4)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-1",
        "-0.5s",
        "１",
        "nan",
        "inf",
        "1e3",
        "1s1s",
        "5 models",
        "3m tail",
        "Fri, 99 Foo 2027 08:00:30 GMT",
        "Fri, 15 Jan 2027 08:00:30 GMT" + " x" * 40,
        "9" * 65,
        None,
    ],
)
def test_what_is_no_wait_says_nothing(value: str | None) -> None:
    assert parse_retry_after(value, NOW) is None


def test_a_date_is_read_as_servers_write_it() -> None:
    then = format_datetime(datetime.fromtimestamp(NOW + 30, UTC), usegmt=True)
    assert parse_retry_after(then, NOW) == 30


@pytest.mark.parametrize(
    ("given_headers", "body", "seconds"),
    [
        (headers(retry_after_ms="1500", retry_after="9"), b"", 1.5),
        ({"Retry-After": "9", "X-RateLimit-Reset": "30"}, b'{"retry_after": 40}', 9),
        (headers(retry_after="soon", x_ratelimit_reset="30"), b"", 30),
        (headers(retry_after_ms="-5"), b'{"error": {"retry_after": 40}}', 40),
        (headers(ratelimit_reset="12", ratelimit_remaining="0"), b"", 12),
        ({}, b'{"error": {"message": "Try again in 20s.", "retry_after": 40}}', 40),
        ({}, b"", None),
    ],
)
def test_the_most_trusted_source_decides(given_headers: dict[str, str], body: bytes, seconds: float | None) -> None:
    assert wait_of(given_headers, body, NOW) == seconds


def test_of_the_limits_with_nothing_left_the_longest_decides() -> None:
    both = headers(x_ratelimit_reset_requests="1s", x_ratelimit_reset_tokens="6m0s")
    assert wait_of(both, b"", NOW) == 360
    one_left = headers(x_ratelimit_remaining_tokens="12", x_ratelimit_remaining_requests="0")
    assert wait_of(both | one_left, b"", NOW) == 1
    assert (
        wait_of(both | headers(x_ratelimit_remaining_tokens="5", x_ratelimit_remaining_requests="1"), b"", NOW) is None
    )
    by_day = headers(x_ratelimit_reset_tokens_day="3600", x_ratelimit_remaining_tokens_day="0")
    assert wait_of(both | by_day, b"", NOW) == 3600


def test_headers_that_only_look_like_a_reset_are_no_wait() -> None:
    assert wait_of(headers(x_ratelimit_limit_requests="60", x_reset="9", x_ratelimit_remaining="0"), b"", NOW) is None


@pytest.mark.parametrize(
    ("found", "seconds"),
    [
        ({"retry_after": 3}, 3),
        ({"error": {"retryAfter": "2.5"}}, 2.5),
        ({"error": {"retry_after_ms": 700}}, 0.7),
        ({"error": {"retry_after": NOW + 8}}, 8),
        ({"detail": {"retry_after": "1m"}}, 60),
        ({"error": {"code": 429, "details": [{"@type": "x"}, {"@type": "RetryInfo", "retryDelay": "30s"}]}}, 30),
        ({"error": {"metadata": {"retry_after": 4}}}, 4),
        ({"error": "Please try again in 20s."}, 20),
        ({"error": {"message": "Limit 10, used 10. Please try again in 1m30s. See https://example.com."}}, 90),
        ({"detail": "Please retry after 12 seconds."}, 12),
        ({"detail": "Rate limit exceeded. Try\tagain in 2 hours and 1 minute."}, 7260),
        ({"detail": "Please wait 500ms."}, 0.5),
        ({"detail": "Please try again in a few seconds, or retry in 5s"}, 5),
        ("try again in 3 s", 3),
        ({"retry_after": True}, None),
        ({"retry_after": -3}, None),
        ({"retry_after": None, "error": {"retry_after": []}}, None),
        ({"retry_after": 10**400}, None),
        ({"retry_after": 1e300}, WEEK),
        ({"error": {"input": {"retry_after": 3}}}, None),
        ({"error": "Try 3 times, then again in 2 models; retry 4 messages."}, None),
        ({"usage": 12}, None),
        (None, None),
    ],
)
def test_a_body_says_it_in_fields_or_in_a_sentence(found: Any, seconds: float | None) -> None:
    assert wait_in(found, NOW) == seconds


def test_without_a_clock_spans_count_and_dates_do_not() -> None:
    assert wait_in({"retry_after": 5}) == 5
    assert wait_in({"retry_after": NOW, "error": "Try again in 6s."}) == 6


def test_a_body_that_is_no_json_may_hold_a_sentence() -> None:
    assert wait_of({}, b"<html><p>Too many requests. Please try again in 5 minutes.</p></html>", NOW) == 300
    assert wait_of({}, b"\xff Retry after 5 sec", NOW) == 5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "details", "retry_after", "retryDelay", "retry_after_ms", "x"]), inner
        )
    ),
    max_leaves=10,
)
wordings = st.lists(
    st.sampled_from(
        ["try again in ", "retry after ", "1", "20", "9" * 30, ".", "s", "ms", "m", " ", ",", " and ", "-", ":"]
    )
    | st.characters(codec="utf-8"),
    max_size=15,
).map("".join)
dates = st.datetimes().map(datetime.isoformat) | st.datetimes(timezones=st.just(UTC)).map(format_datetime)
names = st.sampled_from(
    ["retry-after-ms", "Retry-After", "x-ratelimit-reset-tokens", "x-ratelimit-remaining-tokens", "x"]
)


@given(
    st.dictionaries(names, wordings | dates),
    st.binary(max_size=50) | json_values.map(lambda found: json.dumps(found).encode()) | wordings.map(str.encode),
    st.floats(),
)
@example({}, b"[" * 60_000, 0.0)
@example({}, b'{"error":' * 7_000 + b"1" + b"}" * 7_000, 0.0)
@example({}, b'{"retry_after":' + b"9" * 5_000 + b"}", 0.0)
def test_whatever_an_upstream_says_the_wait_is_sane(named: dict[str, str], body: bytes, now: float) -> None:
    wait = wait_of(named, body, now)
    assert wait is None or 0 <= wait <= WEEK


@pytest.mark.parametrize(
    "piece", ["try again in ", "try again in 1", "try again in 1m", "1m1s", "9", " ", ", and ", '{"error":[', "wait\t"]
)
def test_a_hostile_body_is_read_in_a_moment(piece: str) -> None:
    body = (piece * (64 * 1024 // len(piece))).encode()
    started = time.process_time()
    for form in (body, b'{"error":"' + body.replace(b'"', b"").replace(b"\t", b" ") + b'"}'):
        wait_of({"retry-after": body.decode()}, form, NOW)
    assert time.process_time() - started < 1  # linear: some milliseconds; quadratic: minutes
