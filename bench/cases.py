"""What is measured: the cases as data, and the few that are more than a load on a server.

`ONLY=name` chooses among `NAMES`. A case takes a `Run`, measures, and leaves figures behind; what they mean is said by
the report.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.figures import Row, middle, slope
from bench.loads import Load, LoadFailed, outcome
from bench.machine import pinned
from bench.processes import NotStarted
from bench.rounds import Rounds, Step, Target, awake
from bench.servers import ROOT, Ground, Server

CPU = frozenset({"cpu"})
TOOL = """"tools":[{"type":"function","function":{"name":"get_weather","description":"The weather of a city.",\
"parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}}]"""
KB = 1024
WARMUP = 0.3


@dataclass(frozen=True)
class Length:
    """How long clients ask again and again: for so many seconds, or until so many answers have come.

    Where a machine stands still most of the time, seconds may bring too few answers for a median.
    """

    seconds: float
    answers: int = 0


def steps(length: Length) -> list[Step]:
    """The cases that are nothing but loads on the servers in turn."""
    seconds = length.seconds
    timed = Length(seconds)
    return [
        Step("latency", clients(1), again(length)),
        *(Step("whole", clients(n), again(length, clients=n)) for n in (1, 8, 32, 128)),
        *(
            Step("burst", clients(n), stream(length, clients=n), also=CPU if n == 32 else frozenset())
            for n in (1, 8, 32, 128)
        ),
        Step(
            "paced",
            "1 more beside 100 at 50/s",
            again(timed, stream=True),
            beside=paced(100, frames=int(50 * (seconds + 5)), each=50),
        ),
        Step("paced", "100 streams at 50/s", paced(100, frames=64, each=50)),
        Step("paced", "500 streams at 50/s", paced(500, frames=64, each=50), also=CPU, heavy=True),
        Step("paced", "1000 streams at 50/s", paced(1000, frames=64, each=50), heavy=True),
        Step("paced", "100 streams at 1000/s", paced(100, frames=2000, each=1000), heavy=True),
        Step("paced", "1 stream at 2000/s", paced(1, frames=4000, each=2000), heavy=True),
        Step("paced", "8 streams at 2000/s", paced(8, frames=4000, each=2000), heavy=True),
        *(Step("size", f"prompt of {n} KB", again(timed, prompt=n * KB), heavy=True) for n in (1, 32, 256, 1024, 4096)),
        *(
            Step("size", f"answer of {n} events", again(timed, stream=True, words=n), heavy=True)
            for n in (10, 100, 1_000, 10_000)
        ),
    ]


def clients(number: int) -> str:
    return f"{number} clients" if number > 1 else "1 client"


def again(length: Length, **fields: Any) -> Load:
    """Clients that ask again and again."""
    if length.answers:
        return Load(requests=length.answers, **fields)
    return Load(seconds=length.seconds, warmup=WARMUP, **fields)


def stream(length: Length, clients: int) -> Load:
    """Answers of 200 events in one go."""
    return again(length, clients=clients, stream=True, words=200)


def paced(streams: int, *, frames: int, each: int) -> Load:
    """Streams that all begin at once; of `frames` each, `each` of them a second."""
    return Load(clients=streams, at_once=True, stream=True, words=frames, interval=1_000_000 // each)


@dataclass
class Run:
    """One run of the benchmark: where servers come from, what measures them, and what came out."""

    ground: Ground
    rounds: Rounds
    times: int
    length: Length
    soak_minutes: float
    upstream: Server
    rows: list[Row] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def note(self, case: str, text: str) -> None:
        self.notes[case] = text
        self.rounds.say(f"{case}: {text}")

    def row(self, case: str, step: str, target: str, **values: float) -> None:
        """A row of figures that come from no load."""
        self.rows.append(Row(case, step, target, values))
        shown = ", ".join(f"{name} {value:,.2f}" for name, value in values.items())
        self.rounds.say(f"{case:<9} {step:<34} {target:<14} {shown}")


def variants(run: Run) -> None:
    """What the gateway's options cost."""
    with (
        run.ground.gateway(run.upstream) as default,
        run.ground.gateway(run.upstream, ENABLE_ACCESS_LOG="false") as silent,
    ):
        targets = [
            Target("default", default),
            Target("hidden", default, '"reasoning_format":"hidden"'),
            Target("raw", default, '"reasoning_format":"raw"'),
            Target("tools", default, TOOL),
            Target("log off", silent),
        ]
        loads = [
            Step("variants", "whole, 32 clients", again(run.length, clients=32)),
            Step("variants", "burst, 32 clients", stream(run.length, clients=32)),
        ]
        run.rounds.measure(loads, targets, run.times)


def pool(run: Run) -> None:
    """Whether a large pool is slower, asked through the gateway and of the pool itself."""
    with contextlib.ExitStack() as stack:
        targets = [
            Target(f"{n} tokens", stack.enter_context(run.ground.gateway(run.upstream, tokens=n)))
            for n in (10, 1_000, 100_000)
        ]
        run.rounds.measure([Step("pool", "whole, 32 clients", again(run.length, clients=32))], targets, run.times)
    with pinned(run.ground.cores.server):
        command = (sys.executable, ROOT / "bench" / "pool.py")
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout
    for strategy, tokens, share, cost in re.findall(r"^(\w+) +(\d+) +(\d+)% +([\d.]+)$", printed, re.MULTILINE):
        run.row("pool", f"{strategy}, {share}% disabled", f"{tokens} tokens", us=float(cost))


def memory(run: Run) -> None:
    """What a server holds when idle, and for each open stream."""
    for name, server in _fresh(run):
        with awake(server):
            run.rounds.loader.run(Load(clients=4, requests=100), server)
            idle = server.process.rss_kb()
            idle_pss = server.process.pss_kb()
            idle_files = server.process.open_files()
            streams = 1000 if name != "litellm" else 100
            busiest = (idle_files, idle)
            # A frame a second for ten times a round's length: all are open at once also where opening them takes long.
            lasting = paced(streams, frames=max(1, round(10 * run.length.seconds)), each=1)
            with run.rounds.loader.started(lasting, server) as child:
                while child.poll() is None:
                    busiest = max(busiest, (server.process.open_files(), server.process.rss_kb()))
                    time.sleep(0.1)
            files, highest = busiest
            # Two sockets each.
            together = (files - idle_files) / 2
            if not together:
                raise LoadFailed(f"{name} had no stream open.")
        run.row(
            "memory",
            f"{streams} open streams",
            name,
            idle_mb=idle / KB,
            idle_pss_mb=idle_pss / KB,
            stream_kb=(highest - idle) / together,
            together=together,
        )


def start(run: Run) -> None:
    """From the start of the process to its first answered request."""
    taken: dict[str, list[float]] = {}
    for _ in range(max(3, run.times)):
        run.rounds.pulse.beat()
        for name, server in _fresh(run):
            taken.setdefault(name, []).append(server.start_seconds)
    for name, seconds in taken.items():
        run.row("start", "first answer", name, seconds=middle(seconds), longest=max(seconds))


def workers(run: Run) -> None:
    """What more processes give, where there are cores for them and a setting that asks for them."""
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    if not re.search(r"^(# )?WORKERS=", example, re.MULTILINE):
        run.note("workers", "not measured: the gateway has no setting for several processes.")
        return
    cores = sorted(run.ground.cores.server | run.ground.cores.others)
    if len(cores) < 3:
        run.note("workers", f"not measured: with {len(cores)} cores there is none left for the load.")
        return
    # A quarter of the cores, at least one, for the load and the upstream, which are many times as fast.
    spare = max(1, len(cores) // 4)
    cores, others = cores[:-spare], frozenset(cores[-spare:])
    counts = [n for n in (1, 2, 4, 8, 16) if n <= len(cores)]
    with contextlib.ExitStack() as stack:
        targets = [
            Target(
                f"WORKERS={n}",
                stack.enter_context(run.ground.gateway(run.upstream, cores=frozenset(cores[:n]), WORKERS=str(n))),
            )
            for n in counts
        ]
        targets.insert(0, Target("direct", run.upstream))
        with run.rounds.loader.on(others):
            step = Step("workers", "whole, 128 clients", again(run.length, clients=128))
            run.rounds.measure([step], targets, run.times)


def soak(run: Run) -> None:
    """Whether memory grows under a mixed load."""
    if not run.soak_minutes:
        run.note("soak", "not measured: make bench SOAK=minutes.")
        return
    seconds = run.soak_minutes * 60
    for_all = Length(seconds)
    mixed = [
        again(for_all, clients=8),
        again(for_all, clients=4, stream=True, words=200),
        again(for_all, clients=50, stream=True, words=50, interval=20_000),
        again(for_all, clients=2, prompt=256 * KB),
    ]
    points: list[tuple[float, float]] = []
    with run.ground.gateway(run.upstream) as server, contextlib.ExitStack() as stack, awake(server):
        children = [stack.enter_context(run.rounds.loader.started(load, server)) for load in mixed]
        began = time.monotonic()
        while any(child.poll() is None for child in children) and time.monotonic() < began + seconds + 60:
            points.append(((time.monotonic() - began) / 60, server.process.rss_kb() / KB))
            server.process.check()
            if len(points) % 60 == 0:
                run.rounds.say(f"soak      {points[-1][0]:.0f} of {run.soak_minutes:g} min, {points[-1][1]:.1f} MB")
            time.sleep(1)
        for load, child in zip(mixed, children, strict=True):
            if failed := outcome(load, child)["errors"]:
                run.rounds.failures.append(f"soak: {failed} answers failed.")
    settled = points[len(points) // 5 :]  # what warms up is not what leaks
    run.row("soak", "mixed load", "gateway", slope_mb=slope(settled), first_mb=settled[0][1], last_mb=settled[-1][1])


def _fresh(run: Run) -> Iterator[tuple[str, Server]]:
    """Each kind of server, newly started and alone."""
    for name, opened in (("nginx", run.ground.nginx), ("gateway", run.ground.gateway), ("litellm", run.ground.litellm)):
        try:
            with opened(run.upstream) as server:
                yield name, server
        except FileNotFoundError:
            continue


SPECIAL: dict[str, Callable[[Run], None]] = {
    "variants": variants,
    "pool": pool,
    "memory": memory,
    "start": start,
    "workers": workers,
    "soak": soak,
}
NAMES = ("latency", "whole", "burst", "paced", "cpu", "variants", "size", "pool", "memory", "start", "workers", "soak")


def measure(run: Run, targets: Sequence[Target], only: str) -> None:
    """Measure the cases: all, or the one named."""
    chosen = [step for step in steps(run.length) if not only or only in {step.case, *step.also}]
    run.rounds.measure(chosen, targets, run.times)
    for name, case in SPECIAL.items():
        if not only or only == name:
            try:
                case(run)
            except (LoadFailed, NotStarted, OSError, subprocess.SubprocessError) as failure:
                run.rounds.failures.append(f"{name}: {failure}")
                run.rounds.say(run.rounds.failures[-1])
