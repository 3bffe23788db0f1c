"""`/admin/tools`: how the model does with tools and JSON answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import APIRouter
from fastapi.responses import Response

from k2think.api.admin.answers import success
from k2think.gateway import Gateway


def tools_router(gateway: Gateway) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/tools")

    @router.get("/stats", summary="Count the calls of tools and the JSON answers")
    async def tool_stats() -> Response:
        others = [msgspec.json.decode(answer) for answer in await gateway.board.ask("tools")]
        return success(**summed([gateway.tool_stats.as_dict(), *others]))

    async def counted_here(_: bytes) -> bytes:
        return msgspec.json.encode(gateway.tool_stats.as_dict())

    gateway.board.answer("tools", counted_here)
    return router


def summed(counts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The counts of several workers in one, which has their shape."""
    total: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in counts for key in one):
        values = [one[key] for one in counts if key in one]
        total[key] = summed(values) if isinstance(values[0], dict) else sum(values)
    return total
