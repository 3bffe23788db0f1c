"""Measures loads on servers in turn, round for round, and says of each round whether the machine stood still in it.

A disturbed round is made again a few times. If it stays so, the last one is kept and counted: nothing is ever chosen
for being the best. Servers that wait are paused, so that they take no time from the one whose turn it is.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bench.loads import Load, Loader, LoadFailed, outcome
from bench.machine import Cores, Pulse
from bench.processes import steal_seconds
from bench.servers import Server

TRIES = 3
SETTLE_SECONDS = 0.5  # for streams beside to have begun


@dataclass(frozen=True)
class Target:
    """A server under the name that a table shows, and what is added to the body of each request to it."""

    name: str
    server: Server
    extra: str = ""


@dataclass(frozen=True)
class Step:
    """One load of a case. `also` are cases that want it too; `beside` runs all the while without being measured;
    `heavy`: too much for peers that take milliseconds an event.
    """

    case: str
    name: str
    load: Load
    also: frozenset[str] = frozenset()
    beside: Load | None = None
    heavy: bool = False


@dataclass(frozen=True)
class Round:
    """What one load on one server gave, once."""

    case: str
    step: str
    target: str
    number: int
    load: Load
    measured: dict[str, Any]
    cpu_seconds: float
    beats: tuple[float, float]
    stolen_seconds: float
    seconds: float
    disturbed: bool
    kept: bool = True


@dataclass
class Rounds:
    """Everything that was measured, and what could not be."""

    loader: Loader
    pulse: Pulse
    cores: Cores
    say: Callable[[str], None]
    tries: int = TRIES
    all: list[Round] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def measure(self, steps: Sequence[Step], targets: Sequence[Target], rounds: int) -> None:
        """Make every step `rounds` times, on each target in turn."""
        for step in steps:
            broken: set[str] = set()
            for number in range(rounds):
                for target in targets:
                    if target.name in broken or (step.heavy and target.server.name == "litellm"):
                        continue
                    try:
                        self._once(step, target, number)
                    except LoadFailed as failure:
                        broken.add(target.name)
                        self.failures.append(f"{step.case}, {step.name}, {target.name}: {failure}")
                        self.say(self.failures[-1])

    def kept(self) -> list[Round]:
        return [one for one in self.all if one.kept]

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(one) for one in self.all]

    def _once(self, step: Step, target: Target, number: int) -> None:
        load = replace(step.load, extra=target.extra)
        for attempt in range(self.tries):
            found = self._try(step, target, load, number)
            last = not found.disturbed or attempt + 1 == self.tries
            self.all.append(replace(found, kept=last))
            self.say(_line(found))
            if errors := found.measured.get("errors"):
                self.failures.append(f"{step.case}, {step.name}, {target.name}: {errors} answers failed in a round.")
            if last:
                return

    def _try(self, step: Step, target: Target, load: Load, number: int) -> Round:
        server = target.server
        before = self.pulse.beat()
        began, stolen = time.monotonic(), steal_seconds(self.cores.server)
        with awake(server):
            if load.at_once:
                self.loader.run(Load(clients=8, requests=50, extra=load.extra), server)
            with contextlib.ExitStack() as stack:
                if step.beside:
                    stack.enter_context(self.loader.started(replace(step.beside, extra=target.extra), server))
                    time.sleep(SETTLE_SECONDS)
                child = stack.enter_context(self.loader.started(load, server))
                time.sleep(load.warmup)
                cpu = server.process.cpu_seconds()
                measured = outcome(load, child)
                cpu = server.process.cpu_seconds() - cpu
        stolen, lasted = steal_seconds(self.cores.server) - stolen, time.monotonic() - began
        beats = (before, self.pulse.beat())
        disturbed = self.pulse.disturbed(*beats)
        return Round(step.case, step.name, target.name, number, load, measured, cpu, beats, stolen, lasted, disturbed)


@contextlib.contextmanager
def awake(server: Server) -> Iterator[None]:
    """Let a server run for the length of the block; the upstream always does, as everybody needs it."""
    if server.name == "direct":
        yield
        return
    server.process.resume()
    try:
        yield
    finally:
        server.process.pause()


def _line(one: Round) -> str:
    measured = one.measured
    rate = measured["requests"] / measured["seconds"]
    latency = measured["latency_ms"] or {"p50": math.nan, "p99": math.nan}  # none has ended
    trouble = [f"{measured[name]} {name}" for name in ("errors", "lost", "reconnects") if measured.get(name)]
    return (
        f"{one.case:<9} {one.step:<34} {one.target:<14} {rate:>9,.0f} answers/s  "
        f"p50 {latency['p50']:>9.2f} ms  p99 {latency['p99']:>9.2f} ms"
        f"{'  disturbed' if one.disturbed else ''}{'  ' + ', '.join(trouble) if trouble else ''}"
    )
