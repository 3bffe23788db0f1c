"""What happened to a request, as values. Written by the engine, read by those who log, count or show it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Trace:
    """One request on its way. Times are `time.monotonic()` seconds; `asked_at` and `first_event_at` are 0 until then.

    `asked_at` is when the present attempt was sent upstream: 0 while the request waits for a token or between attempts.
    """

    request_id: str
    model: str = ""
    stream: bool = False
    started_at: float = field(default_factory=time.monotonic)
    asked_at: float = 0.0
    first_event_at: float = 0.0
    credential_ids: list[str] = field(default_factory=list)  # of each attempt, in order
    failures: list[str] = field(default_factory=list)  # error codes of failed attempts, in order
    prompt_tokens: int = 0
    completion_tokens: int = 0
