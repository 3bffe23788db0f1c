"""The OpenAPI document's page about the generation paths, which FastAPI does not see."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI

from k2think.wire.openai_chat.schema import ChatRequest

_REF = "#/components/schemas/{name}"


def describe_generation(app: FastAPI) -> None:
    """Add the generation paths, and the key that all paths want, to the app's OpenAPI document."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            (request,), components = msgspec.json.schema_components([ChatRequest], ref_template=_REF)
            document["paths"]["/v1/chat/completions"] = {"post": _chat(request)}
            parts = document.setdefault("components", {})
            parts.setdefault("schemas", {}).update(components)
            parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"key": []}]
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way of extending the document


def _chat(request: dict[str, Any]) -> dict[str, Any]:
    return {
        "tags": ["chat"],
        "summary": "Answer a conversation, as a stream or whole",
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
        "responses": {
            "200": {
                "description": "A chat.completion, or with `stream` chat.completion.chunk events",
                "content": {
                    "application/json": {"schema": {"type": "object"}},
                    "text/event-stream": {"schema": {"type": "string"}},
                },
            },
            "default": {
                "description": "An error in OpenAI's shape",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
        },
    }
