"""`/admin/tools`: how the model does with tools and JSON answers."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from k2think.api.admin.answers import success
from k2think.gateway import Gateway


def tools_router(gateway: Gateway) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/tools")

    @router.get("/stats", summary="Count the calls of tools and the JSON answers")
    async def tool_stats() -> Response:
        return success(**gateway.tool_stats.as_dict())

    return router
