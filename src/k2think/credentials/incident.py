"""Tells an outage of the service, or a ban of this address, from the fault of a token: a state machine without a clock.

    calm ──the same kind of failure, on several tokens, in a row──► open
    open ──after a pause──► probing: one request goes, the others wait
    probing ──a sign of life──► calm        probing ──failed again──► open, for twice as long

While it is not calm no token is blamed for anything. `now`: seconds of a clock that never goes back.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from k2think.errors import EdgeBlocked, UpstreamError, UpstreamIncident, UpstreamUnavailable

FAILURES = 5
TOKENS = 3
"""How many failures in a row, on how many different tokens (or on all, if there are fewer), are an incident."""
MEMORY = 120.0
"""Seconds after which an earlier failure has nothing to do with the next."""
FIRST_PAUSE = 1.0
MAX_PAUSE = 30.0
PROBE_PATIENCE = 20.0
"""Seconds after which a probe that has said nothing is no longer waited for."""

Kind: TypeAlias = Literal["edge", "upstream"]


class Incident:
    """Whether there is one."""

    def __init__(self) -> None:
        self._calm()

    def _calm(self) -> None:
        self._kind: Kind | None = None  # of the present run of failures
        self._failures = 0
        self._tokens: set[str] = set()
        self._last_failure = 0.0
        self._message = ""
        self._pause = FIRST_PAUSE
        self._until = 0.0  # when the next probe may go
        self.since: float | None = None
        """When it began; None: all is calm."""

    def enter(self, now: float) -> bool:
        """Let a request pass; True: it is the probe. Raises `UpstreamIncident` while others must wait."""
        if self.since is None:
            return False
        if now < self._until:
            wait = self._until - now
            message = f"The upstream fails for every token: {self._message} It is tried again in {math.ceil(wait)} s."
            raise UpstreamIncident(message, retry_after=wait, busy=True)
        self._until = now + PROBE_PATIENCE
        return True

    def alive(self) -> bool:
        """The upstream has answered in its own words. Says whether that has ended an incident."""
        ended = self.since is not None
        if ended or self._failures:
            self._calm()
        return ended

    def failed(self, error: UpstreamError, token: str, tokens: int, now: float) -> bool:
        """A request failed with one of `tokens` tokens. Says whether an incident has begun with it."""
        kind = _kind(error)
        if kind is None:
            return False
        if kind != self._kind or now - self._last_failure > MEMORY:
            self._failures = 0
            self._tokens.clear()
        self._kind, self._last_failure, self._message = kind, now, error.message
        self._failures += 1
        if len(self._tokens) < TOKENS:
            self._tokens.add(token)
        if self.since is None and self._failures >= FAILURES and len(self._tokens) >= min(TOKENS, tokens):
            self.since = now
            self._until = now + self._pause
            return True
        return False

    def is_failure(self, error: UpstreamError) -> bool:
        """Whether this may belong to an incident. Any other failure is a sign of life: the service spoke for itself."""
        return _kind(error) is not None

    def probe_failed(self, now: float) -> None:
        """The probe found nothing new."""
        if self.since is not None:
            self._pause = min(self._pause * 2, MAX_PAUSE)
            self._until = now + self._pause

    def probe_lost(self, now: float) -> None:
        """The probe ended without finding out: the next request is one."""
        if self.since is not None:
            self._until = now


def _kind(error: UpstreamError) -> Kind | None:
    if isinstance(error, EdgeBlocked):
        return "edge"
    return "upstream" if isinstance(error, UpstreamUnavailable) else None
