"""Which of several processes this one is, and its share of what they have together.

All of them serve the same tokens from one STATE_DIR and agree through it; a process that is alone is the first of one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Worker:
    """Worker `number` (from 0) of so many."""

    number: int = 0
    of: int = 1

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody to agree with."""
        return self.of == 1

    def share(self, number: int) -> int:
        """Its share of `number` places, so that all shares together are as many; but at least one."""
        return max(1, (number + self.number) // self.of)

    def hand(self, each: int, tokens: int) -> list[int]:
        """How many requests it may carry on each token, of the `each` that all may carry on one together.

        The places of all tokens are dealt out like cards, so no worker has two more than another. One that gets none
        at all takes one, though there is then one more than there should be: it must serve.
        """
        last = [(number * each - 1 - self.number) // self.of for number in range(tokens + 1)]
        hand = [after - before for before, after in itertools.pairwise(last)]
        if tokens and self.number >= tokens * each:
            hand[self.number % tokens] = 1
        return hand


ALONE = Worker()
