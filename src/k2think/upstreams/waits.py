"""How long a refusing upstream asks us to wait. Pure.

Servers say it in many ways, and often in several at once. The most trusted first; what can be read first decides:

    retry-after-ms         milliseconds
    retry-after            seconds or a date
    x-ratelimit-reset-…    of the limits that have nothing left, the one that lasts longest
    the body's fields      `retry_after`, `retryDelay` and their like
    the body's sentences   "Please try again in 1m30s."

All of it is written by others: each reading is bounded, and what makes no sense says nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

WEEK = 7 * 86400.0
"""Seconds; a longer wait counts as this one."""

MAX_VALUE = 64
"""Characters of a header or field; what is longer is neither a number nor a date."""

_EPOCH = 1e9
_EPOCH_MILLISECONDS = 1e11
"""From here on a number is no span but a date (a span would last 30 years): Unix seconds, or milliseconds."""

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?")
_HTTP_DATE = re.compile(
    r"[A-Z][a-z]{2}, [0-9]{1,2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} (?:GMT|UTC|[+-][0-9]{4})"
)
_PIECE = re.compile(r"(?:,? (?:and )?)?([0-9]{1,12}(?:\.[0-9]{1,12})?) ?([a-zµ]{1,12})", re.IGNORECASE)
_UNITS = {
    **dict.fromkeys(("ns", "nanosecond"), 1e-9),
    **dict.fromkeys(("us", "µs", "microsecond"), 1e-6),
    **dict.fromkeys(("ms", "msec", "millisecond"), 1e-3),
    **dict.fromkeys(("s", "sec", "second"), 1.0),
    **dict.fromkeys(("m", "min", "minute"), 60.0),
    **dict.fromkeys(("h", "hr", "hour"), 3600.0),
    **dict.fromkeys(("d", "day"), 86400.0),
}
_SENTENCE = re.compile(r"\b(?:try\sagain|retry|wait)\s(?:in\s|after\s|for\s)?(?=[0-9])", re.IGNORECASE)

_FIELDS = ("retry_after", "retryAfter", "retry_after_seconds", "retry_delay", "retryDelay")
_MILLISECOND_FIELDS = ("retry_after_ms", "retryAfterMs")
_NESTING = ("error", "errors", "detail", "details", "metadata", "message")
"""Where an error has its inner parts; an error that repeats a request is not to be searched through."""
_DEPTH = 6
_WIDTH = 64
"""Objects and texts looked at on each level."""


def wait_of(headers: Mapping[str, str], body: bytes, now: float) -> float | None:
    """Seconds that an error answer asks us to wait, 0 to `WEEK`; None where it does not say. `now` in Unix seconds."""
    named = {name.lower(): value for name, value in headers.items()}
    wait = _milliseconds(named.get("retry-after-ms"))
    if wait is None:
        wait = parse_retry_after(named.get("retry-after"), now)
    if wait is None:
        wait = _longest_reset(named, now)
    if wait is not None:
        return wait
    try:
        return wait_in(msgspec.json.decode(body), now)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _in_sentence(body.decode("utf-8", "replace"))


def wait_in(found: Any, now: float = math.nan) -> float | None:
    """Seconds that a decoded error asks us to wait, as `wait_of`. Without a clock, its dates say nothing."""
    places = list(_places(found))
    for place in places:
        if isinstance(place, dict) and (wait := _in_fields(place, now)) is not None:
            return wait
    sentences = (_in_sentence(place) for place in places if isinstance(place, str))
    return next((wait for wait in sentences if wait is not None), None)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait, from a `Retry-After` or what other headers and fields have in its place; None: unreadable.

    Seconds (`20`, `1.5`), a span (`1h2m3.5s`, `250ms`), Unix time, an HTTP or ISO date. A time that is over gives 0.
    """
    if value is None:
        return None
    value = value.strip()
    if len(value) > MAX_VALUE:
        return None
    if _NUMBER.fullmatch(value):
        return _of_number(float(value), now)
    wait, end = _span(value, 0)
    return _bounded(wait) if end == len(value) > 0 else _until(value, now)


def _longest_reset(named: Mapping[str, str], now: float) -> float | None:
    waits = [
        parse_retry_after(value, now)
        for name, value in named.items()
        if "ratelimit-" in name
        and "reset" in name.split("-")
        and not _some_left(named.get(name.replace("reset", "remaining")))
    ]
    return max((wait for wait in waits if wait is not None), default=None)


def _some_left(remaining: str | None) -> bool:
    remaining = (remaining or "").strip()
    return len(remaining) <= MAX_VALUE and _NUMBER.fullmatch(remaining) is not None and float(remaining) > 0


def _places(found: Any) -> Iterator[Any]:
    """The objects and texts of an error, the outermost first."""
    level = [found]
    for _ in range(_DEPTH):
        inner: list[Any] = []
        for place in level[:_WIDTH]:
            yield place
            if isinstance(place, dict):
                inner += [place[name] for name in _NESTING if name in place]
            elif isinstance(place, list):
                inner += place[:_WIDTH]
        level = inner


def _in_fields(place: dict[str, Any], now: float) -> float | None:
    for name in _MILLISECOND_FIELDS:
        if (wait := _milliseconds(place.get(name))) is not None:
            return wait
    for name in _FIELDS:
        value = place.get(name)
        wait = parse_retry_after(value, now) if isinstance(value, str) else _of_number(_plain(value), now)
        if wait is not None:
            return wait
    return None


def _in_sentence(text: str) -> float | None:
    for found in _SENTENCE.finditer(text):
        wait, end = _span(text, found.end())
        if end > found.end():
            return _bounded(wait)
    return None


def _span(text: str, start: int) -> tuple[float, int]:
    """The seconds of a span like `1m30.5s` or `2 minutes and 5 seconds`, and where it ends: at its start if it is none.

    Each unit is smaller than the one before, so whatever the text, a few pieces are all.
    """
    total, end, last = 0.0, start, math.inf
    while piece := _PIECE.match(text, end):
        word = piece[2].lower()
        unit = _UNITS.get(word) or _UNITS.get(word.removesuffix("s"))
        if unit is None or unit >= last:
            break
        total, end, last = total + float(piece[1]) * unit, piece.end(), unit
    return total, end


def _until(text: str, now: float) -> float | None:
    try:
        date = parsedate_to_datetime(text) if _HTTP_DATE.fullmatch(text) else datetime.fromisoformat(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return _bounded(date.timestamp() - now)


def _milliseconds(value: Any) -> float | None:
    if isinstance(value, str):
        value = value.strip()
        value = float(value) if len(value) <= MAX_VALUE and _NUMBER.fullmatch(value) else None
    number = _plain(value)
    return None if number < 0 else _bounded(number / 1000)


def _of_number(number: float, now: float) -> float | None:
    if number < 0:
        return None
    if number >= _EPOCH_MILLISECONDS:
        number /= 1000
    return _bounded(number - now if number >= _EPOCH else number)


def _plain(value: Any) -> float:
    """A JSON number; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _bounded(wait: float) -> float | None:
    return min(max(wait, 0.0), WEEK) if math.isfinite(wait) else None
