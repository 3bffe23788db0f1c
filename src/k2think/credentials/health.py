"""What the pool tells of its tokens: to those who keep it, to those who look, and to those who get none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Struct

from k2think.credentials.rotation import Member, State
from k2think.errors import NoCredential


class UnknownToken(Exception):
    """There is no token of this index."""

    def __init__(self, index: int, total: int) -> None:
        known = (
            f"Their indices are 0 to {total - 1}." if total > 1 else f"There is {'only token 0' if total else 'none'}."
        )
        super().__init__(f"There is no token {index}. {known}")


class Health(Struct, frozen=True, omit_defaults=True):
    """What is worth remembering of a token: `id` is its credential's; `until` in Unix seconds.

    `failing`: it was rejected since the last success of any. A token may have left and still be that.
    """

    id: str
    failures: int = 0
    limits: int = 0
    until: float = 0.0
    disabled: str = ""  # why; empty: it is not
    error: str | None = None
    failing: bool = False


def health_of(member: Member, *, failing: bool) -> Health:
    """What there is to remember of a token now."""
    return Health(
        member.credential.id,
        member.failures,
        member.limits,
        member.available_at if member.state == "cooling" else 0.0,
        (member.reason or "disabled") if member.state == "disabled" else "",
        member.last_error,
        failing,
    )


@dataclass(frozen=True, slots=True)
class PoolSummary:
    """How many tokens there are, and in which state."""

    total: int
    active: int
    cooling: int
    disabled: int
    expired: int
    in_flight: int


def shortage(states: Mapping[State, int], awake_in: float | None) -> NoCredential:
    """Why none of the tokens is ready. `awake_in`: seconds until the first of those that are cooling comes back."""
    total = sum(states.values())
    if not total:
        return NoCredential(
            "The gateway has no upstream token. Put one into the token file (TOKENS_FILE); k2think check says more."
        )
    parts = [
        (states.get("cooling", 0), "rate-limited"),
        (states.get("active", 0), "busy with as many requests as one may carry (TOKEN_MAX_CONCURRENCY)"),
        (states.get("disabled", 0), "disabled"),
        (states.get("expired", 0), "expired"),
    ]
    said = ", ".join(f"{count} {what}" for count, what in parts if count)
    message = f"No upstream token can be used now. Of {total}: {said}."
    busy = bool(states.get("active"))
    if awake_in is not None:
        return NoCredential(
            f"{message} The next one is free again in {math.ceil(awake_in)} s.",
            status=429,
            code="rate_limit_exceeded",
            retry_after=awake_in,
            busy=busy,
        )
    if busy:
        return NoCredential(message, status=429, code="rate_limit_exceeded", retry_after=1.0, busy=True)
    return NoCredential(
        f"{message} They must be renewed: new tokens (TOKENS_FILE), or accounts to make them from; "
        "k2think check says more."
    )
