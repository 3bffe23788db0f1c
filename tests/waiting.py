"""Waits for a condition, which may come late on a busy machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 300.0  # only a hang takes so long


def until(condition: Callable[[], T], *, patience: float = PATIENCE) -> T:
    """Give the first true value of the condition."""
    end = time.monotonic() + patience
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"It did not come true within {patience:.0f} s.")
        time.sleep(0.01)
    return value
