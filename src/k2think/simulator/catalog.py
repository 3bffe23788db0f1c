"""The lists of models, one form for each kind of path."""

from __future__ import annotations

from typing import Any

from k2think.simulator import answers
from k2think.simulator.accounts import Refused, authenticate
from k2think.simulator.exchange import Exchange
from k2think.simulator.options import SimulatorOptions
from k2think.simulator.state import SimulatorState
from k2think.simulator.tokens import user_id

CREATED = 1757462400
_ADMIN = "admin@example.com"


async def web_models(exchange: Exchange, state: SimulatorState, *, bare: bool = False) -> None:
    """GET /api/models and /api/v1/models; `bare`: /openai/models, without what an administrator added."""
    try:
        authenticate(exchange, state)
    except Refused as refused:
        await answers.detail(exchange, 401, refused.text)
        return
    options = state.options
    await exchange.json(200, {"data": [_entry(model, options, bare=bare) for model in options.models]})


async def guest_models(exchange: Exchange, state: SimulatorState) -> None:
    """GET /api/guest/models."""
    await exchange.json(200, {"data": [{"id": model, "status": "active"} for model in state.options.models]})


async def openai_models(exchange: Exchange, state: SimulatorState) -> None:
    """GET /v1/models, as an OpenAI-compatible server lists them."""
    key = state.options.openai_key
    if key is not None and exchange.headers.get("authorization") != f"Bearer {key}":
        await exchange.json(401, answers.server_error(401))
        return
    data = [_openai_entry(model) for model in state.options.models]
    await exchange.json(200, {"object": "list", "data": data})


def _openai_entry(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": CREATED, "owned_by": "MBZUAI-IFM"}


def _entry(model: str, options: SimulatorOptions, *, bare: bool) -> dict[str, Any]:
    old = options.release == "0.6.28"
    name = model.rpartition("/")[2]
    entry: dict[str, Any] = {
        "id": model,
        "object": "model",
        "created": CREATED,
        "owned_by": "openai",
        "connection_type": "external",
        "name": model if bare else name,
        "openai": _openai_entry(model) | {"connection_type": "external"},
        **({} if old else {"provider": ""}),
        "urlIdx": 0,
    }
    if bare:
        return entry
    lists: dict[str, Any] = {"actions": [], "filters": [], "tags": []}
    if options.vision is None:
        return entry | lists
    capabilities = {"vision": options.vision, "file_upload": True}
    times = {"updated_at": CREATED, "created_at": CREATED}
    info: dict[str, Any] = {
        **({} if old else {"version_id": user_id(f"version of {model}")}),
        "id": model,
        "user_id": user_id(_ADMIN),
        "base_model_id": None,
        "name": name,
        "params": {},
    }
    if old:
        picture = {"profile_image_url": "/static/favicon.png"}
        info["meta"] = picture | {"description": "A simulated K2-Think", "capabilities": capabilities}
        info["access_control"] = None
    else:
        info["meta"] = {
            "background_image_url": None,
            "description": "A simulated K2-Think",
            "i18n": None,
            "capabilities": capabilities,
            "knowledge": None,
            "voice": None,
            "voice_avatar": None,
        }
        info["access_grants"] = [
            {
                "id": user_id(f"grant of {model}"),
                "resource_type": "model",
                "resource_id": model,
                "principal_type": "user",
                "principal_id": "*",
                "permission": "read",
                "created_at": CREATED,
            }
        ]
    return entry | {"info": info | {"is_active": True, **times}} | lists
