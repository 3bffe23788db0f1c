"""The machine of a run: which core is whose, what it is called, and whether it stands still now and then.

The server under test is alone on one core; everything else (upstream, load, this program) shares the others. Rented
machines are throttled, and neighbours are noisy: before and after each round a fixed loop of Python is timed on the
server's core, while nothing else runs there.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

TOLERATED = 1.5  # times the best loop of the run: beyond that a round counts as disturbed
LOOP = 2_500_000  # passes, for some tens of milliseconds


@dataclass(frozen=True)
class Cores:
    """Who runs where."""

    server: frozenset[int]
    others: frozenset[int]

    @classmethod
    def divide(cls, available: Iterable[int]) -> Cores:
        """The first core for the server, the rest for the others; a single core is shared."""
        first, *rest = sorted(available)
        return cls(frozenset({first}), frozenset(rest or [first]))

    def __str__(self) -> str:
        server, others = (", ".join(map(str, sorted(cores))) for cores in (self.server, self.others))
        return f"server under test on core {server}; upstream, load and everything else on core {others}"


@contextlib.contextmanager
def pinned(cores: Iterable[int]) -> Iterator[None]:
    """Keep this process, and those that it starts, on these cores for the length of the block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass
class Pulse:
    """Times the loop, and knows the best time of the run."""

    cores: frozenset[int]
    times: list[float] = field(default_factory=list)

    def beat(self) -> float:
        """Seconds that the loop takes on the server's core now."""
        with pinned(self.cores):
            began = time.perf_counter()
            for _ in range(LOOP):
                pass
            taken = time.perf_counter() - began
        self.times.append(taken)
        return taken

    def disturbed(self, *beats: float) -> bool:
        return max(beats) > TOLERATED * min(self.times)


def available_cores() -> set[int]:
    """The cores that we may use."""
    return os.sched_getaffinity(0)


def allow_many_files() -> None:
    """Let this process, and those that it starts, open as many sockets as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def processor() -> str:
    """The processor's name, as Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.machine()


def description() -> dict[str, str]:
    """What a reader must know of the machine; nothing that tells whose it is."""
    return {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }
