"""Sign-in, the session, and whose token a request carries."""

from __future__ import annotations

import asyncio
import json
import time
from email.utils import formatdate
from typing import Any

import msgspec

from k2think.simulator import answers
from k2think.simulator.exchange import Exchange
from k2think.simulator.options import Account, Release
from k2think.simulator.state import SignIns, SimulatorState
from k2think.simulator.tokens import BadToken, read_token, user_id

_SESSION_EXTRAS = {"bio": None, "gender": None, "date_of_birth": None}
_STATUS_EXTRAS = {"status_emoji": None, "status_message": None, "status_expires_at": None}

_PERMISSIONS: dict[Release, dict[str, str]] = {
    "0.6.28": {
        "workspace": "-models -knowledge -prompts -tools",
        "sharing": "-public_models -public_knowledge -public_prompts -public_tools",
        "chat": "controls valves system_prompt params file_upload delete delete_message continue_response "
        "regenerate_response rate_response edit share export stt tts call multiple_models temporary "
        "-temporary_enforced",
        "features": "-direct_tool_servers web_search image_generation code_interpreter notes",
    },
    "0.12.4": {
        "workspace": "-models -knowledge -prompts -tools -skills -models_import -models_export -models_hidden "
        "-prompts_import -prompts_export -tools_import -tools_export -skills_import -skills_export",
        "sharing": "-models -public_models -knowledge -public_knowledge -prompts -public_prompts -tools "
        "-public_tools -skills -public_skills -notes -public_notes -folders -public_chats -open_chats "
        "-public_calendars",
        "access_grants": "allow_users allow_groups",
        "chat": "controls valves system_prompt params file_upload web_upload delete delete_message "
        "continue_response regenerate_response rate_response edit share export import stt tts call "
        "multiple_models temporary -temporary_enforced",
        "features": "-api_keys notes folders channels -encrypted_channels -direct_tool_servers web_search "
        "image_generation code_interpreter memories -automations calendar -webhooks",
        "settings": "interface",
    },
}
"""A user's permissions by group, in the recorded order; a dash before those that are not given."""


class Refused(Exception):
    """The request carries no good token; `text` is the 401's detail."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class BadBody(Exception):
    """The body is not the JSON that is wanted; `detail` is the 422's."""

    def __init__(self, detail: Any) -> None:
        super().__init__()
        self.detail = detail


def token_of(exchange: Exchange, release: Release) -> str:
    """The token a request carries: the header's before the cookie's. Raises Refused if there is none."""
    header = exchange.headers.get("authorization")
    if header is not None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
        if release != "0.6.28":
            raise Refused(answers.UNAUTHORIZED)
    token = exchange.cookies.get("token", "")
    if not token:
        raise Refused(answers.NOT_AUTHENTICATED)
    return token


def authenticate(exchange: Exchange, state: SimulatorState, *, pending_too: bool = False) -> tuple[str, Account, str]:
    """The e-mail and account of the request's token, and the token. Raises Refused with the real service's texts."""
    release = state.options.release
    token = token_of(exchange, release)
    if token.startswith("sk-"):
        raise Refused(answers.SESSION_ENDED)
    try:
        claims = read_token(token, state.options.secret, time.time())
    except BadToken:
        raise Refused(answers.UNAUTHORIZED) from None
    email = state.owner(claims)
    account = state.account(email) if email is not None else None
    if email is None or account is None:
        raise Refused(answers.deleted_user(release))
    if state.revoked(email, claims):
        raise Refused(answers.revoked_token(release))
    if "rejected" in account.faults:
        raise Refused(answers.UNAUTHORIZED)
    if account.role == "pending" and not pending_too:
        raise Refused(answers.NO_PERMISSION)
    return email, account, token


def read_object(exchange: Exchange, body: bytes, release: Release) -> dict[str, Any]:
    """A body that must be a JSON object, as FastAPI reads it. Raises BadBody."""
    value = read_json(exchange, body, release)
    if isinstance(value, dict):
        return value
    problem = {"type": "dict_type", "loc": ["body"], "msg": "Input should be a valid dictionary", "input": value}
    raise BadBody([problem])


def read_json(exchange: Exchange, body: bytes, release: Release) -> Any:
    """A body as FastAPI reads it. Raises BadBody."""
    if not body:
        raise BadBody([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}])
    if release != "0.6.28" and "json" not in exchange.headers.get("content-type", ""):
        return body.decode("utf-8", "replace")
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        raise BadBody(
            [
                {
                    "type": "json_invalid",
                    "loc": ["body", error.pos],
                    "msg": "JSON decode error",
                    "input": {},
                    "ctx": {"error": error.msg},
                }
            ]
        ) from None
    except (UnicodeDecodeError, RecursionError):
        raise BadBody("There was an error parsing the body") from None


