"""What opens the upstream's door: one session token or API key. Its secret never shows in a repr, a log or an error."""

from __future__ import annotations

import hashlib

from msgspec import Struct


class Credential(Struct, frozen=True):
    """One token. `id` names it in logs and records: a hash, from which the secret cannot be had.

    An empty secret is the anonymous credential of a server that asks for none.
    """

    id: str
    secret: str

    @classmethod
    def of(cls, secret: str) -> Credential:
        """Make the credential of a token."""
        return cls(id=hashlib.sha256(secret.encode()).hexdigest()[:12], secret=secret)

    def __repr__(self) -> str:
        return f"Credential({self.id})"

    __str__ = __repr__
