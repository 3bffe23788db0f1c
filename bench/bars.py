"""The bars: what the gateway has to reach, as data. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.figures import Figures, difference, ratio

GATEWAY = "gateway"
AT_32 = "32 clients"


@dataclass(frozen=True)
class Bar:
    """Something to reach: at least, or at most, a number."""

    name: str
    wanted: float
    unit: str
    value: Callable[[Figures], float | None]
    at_least: bool = False
    aim: float | None = None
    is_rate: bool = False
    """Whether it counts answers or events a second, and so can also be told by the median."""

    def met(self, figures: Figures) -> bool | None:
        """Whether it is reached; `None` where it was not measured."""
        value = self.value(figures)
        if value is None:
            return None
        return value >= self.wanted if self.at_least else value <= self.wanted

    def __str__(self) -> str:
        aim = f" (aim {self.aim:g})" if self.aim is not None else ""
        return f"{'≥' if self.at_least else '≤'} {self.wanted:,g}{self.unit}{aim}"


def requests_over(other: str) -> Callable[[Figures], float | None]:
    return lambda f: ratio(f.requests_per_second("whole", AT_32, GATEWAY), f.requests_per_second("whole", AT_32, other))


def events_over(other: str) -> Callable[[Figures], float | None]:
    return lambda f: ratio(f.events_per_second("burst", AT_32, GATEWAY), f.events_per_second("burst", AT_32, other))


def added(case: str, step: str, *path: str) -> Callable[[Figures], float | None]:
    return lambda f: f.added(case, step, GATEWAY, *path)


def lost(step: str) -> Callable[[Figures], float | None]:
    """Frames that did not arrive, and answers that broke off, in any round."""

    def count(figures: Figures) -> float | None:
        found = [figures.worst("paced", step, GATEWAY, name) for name in ("lost", "errors")]
        return None if None in found else sum(number or 0 for number in found)

    return count


def row(case: str, step: str, name: str) -> Callable[[Figures], float | None]:
    return lambda f: f.row(case, step, GATEWAY, name)


def slower_by_large_pool(figures: Figures) -> float | None:
    """By how many percent fewer requests are answered with 100,000 tokens than with 10."""
    few, many = (
        figures.requests_per_second("pool", "whole, 32 clients", pool) for pool in ("10 tokens", "100000 tokens")
    )
    share = ratio(difference(few, many), few)
    return None if share is None else share * 100


THOUSAND = "1000 streams at 50/s"
FAST = "100 streams at 1000/s"

BARS = (
    Bar(
        "Whole answers at 32 clients, to nginx",
        0.10,
        " ×",
        requests_over("nginx"),
        at_least=True,
        aim=0.30,
        is_rate=True,
    ),
    Bar("Whole answers at 32 clients, to LiteLLM", 30, " ×", requests_over("litellm"), at_least=True, is_rate=True),
    Bar("Bursts at 32 clients, to nginx", 0.12, " ×", events_over("nginx"), at_least=True, aim=0.25, is_rate=True),
    Bar(
        "Bursts at 32 clients",
        120_000,
        " events/s",
        lambda f: f.events_per_second("burst", AT_32, GATEWAY),
        at_least=True,
        is_rate=True,
    ),
    Bar("One client, added p50", 0.7, " ms", added("latency", "1 client", "latency_ms", "p50")),
    Bar("One client, added p99", 2, " ms", added("latency", "1 client", "latency_ms", "p99")),
    Bar(
        "First event of one more stream beside 100, added p99",
        2,
        " ms",
        added("paced", "1 more beside 100 at 50/s", "first_ms", "p99"),
    ),
    Bar("1,000 streams at 50/s, lost frames", 0, "", lost(THOUSAND)),
    Bar("1,000 streams at 50/s, added between two frames, p99", 50, " ms", added("paced", THOUSAND, "gap_ms", "p99")),
    Bar("100 streams at 1,000/s, lost frames", 0, "", lost(FAST)),
    Bar("Memory when idle", 80, " MB", lambda f: f.row("memory", "1000 open streams", GATEWAY, "idle_mb")),
    Bar("Memory for each open stream", 40, " KB", row("memory", "1000 open streams", "stream_kb")),
    Bar("Memory gained under mixed load", 1, " MB/min", row("soak", "mixed load", "slope_mb")),
    Bar("Start to the first answer", 1.0, " s", row("start", "first answer", "seconds")),
    Bar("Prompt of 1 MB, added p50", 10, " ms", added("size", "prompt of 1024 KB", "latency_ms", "p50")),
    Bar("100,000 tokens, slower than 10 by", 5, " %", slower_by_large_pool, is_rate=True),
)
