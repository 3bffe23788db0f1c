"""What the keeper asks of the refresher: a slate that both know, so that neither has to know the other."""

from __future__ import annotations

import asyncio

from k2think.credentials.credential import Credential

MAX_REJECTED = 1024
"""Rejected tokens remembered until the refresher looks; one that has so many does a full update anyway."""


class Renewals:
    """The wishes, an event that says there is one, and whether new tokens are on their way."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.under_way = False
        self.made_here = True
        """Whether it is this process that makes the tokens; else it hears from another what is under way."""
        self._rejected: dict[str, Credential] = {}
        self._everything: str | None = None

    @property
    def expected(self) -> bool:
        """Whether there may be new tokens soon: they are being made, or nobody has said yet that they are not."""
        return self.under_way or self.asked.is_set()

    def one(self, credential: Credential) -> None:
        """This token was rejected: its account may have a better one."""
        if len(self._rejected) < MAX_REJECTED:
            self._rejected[credential.id] = credential
            self.asked.set()

    def everything(self, because: str) -> None:
        """Make all tokens anew."""
        self._everything = because
        self.asked.set()

    def taken(self) -> tuple[str | None, tuple[Credential, ...]]:
        """The wishes until now, which are hereby the taker's: why everything is to be renewed, if so; which tokens."""
        wishes = self._everything, tuple(self._rejected.values())
        self._everything = None
        self._rejected.clear()
        self.asked.clear()
        return wishes
