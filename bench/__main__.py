"""Runs the benchmark: `make bench` builds the two compiled programs and calls this.

    python -m bench [--only whole] [--rounds 3] [--seconds 3] [--soak 10]

Says each step as it goes, writes all rounds into `bench/.build/last.json`, and a whole run into `bench/RESULTS.md` and
`bench/results.svg`. A run of a part leaves those alone and writes `bench/.build/RESULTS.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from bench.cases import NAMES, Length, Run, measure
from bench.chart import chart
from bench.figures import Figures
from bench.loads import Loader
from bench.machine import Cores, Pulse, allow_many_files, available_cores, description, pinned
from bench.report import Circumstances, report
from bench.rounds import TRIES, Rounds, Target
from bench.servers import ROOT, Ground, Server, versions

BUILD = ROOT / "bench" / ".build"
CALIBRATION = 10  # loops before the first round, so that there is a best one to compare with


def main() -> None:
    options = parsed()
    if not sys.platform.startswith("linux"):
        sys.exit("The benchmark needs Linux: it pins processes to cores and reads /proc.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended then too
    allow_many_files()
    cores = Cores.divide(available_cores())
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, pinned(cores.others):
        ground = Ground(options.programs, Path(directory), cores, options.peers)
        loader = Loader(options.programs, Path(directory), cores)
        rounds = Rounds(loader, Pulse(cores.server), cores, say_since(began), options.tries)
        for _ in range(CALIBRATION):
            rounds.pulse.beat()
        with contextlib.ExitStack() as stack:
            upstream = stack.enter_context(ground.upstream())
            targets, absent = started(stack, ground, upstream)
            run = Run(ground, rounds, options.rounds, Length(options.seconds, options.answers), options.soak, upstream)
            measure(run, targets, options.only)
    write(options, run, absent)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures the gateway beside its peers.")
    parser.add_argument("--only", default="", choices=["", *NAMES], metavar="CASE", help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each load, interleaved")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds of each load")
    parser.add_argument(
        "--answers", type=int, default=0, help="answers of each load of whole answers and bursts, instead of seconds"
    )
    parser.add_argument(
        "--tries", type=int, default=TRIES, help="how often a round is made that is disturbed each time"
    )
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="minutes of mixed load")
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments; without it they are left out")
    parser.add_argument("--programs", type=Path, default=BUILD, help="folder of the compiled programs")
    options = parser.parse_args()
    options.programs = options.programs.resolve()  # servers are started in folders of their own
    options.peers = options.peers and options.peers.resolve()
    return options


def say_since(began: float) -> Callable[[str], None]:
    """Progress lines, each with the time since the beginning."""

    def say(text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        print(f"{minutes:>3}:{seconds:02} {text}", flush=True)

    return say


def started(stack: contextlib.ExitStack, ground: Ground, upstream: Server) -> tuple[list[Target], list[str]]:
    """Everybody whom the loads are put on in turn, and who of them is not here."""
    targets = [Target("direct", upstream)]
    absent: list[str] = []
    for opened in (ground.nginx, ground.floor, ground.gateway, ground.litellm):
        try:
            server = stack.enter_context(opened(upstream))
        except FileNotFoundError as missing:
            absent.append(str(missing))
            print(missing, flush=True)
        else:
            targets.append(Target(server.name, server))
    return targets, absent


def write(options: argparse.Namespace, run: Run, absent: list[str]) -> None:
    """Leave the rounds, the report and the chart."""
    BUILD.mkdir(exist_ok=True)
    rounds = run.rounds
    figures = Figures(rounds.all, run.rows)
    text = report(figures, circumstances(options, run, absent))
    raw = {"rounds": rounds.as_json(), "rows": [asdict(row) for row in run.rows], "failures": rounds.failures}
    (BUILD / "last.json").write_text(json.dumps(raw, indent=1), encoding="utf-8")
    folder = BUILD if options.only else ROOT / "bench"
    (folder / "RESULTS.md").write_text(text, encoding="utf-8")
    if not options.only:
        (folder / "results.svg").write_text(chart(figures), encoding="utf-8")
    print(f"\n{text}\nWritten to {(folder / 'RESULTS.md').relative_to(ROOT)}.")


def circumstances(options: argparse.Namespace, run: Run, absent: list[str]) -> Circumstances:
    command = f"make bench ROUNDS={options.rounds} SECONDS={options.seconds:g}"
    command += "".join(
        f" {name}={value:g}"
        for name, value in (("ANSWERS", options.answers), ("PEERS", int(bool(options.peers))), ("SOAK", options.soak))
        if value
    )
    rounds = run.rounds
    thrown_away = sum(not one.kept for one in rounds.all)
    lasted = sum(one.seconds for one in rounds.all)
    return Circumstances(
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        command=command + (f" ONLY={options.only}" if options.only else ""),
        cores=str(run.ground.cores),
        machine=description(),
        versions=versions(run.ground.peers),
        absent=absent,
        notes=run.notes,
        failures=rounds.failures,
        repeated=thrown_away,
        rounds=options.rounds,
        seconds=options.seconds,
        answers=options.answers,
        stolen=sum(one.stolen_seconds for one in rounds.all) / lasted if lasted else 0.0,
    )


if __name__ == "__main__":
    main()
