"""How long a token rests that the upstream limits."""

from __future__ import annotations

import random

FIRST_COOLDOWN = 30.0
MAX_UNTOLD_COOLDOWN = 600.0
"""Seconds that a rate-limited token rests where the upstream does not say: twice as long each time, up to this."""
MIN_COOLDOWN = 1.0
MAX_COOLDOWN = 3600.0
"""Bounds of what an upstream may say."""
JITTER = 0.1
"""A cooldown is longer by up to this share, so that tokens limited together do not come back together."""


def cooldown(told: float | None, times: int, randomness: random.Random) -> float:
    """Seconds to rest, limited so many `times` in a row; `told`: what the upstream says."""
    if told is None:
        seconds = min(FIRST_COOLDOWN * 2.0 ** min(times - 1, 16), MAX_UNTOLD_COOLDOWN)
    else:
        seconds = min(max(told, MIN_COOLDOWN), MAX_COOLDOWN)
    return seconds * (1 + randomness.uniform(0, JITTER))


def believed(until: float, now: float) -> float:
    """The end of a cooldown that somebody else set, as far as it could have been set here."""
    return min(until, now + MAX_COOLDOWN * (1 + JITTER))
