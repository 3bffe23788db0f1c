"""How many generations run at once."""

from __future__ import annotations

from k2think.places import Places

WAIT = 10.0
"""Seconds that a request waits for a place."""


class Admission(Places):
    """As many places as there may be connections upstream."""

    def __init__(self, places: int, *, wait: float = WAIT) -> None:
        full = "The gateway carries as many requests as it may (MAX_CONNECTIONS)."
        super().__init__(places, wait=wait, full=full, retry_after=wait)
