"""What opens the upstream's door: a session token or an API key, and the account that a token is made from.

Their secrets never show in a repr, a log or an error.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Protocol

import msgspec
from msgspec import Struct

MAX_JWT = 16 * 1024
"""Characters; what is longer is not looked into."""


class Credential(Struct, frozen=True):
    """One token. `id` names it in logs and records: a hash, from which the secret cannot be had.

    `expires_at` (Unix seconds) and `user_id` are what a session token says of itself, where it does. An empty secret is
    the anonymous credential of a server that asks for none.
    """

    id: str
    secret: str
    expires_at: float | None = None
    user_id: str | None = None

    @classmethod
    def of(cls, secret: str) -> Credential:
        """Make the credential of a token."""
        claims = claims_of(secret) or Claims()
        return cls(
            id=hashlib.sha256(secret.encode()).hexdigest()[:12],
            secret=secret,
            expires_at=claims.exp,
            user_id=claims.id,
        )

    def masked(self) -> str:
        """The ends of the secret, for a person who must tell two tokens apart; of one too short for that, nothing."""
        return f"{self.secret[:4]}…{self.secret[-4:]}" if len(self.secret) >= 24 else "…"

    def __repr__(self) -> str:
        return f"Credential({self.id})"

    __str__ = __repr__


class Claims(Struct, frozen=True):
    """What a session token says of itself: the user, when it expires and when it was made (Unix seconds)."""

    id: str | None = None
    exp: float | None = None
    iat: float | None = None


def claims_of(secret: str) -> Claims | None:
    """Read a token that is a JWT; None of any other. Unverified, so believed only of itself."""
    parts = secret.split(".")
    if len(parts) != 3 or len(secret) > MAX_JWT:
        return None
    payload = parts[1]
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=Claims)
    except (ValueError, binascii.Error, msgspec.MsgspecError, RecursionError):
        return None


class Account(Struct, frozen=True):
    """Whose sign-in gives a token."""

    email: str
    password: str

    def masked(self) -> str:
        """The e-mail as it may stand in a log: `u…@example.com`."""
        name, at, host = self.email.partition("@")
        return f"{name[:1]}…{at}{host}"

    def __repr__(self) -> str:
        return f"Account({self.masked()})"

    __str__ = __repr__


class Login(Protocol):
    """How an account becomes a token, and whether a token is still good."""

    async def sign_in(self, account: Account) -> str:
        """Sign in and give the token.

        Raises `SignInRefused` (the account is wrong: do not try again), `QuotaExceeded` (later; `retry_after` where it
        is known) or another `UpstreamError` (nobody's fault here).
        """
        ...

    async def verify(self, credential: Credential) -> None:
        """Ask whether a token is good. Raises `CredentialRejected` if not, another `UpstreamError` if nobody knows."""
        ...
