"""K2-Think's web service in small: a real HTTP server that plays an Open WebUI deployment, for tests, the demo and CI.

    POST /api/v1/auths/signin       GET /api/v1/auths/        GET /api/models, /api/v1/models, /openai/models
    POST /api/chat/completions      and /api/v1/chat/completions, /openai/chat/completions
    POST /api/guest/chat/completions    GET /api/guest/models     no token needed; snapshots instead of deltas
    POST /api/v1/files/  and what belongs to it: see `files`
    GET  /health, /api/version, /api/config                   any other GET: the web page, as the real one
    GET  /v1/models    POST /v1/chat/completions              the same model behind a plain OpenAI-compatible server
    GET  /simulator/requests        the last 200 chats: {"requests": [ChatRecord, ...]}, oldest first
    GET  /simulator/state           {"release", "open", "open_by_account", "chats", "totals", "sign_ins"}
    GET  /simulator/files           {"files": [{"id", "account", "filename", "content_type", "size", "sha256", "status",
                                    "headers"}, ...]}: the last 200 uploads (64 MB in all), oldest first
    POST /simulator/forget_files    all of them become unknown
    POST /simulator/reset           forget all of that, and what was revoked or deleted
    POST /simulator/revoke, /simulator/delete   {"email": ...}: make the account's tokens invalid; delete the user

What the model says and what goes wrong is told by directives in the last user turn, `[[shape=no_opener fault=cut]]`:
see `script`. Not here: saved chats, the socket. Plain ASGI, since faults need the connection itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import Any, TypeAlias

import msgspec

from k2think.simulator import answers
from k2think.simulator.accounts import session, sign_in
from k2think.simulator.catalog import guest_models, openai_models, web_models
from k2think.simulator.chat import chat
from k2think.simulator.exchange import ClientLeft, Exchange, Receive, Scope, Send
from k2think.simulator.files import file_handler, forget_files, simulator_files
from k2think.simulator.options import ACCOUNT_FAULTS, FILE_FAULTS, Account, Release, SimulatorOptions
from k2think.simulator.script import known_fault
from k2think.simulator.shapes import SHAPES
from k2think.simulator.state import SimulatorState
from k2think.simulator.tokens import mint_token

__all__ = ["Account", "Release", "Simulator", "SimulatorOptions", "create_simulator", "mint_token"]

Handler: TypeAlias = Callable[[Exchange, SimulatorState], Awaitable[None]]


def create_simulator(options: SimulatorOptions | None = None) -> Simulator:
    """The ASGI app. Raises ValueError for a shape or fault that does not exist."""
    options = options or SimulatorOptions()
    for shape in (options.shape, options.openai_shape):
        if shape not in SHAPES:
            raise ValueError(f"There is no shape '{shape}'. There are: {', '.join(SHAPES)}.")
    faults = {fault for account in options.accounts.values() for fault in account.faults} - set(ACCOUNT_FAULTS)
    for fault in faults | ({options.fault} if options.fault else set()):
        if not known_fault(fault):
            raise ValueError(f"There is no fault '{fault}'.")
    for fault in options.file_faults:
        if fault not in FILE_FAULTS:
            raise ValueError(f"There is no fault of files '{fault}'. There are: {', '.join(FILE_FAULTS)}.")
    return Simulator(options)


class Simulator:
    """The app; `state` is there to be looked at by whoever runs it in their own process."""

    def __init__(self, options: SimulatorOptions) -> None:
        self.options = options
        self.state = SimulatorState(options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            exchange = Exchange(scope, receive, send, compress=self.options.compress)
            method, path = exchange.method, exchange.path
            handler = _ROUTES.get((method, path)) or file_handler(method, path) or _elsewhere
            try:
                await handler(exchange, self.state)
            except ClientLeft:
                return
            except asyncio.CancelledError:  # the server stops and waits no longer: whoever asked sees it break off
                return
        else:
            await send({"type": "websocket.close"})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _elsewhere(exchange: Exchange, state: SimulatorState) -> None:
    """Open WebUI gives its page for every GET it has no other answer for, and refuses all else there."""
    if exchange.path.startswith("/v1/"):
        await exchange.json(404, answers.server_error(404))
    elif exchange.method in {"GET", "HEAD"}:
        await answers.web_page(exchange, state.options.release)
    else:
        await answers.detail(exchange, 405, "Method Not Allowed")


async def _health(exchange: Exchange, _: SimulatorState) -> None:
    await exchange.json(200, {"status": True})


async def _version(exchange: Exchange, state: SimulatorState) -> None:
    release = state.options.release
    await exchange.json(200, {"version": release} | ({} if release == "0.6.28" else {"deployment_id": ""}))


async def _config(exchange: Exchange, state: SimulatorState) -> None:
    release = state.options.release
    old = release == "0.6.28"
    features = {
        **({} if old else {"slim": False}),
        "auth": True,
        "auth_trusted_header": False,
        "enable_signup_password_confirmation": False,
        "enable_ldap": False,
        **({"enable_api_key": True} if old else {}),
        "enable_signup": False,
        "enable_login_form": True,
        "enable_websocket": True,
        **({"enable_version_update_check": False} if old else {}),
    }
    config: dict[str, Any] = {
        "status": True,
        "name": "Open WebUI",
        "version": release,
        "default_locale": "",
        **({} if old else {"i18n": {}}),
        "oauth": {"providers": {}} | ({} if old else {"auto_redirect": False}),
        "features": features,
    }
    await exchange.json(200, config)


async def _requests(exchange: Exchange, state: SimulatorState) -> None:
    await exchange.json(200, {"requests": [asdict(record) for record in state.records]})


async def _state(exchange: Exchange, state: SimulatorState) -> None:
    await exchange.json(200, state.summary())


async def _reset(exchange: Exchange, state: SimulatorState) -> None:
    state.reset()
    await exchange.json(200, {"status": True})


async def _with_email(exchange: Exchange, state: SimulatorState, *, act: Callable[[SimulatorState, str], None]) -> None:
    try:
        email = msgspec.json.decode(await exchange.body(), type=dict[str, str])["email"]
    except (msgspec.MsgspecError, KeyError):
        await answers.detail(exchange, 422, 'The body must be {"email": "..."}.')
        return
    act(state, email)
    await exchange.json(200, {"status": True})


_ROUTES: dict[tuple[str, str], Handler] = {
    ("POST", "/api/v1/auths/signin"): sign_in,
    ("GET", "/api/v1/auths/"): session,
    ("GET", "/health"): _health,
    ("GET", "/api/version"): _version,
    ("GET", "/api/config"): _config,
    ("GET", "/api/models"): web_models,
    ("GET", "/api/v1/models"): web_models,
    ("GET", "/openai/models"): partial(web_models, bare=True),
    ("GET", "/api/guest/models"): guest_models,
    ("GET", "/v1/models"): openai_models,
    ("POST", "/api/chat/completions"): partial(chat, flavour="web"),
    ("POST", "/api/v1/chat/completions"): partial(chat, flavour="web"),
    ("POST", "/openai/chat/completions"): partial(chat, flavour="openai_path"),
    ("POST", "/api/guest/chat/completions"): partial(chat, flavour="guest"),
    ("POST", "/v1/chat/completions"): partial(chat, flavour="openai"),
    ("GET", "/simulator/requests"): _requests,
    ("GET", "/simulator/state"): _state,
    ("GET", "/simulator/files"): simulator_files,
    ("POST", "/simulator/forget_files"): forget_files,
    ("POST", "/simulator/reset"): _reset,
    ("POST", "/simulator/revoke"): partial(_with_email, act=SimulatorState.revoke),
    ("POST", "/simulator/delete"): partial(_with_email, act=SimulatorState.delete),
}
