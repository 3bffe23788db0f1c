"""Session tokens as the real service makes them: JWT, HS256, written by hand so that nothing but `hmac` is needed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
import uuid
from typing import Any

import msgspec

from k2think.simulator.options import DEFAULT_SECRET, FOUR_WEEKS, Release

_HEADER = {"alg": "HS256", "typ": "JWT"}
_USERS = uuid.UUID("5b1d7d1e-0a53-4d2c-9d0e-6a2f3f6f4c11")


class BadToken(Exception):
    """Not a token of ours, or no longer one."""


def user_id(email: str) -> str:
    """The id of the user with this e-mail; the same in every run."""
    return str(uuid.uuid5(_USERS, email.lower()))


def session_stamp(email: str, generation: int = 0) -> str:
    """What ties a token to the state of its account; another generation makes all earlier tokens invalid."""
    return str(uuid.uuid5(_USERS, f"{email.lower()}#{generation}"))


def mint_token(
    email: str,
    *,
    ttl: float | None = FOUR_WEEKS,
    secret: str = DEFAULT_SECRET,
    release: Release = "0.12.4",
    now: float | None = None,
) -> str:
    """A token that a simulator with this secret and release takes for `email`'s; no sign-in needed.

    `ttl` in seconds: None never expires, below zero has expired already. Unlike a real one it names the e-mail, so
    that a simulator that has not met the user yet can tell whose it is.
    """
    claims = session_claims(email, ttl=ttl, release=release, now=time.time() if now is None else now)
    claims["email"] = email.lower()
    return sign(claims, secret)


def session_claims(
    email: str, *, ttl: float | None, release: Release, now: float, generation: int = 0, jti: bool | None = None
) -> dict[str, Any]:
    """The payload of a token, field by field as the release writes it. `now` in Unix seconds."""
    claims: dict[str, Any] = {"id": user_id(email)}
    if release == "0.12.4":
        claims |= {
            "typ": "session",
            "auth_method": "password",
            "auth_time": int(now),
            "session_stamp": session_stamp(email, generation),
            "mfa_verified": False,
        }
    if ttl is not None:
        claims["exp"] = int(now + ttl)
    if jti if jti is not None else release == "0.12.4":
        claims["jti"] = str(uuid.uuid4())
    if release == "0.12.4":
        claims["iat"] = int(now)
    return claims


def sign(claims: dict[str, Any], secret: str) -> str:
    """The token for these claims."""
    signed = f"{_encode(msgspec.json.encode(_HEADER))}.{_encode(msgspec.json.encode(claims))}"
    return f"{signed}.{_encode(_mac(signed, secret))}"


def read_token(token: str, secret: str, now: float) -> dict[str, Any]:
    """The claims of a good token. Raises BadToken: malformed, signed by somebody else, or expired at `now`."""
    signed, _, signature = token.rpartition(".")
    header, _, payload = signed.partition(".")
    try:
        genuine = hmac.compare_digest(_decode(signature), _mac(signed, secret))
        if not genuine or msgspec.json.decode(_decode(header)) != _HEADER:
            raise BadToken
        claims = msgspec.json.decode(_decode(payload), type=dict[str, Any])
    except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise BadToken from error
    expires = claims.get("exp")
    if not isinstance(claims.get("id"), str) or (expires is not None and expires <= now):
        raise BadToken
    return claims


def _mac(signed: str, secret: str) -> bytes:
    return hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
