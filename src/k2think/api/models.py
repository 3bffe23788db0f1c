"""`GET /v1/models` and `/v1/models/{id}`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from k2think.errors import ModelNotFound
from k2think.upstreams.catalog import Catalog

RELEASED = 1757376000
"""Unix seconds: 9 September 2025, when K2-Think came out."""


def models_router(catalog: Catalog) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1/models", tags=["models"])

    @router.get("", summary="List the models")
    async def list_models() -> Response:
        return JSONResponse({"object": "list", "data": [_model(name) for name in await catalog.names()]})

    @router.get("/{model_id:path}", summary="Describe one model")
    async def get_model(model_id: str) -> Response:
        for name in await catalog.names():
            if name.lower() == model_id.lower():
                return JSONResponse(_model(name))
        raise ModelNotFound(model_id)

    return router


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": RELEASED, "owned_by": name.partition("/")[0] or "k2think"}
