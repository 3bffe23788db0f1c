"""How an account of K2-Think's web service becomes a token, and whether a token is still good.

One attempt a call: when to try again is decided by who calls, because the service counts sign-ins and soon refuses all.
What was sent never comes back in an error, though the service itself repeats it in some of its answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from k2think.credentials.credential import MAX_JWT, Account, Credential
from k2think.errors import (
    CredentialRejected,
    EdgeBlocked,
    QuotaExceeded,
    SignInRefused,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from k2think.upstreams.exchange import MAX_ERROR_BODY
from k2think.upstreams.k2think import protocol
from k2think.upstreams.refusals import Speaker, error_of_status, read_refusal
from k2think.upstreams.transport import Transport

PATIENCE = 30.0
"""Seconds for a sign-in; the service takes its time over passwords."""

MAX_SESSION = 1024 * 1024
"""Bytes of a session's description; it has a few thousand, with a picture in it more."""

_TOKEN = re.compile(rf"[!#-+\--:<-\[\]-~]{{1,{MAX_JWT}}}")
"""What may stand in a header and in a cookie: no blank, quote, comma, semicolon or backslash."""


@dataclass(frozen=True, slots=True, repr=False)  # it may hold a token
class _Answer:
    status: int
    headers: Mapping[str, str]
    cookies: Mapping[str, str]
    body: bytes
    is_page: bool


class K2ThinkLogin:
    """Signs in where the chat route `chat_url` is. `patience`: seconds that one call may take."""

    def __init__(self, transport: Transport, chat_url: str, *, patience: float = PATIENCE) -> None:
        self._transport = transport
        self._sign_in_url = protocol.auths_url(chat_url, "signin")
        self._session_url = protocol.auths_url(chat_url)
        self._patience = patience

    async def sign_in(self, account: Account) -> str:
        """Sign in and give the token. Raises as `Login` says; `EdgeBlocked` if a firewall stands before the service."""
        body = protocol.sign_in_payload(account.email, account.password)
        answer = await self._ask("POST", self._sign_in_url, {"Content-Type": "application/json"}, body)
        if answer.status == 200:
            return _token_in(_session_in(answer), answer.cookies)
        refusal = read_refusal(answer.body)
        # FastAPI describes a bad body by repeating it, and the password with it. Of a page nothing is ever quoted.
        quotable = refusal.speaker is Speaker.PAGE or not _repeats(answer.body, account.password)
        if refusal.speaker is Speaker.SERVICE and answer.status in {400, 401, 403, 422}:
            raise _refused(refusal.message if quotable else "")
        raise _failed(answer, answer.body if quotable else b"")

    async def verify(self, credential: Credential) -> None:
        """Ask whether the token is good. Raises `CredentialRejected` if it is not, or what kept us from knowing."""
        answer = await self._ask("GET", self._session_url, protocol.headers(credential.secret))
        if answer.status != 200:
            raise _failed(answer, answer.body, CredentialRejected)
        session = _session_in(answer)
        if not isinstance(session.get("id"), str):
            raise UpstreamUnavailable("The upstream did not say whose the token is.")
        if _is_pending(session):
            raise CredentialRejected(
                "The token's user is still pending: an administrator of the service must approve it."
            )

    async def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> _Answer:
        try:
            async with (
                asyncio.timeout(self._patience),
                await self._transport.request(
                    method, url, headers={**headers, "Accept": "application/json"}, body=body
                ) as reply,
            ):
                good = reply.status == 200
                whole = await (reply.read_whole(MAX_SESSION) if good else reply.read_beginning(MAX_ERROR_BODY))
                return _Answer(reply.status, reply.headers, reply.cookies, whole, reply.content_type == "text/html")
        except TimeoutError:
            raise UpstreamTimeout(f"The upstream's sign-in did not answer within {self._patience:g} s.") from None


def _session_in(answer: _Answer) -> dict[str, Any]:
    """The description of a session, or of a sign-in's next step."""
    if answer.is_page:
        raise UpstreamUnavailable("The upstream's sign-in is a web page (K2THINK_API_URL names another place?).")
    try:
        found = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamUnavailable("The upstream's sign-in did not answer with JSON (K2THINK_API_URL?).") from None
    if not isinstance(found, dict):
        raise UpstreamUnavailable("The upstream's sign-in answered with JSON that describes no session.")
    return found


def _token_in(session: Mapping[str, Any], cookies: Mapping[str, str]) -> str:
    """The token that a good sign-in brought, in the body or else in the cookie."""
    if not (token := session.get("token")):
        if session.get("next_step"):
            raise SignInRefused(
                "The account signs in with a second factor, which a gateway cannot give. "
                "Switch it off for this account, or put a token of it into the token file."
            )
        token = cookies.get("token")
    if not token:
        raise UpstreamUnavailable("The upstream's sign-in answered without a token.")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise UpstreamUnavailable("The upstream's sign-in gave a token that cannot stand in a header.")
    if _is_pending(session):
        # The token is genuine, but every call with it would be refused.
        raise SignInRefused("The account is still pending: an administrator of the service must approve it.")
    return token


def _is_pending(session: Mapping[str, Any]) -> bool:
    return session.get("role") == "pending"


def _refused(words: str) -> SignInRefused:
    advice = "The upstream refused the sign-in; check the account's line in the accounts file."
    return SignInRefused(f"{advice} It says: {words}" if words else advice)


def _failed(answer: _Answer, words: bytes, *expected: type[UpstreamError]) -> UpstreamError:
    """The error for an answer that proves nothing about an account; `expected` are classes that may come besides."""
    error = error_of_status(answer.status, answer.headers, words, owns_tokens=Speaker.SERVICE, now=time.time())
    if answer.status != 404 and isinstance(error, (EdgeBlocked, QuotaExceeded, UpstreamUnavailable, *expected)):
        return error
    return UpstreamUnavailable(
        f"The upstream's sign-in answered {answer.status}, as if its URL were another (K2THINK_API_URL)."
    )


def _repeats(body: bytes, secret: str) -> bool:
    """Whether an answer holds the secret, in whatever way JSON may write it."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = msgspec.json.encode(msgspec.json.decode(body))
    return secret.encode() in body or msgspec.json.encode(secret)[1:-1] in body