async def sign_in(exchange: Exchange, state: SimulatorState) -> None:
    """POST /api/v1/auths/signin."""
    release = state.options.release
    no_store = [] if release == "0.6.28" else [("cache-control", "no-store")]
    try:
        email, password = _form(read_json(exchange, await exchange.body(), release))
    except BadBody as bad:
        await answers.detail(exchange, 422, bad.detail if release == "0.6.28" else answers.INVALID_REQUEST, no_store)
        return
    counts = state.sign_ins.setdefault(email, SignIns())
    counts.attempts += 1
    await asyncio.sleep(state.options.sign_in_delay)
    account = state.account(email)
    if state.limited(email, time.monotonic()) or (account is not None and "limited" in account.faults):
        await answers.detail(exchange, 429, answers.TOO_MANY_SIGN_INS, no_store)
        return
    right = account is not None and (password == account.password if state.options.accounts else password != "")
    if account is None or not right or "wrong" in account.faults:
        await answers.detail(exchange, 400, answers.WRONG_PASSWORD, no_store)
        return
    counts.good += 1
    now = time.time()
    token, expires = state.session(email, now)
    session = _session(email, account, token, expires, release, picture="/user.png" if release == "0.6.28" else "")
    cookie = _cookie(token, expires, now, release, renewed=False)
    await exchange.json(200, session, [("set-cookie", cookie), *no_store])


async def session(exchange: Exchange, state: SimulatorState) -> None:
    """GET /api/v1/auths/: who the token is of; the cookie is set anew."""
    release = state.options.release
    try:
        email, account, token = authenticate(exchange, state, pending_too=True)
    except Refused as refused:
        await answers.detail(exchange, 401, refused.text)
        return
    if release == "0.6.28" and "authorization" not in exchange.headers:
        await exchange.answer(500, b"Internal Server Error", "text/plain; charset=utf-8")
        return
    now = time.time()
    expires = read_token(token, state.options.secret, now).get("exp")
    shown = _session(email, account, token, expires, release, picture="/user.png") | _SESSION_EXTRAS
    if release != "0.6.28":
        shown = _STATUS_EXTRAS | shown
    headers = [("set-cookie", _cookie(token, expires, now, release, renewed=True))]
    await exchange.json(200, shown, headers if release == "0.6.28" else [*headers, ("cache-control", "no-store")])


def _form(body: Any) -> tuple[str, str]:
    if not isinstance(body, dict):
        raise BadBody(
            [
                {
                    "type": "model_attributes_type",
                    "loc": ["body"],
                    "msg": "Input should be a valid dictionary or object to extract fields from",
                    "input": body,
                }
            ]
        )
    problems: list[dict[str, Any]] = []
    for name in ("email", "password"):
        if name not in body:
            problems.append({"type": "missing", "loc": ["body", name], "msg": "Field required", "input": body})
        elif not isinstance(body[name], str):
            problem = {"type": "string_type", "loc": ["body", name], "msg": "Input should be a valid string"}
            problems.append(problem | {"input": body[name]})
    if problems:
        raise BadBody(problems)
    return body["email"].lower(), body["password"]


def _session(
    email: str, account: Account, token: str, expires: int | None, release: Release, *, picture: str
) -> dict[str, Any]:
    who = user_id(email)
    name = email.partition("@")[0].replace(".", " ").title()
    role_and_email: dict[str, Any] = (
        {"email": email, "name": name, "role": account.role}
        if release == "0.6.28"
        else {"name": name, "role": account.role, "email": email}
    )
    return {
        "id": who,
        **role_and_email,
        "profile_image_url": picture or f"/api/v1/users/{who}/profile/image",
        "token": token,
        "token_type": "Bearer",
        "expires_at": expires,
        "permissions": {
            group: {given.lstrip("-"): not given.startswith("-") for given in names.split()}
            for group, names in _PERMISSIONS[release].items()
        },
    }


def _cookie(token: str, expires: int | None, now: float, release: Release, *, renewed: bool) -> str:
    parts = [f"token={token}"]
    if expires is not None and (renewed or release == "0.6.28"):
        parts.append(f"expires={formatdate(expires, usegmt=True)}")
    parts.append("HttpOnly")
    if expires is not None and release != "0.6.28":
        parts.append(f"Max-Age={max(0, expires - int(now))}")
    return "; ".join([*parts, "Path=/", "SameSite=lax"])
