"""The form of the admin calls' answers.

`{"status": "success", "data": …}`, or 400 with `{"status": "error", "message": …}`. Times are this machine's local
time, to the second. Tokens show only their ends.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from k2think.credentials.pool import CONSECUTIVE_THRESHOLD
from k2think.credentials.rotation import Member
from k2think.credentials.token_file import TokenFileUnreadable, UpdateUnusable
from k2think.errors import GatewayError
from k2think.gateway import Gateway


class Refused(GatewayError):
    """An admin call that cannot be done; its answer has the admin calls' own shape."""

    status = 400


def answer_refusals(app: FastAPI) -> None:
    """Let a FastAPI app answer refused admin calls in their own shape."""

    async def refused(_: Request, error: Exception) -> Response:
        status = error.status if isinstance(error, Refused) else 400
        return JSONResponse({"status": "error", "message": str(error)}, status_code=status)

    for kind in (Refused, TokenFileUnreadable, UpdateUnusable):
        app.add_exception_handler(kind, refused)


def success(message: str | None = None, **data: Any) -> Response:
    """The answer of a call that was done."""
    return JSONResponse({"status": "success", **({"message": message} if message else {}), "data": data})


def moment(at: float | None) -> str | None:
    """Unix seconds as `2024-01-01T12:00:00`, local time."""
    if at is None:
        return None
    try:
        return datetime.fromtimestamp(at).isoformat(timespec="seconds")  # noqa: DTZ006 - the documented form has no zone
    except (ValueError, OverflowError, OSError):  # a token may say any number
        return None


def shown(member: Member, account: str | None = None) -> dict[str, Any]:
    """A token as it may be seen."""
    return {
        "index": member.index,
        "token": member.credential.masked(),
        "id": member.credential.id,
        "account": account,
        "state": member.state,
        "reason": member.reason if member.state == "disabled" else None,
        "failures": member.failures,
        "in_flight": member.in_flight,
        "last_used": moment(member.last_used),
        "last_error": member.last_error,
        "cooling_until": moment(member.available_at) if member.state == "cooling" else None,
        "expires_at": moment(member.credential.expires_at),
    }


def stats(gateway: Gateway) -> dict[str, Any]:
    """The tokens, counted."""
    keeper = gateway.keeper
    pool = keeper.pool
    summary = keeper.summary()
    inactive = summary.disabled + summary.expired
    failures = Counter(member.failures for member in pool.snapshot(time.time()))
    return {
        "total_tokens": summary.total,
        "active_tokens": summary.total - inactive,
        "inactive_tokens": inactive,
        "current_index": pool.current_index,
        "failure_distribution": {str(count): failures[count] for count in sorted(failures)},
        "max_failures": pool.max_failures,
        "consecutive_failures": pool.consecutive_failures,
        "consecutive_failure_threshold": CONSECUTIVE_THRESHOLD,
        "cooling_tokens": summary.cooling,
        "disabled_tokens": summary.disabled,
        "expired_tokens": summary.expired,
        "requests_in_flight": summary.in_flight,
        "strategy": pool.strategy,
        "auto_refresh_enabled": gateway.refresher is not None,
        "incident_since": moment(keeper.incident_since()),
    }
