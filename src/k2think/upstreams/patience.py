"""How long an upstream is waited for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait for each thing: a connection, the first event, the next bytes after that, the whole answer."""

    connect: float
    first_event: float
    silence: float
    total: float
