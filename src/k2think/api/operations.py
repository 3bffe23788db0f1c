"""`GET /` and `GET /health`: what this is, and how it is. Both open, so neither says anything worth hiding."""

from __future__ import annotations

import time
from dataclasses import asdict

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from k2think import NAME, __version__
from k2think.credentials.keeper import Keeper


def operations_router(keeper: Keeper) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["operations"])
    started_at = time.monotonic()

    @router.head("/", include_in_schema=False)
    @router.get("/", summary="What this is and where things are")
    async def root() -> Response:
        return JSONResponse(
            {
                "name": NAME,
                "version": __version__,
                "description": "An OpenAI-compatible API for MBZUAI's K2-Think reasoning model.",
                "endpoints": {
                    "chat": "POST /v1/chat/completions",
                    "models": "GET /v1/models",
                    "files": "POST /v1/files",
                    "health": "GET /health",
                    "admin": "GET /admin/tokens/stats",
                    "documentation": "GET /docs",
                },
            }
        )

    @router.head("/health", include_in_schema=False)  # what some health checks ask with
    @router.get("/health", summary="Liveness, and how many tokens are usable")
    async def health() -> Response:
        return JSONResponse(
            {
                "status": "ok",
                "version": __version__,
                "uptime_seconds": round(time.monotonic() - started_at),
                "tokens": asdict(keeper.summary()),
            }
        )

    return router
