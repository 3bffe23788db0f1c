"""What a lease and its report cost, by strategy, for pools of 10 to 100,000 tokens with none or most of them disabled.

    python bench/pool.py

Prints microseconds for `lease`, `succeeded` and `release` together: the best of several rounds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from k2think.credentials.credential import Credential
from k2think.credentials.pool import Pool
from k2think.credentials.rotation import Strategy

ROUNDS = 9
LEASES = 5000


def cost(pool: Pool) -> float:
    """Microseconds for one request's way through the pool."""
    best = float("inf")
    affinities = [b"conversation %d" % number for number in range(LEASES)]
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for affinity in affinities:
            lease = pool.lease(1.0, affinity=affinity)
            pool.succeeded(lease)
            pool.release(lease)
        best = min(best, time.perf_counter() - began)
    return best / LEASES * 1e6


def main() -> None:
    print(f"{'strategy':<12} {'tokens':>8} {'disabled':>9} {'µs':>7}")
    for strategy in get_args(Strategy):
        for tokens in (10, 1_000, 100_000):
            pool = Pool([Credential.of(f"token {n}") for n in range(tokens)], max_failures=3, strategy=strategy)
            for share in (0.0, 0.9):
                for index in range(int(tokens * share)):
                    pool.disable(index)
                print(f"{strategy:<12} {tokens:>8} {share:>9.0%} {cost(pool):>7.2f}")


if __name__ == "__main__":
    main()
