"""`/admin/requests/{id}`: how a recent request was served."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter
from fastapi.responses import Response

from k2think.api.admin.answers import Refused, moment, success
from k2think.gateway import Gateway
from k2think.telemetry.records import Attempt, Trace

MAX_ID = 100
"""Characters of a request's id, at most."""


def requests_router(gateway: Gateway) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/requests")

    @router.get("/{request_id}", summary="How a recent request was served")
    async def request_served(request_id: str) -> Response:
        if trace := gateway.recent.get(request_id):
            return success(**_told(trace, gateway))
        known = await gateway.board.ask("request", request_id.encode(), enough=1) if len(request_id) <= MAX_ID else []
        if not known:
            raise Refused("There is no such request among the last ones (the id is its x-request-id).", status=404)
        return success(**msgspec.json.decode(known[0]))

    async def known_here(request_id: bytes) -> bytes:
        trace = gateway.recent.get(request_id.decode())
        return msgspec.json.encode(_told(trace, gateway)) if trace else b""

    gateway.board.answer("request", known_here)

    return router


def _told(trace: Trace, gateway: Gateway) -> dict[str, Any]:
    def since(at: float) -> float | None:
        return round((at - trace.started_at) * 1000, 1) if at else None

    def attempt(one: Attempt) -> dict[str, Any]:
        member = gateway.keeper.pool.of(one.credential_id)
        refresher = gateway.refresher
        return {
            "token_id": one.credential_id,
            "index": member.index if member else None,
            "token": member.credential.masked() if member else None,
            "account": refresher.account_of(member.credential) if member and refresher else None,
            "sent_ms": since(one.started_at),
            "first_event_ms": since(one.first_event_at),
            "ended_ms": since(one.ended_at),
            "failure": one.failure or None,
            "message": one.message or None,
        }

    return {
        "id": trace.request_id,
        "model": trace.model or None,
        "stream": trace.stream,
        "received_at": moment(trace.received_at),
        "status": trace.status or None,
        "ending": trace.ending or None,
        "first_event_ms": since(trace.first_event_at),
        "ended_ms": since(trace.ended_at),
        "prompt_tokens": trace.prompt_tokens,
        "completion_tokens": trace.completion_tokens,
        "attempts": [attempt(one) for one in trace.attempts],
    }
