"""What happened to a request, as values. Written by the engine, read by those who log, count or show it."""

from __future__ import annotations

import time

from msgspec import Struct, field


class Attempt(Struct):
    """One call upstream. Times are `time.monotonic()` seconds, 0 until then; `failure` is an error's code."""

    credential_id: str
    started_at: float
    first_event_at: float = 0.0
    ended_at: float = 0.0
    failure: str = ""
    message: str = ""


class Trace(Struct):
    """One request on its way. Times are `time.monotonic()` seconds but for `received_at`; 0 until then.

    `asked_at` is when the present attempt was sent upstream: 0 while the request waits for a token or between attempts.
    `patience`: the seconds that the client said it waits, if it did.
    """

    request_id: str
    model: str = ""
    stream: bool = False
    received_at: float = field(default_factory=time.time)  # Unix seconds
    started_at: float = field(default_factory=time.monotonic)
    asked_at: float = 0.0
    first_event_at: float = 0.0
    ended_at: float = 0.0
    patience: float | None = None
    waited: float = 0.0  # seconds, for tokens
    attempts: list[Attempt] = []
    prompt_tokens: int = 0
    completion_tokens: int = 0
    status: int = 0
    ending: str = ""  # in a word or two: how it went out

    def begin(self, credential_id: str) -> Attempt:
        """A call upstream begins now."""
        self.asked_at = time.monotonic()
        attempt = Attempt(credential_id, self.asked_at)
        self.attempts.append(attempt)
        return attempt

    def remaining_patience(self) -> float | None:
        """How many seconds the client still waits, less one to answer it; None if it did not say."""
        if self.patience is None:
            return None
        return max(0.0, self.patience - 1.0 - (time.monotonic() - self.started_at))
