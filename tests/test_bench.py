"""The benchmark: its smallest case through the real gateway, and that it says truly what was measured."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree as ET

import pytest
from bench import servers
from bench.bars import BARS, Bar
from bench.cases import NAMES, SPECIAL, Length, paced, steps
from bench.chart import chart
from bench.figures import Figures, Row, difference, rate_at_median, ratio, slope
from bench.loads import Load, Loader, LoadFailed
from bench.machine import TOLERATED, Cores, Pulse, available_cores
from bench.processes import Process
from bench.report import Circumstances, report, table
from bench.rounds import TRIES, Round, Rounds, Step, Target
from bench.servers import Ground, Server
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]
COMPILER = shutil.which("cc")

needs_compiler = pytest.mark.skipif(
    COMPILER is None or not sys.platform.startswith("linux"), reason="The benchmark needs Linux and a C compiler."
)


# Through the real gateway


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """Where servers are started, with both programs compiled."""
    programs = tmp_path_factory.mktemp("programs")
    for name in ("upstream", "load"):
        source = ROOT / "bench" / f"{name}.c"
        options = ("-O1", "-Wall", "-Wextra", "-Werror", "-std=gnu11")
        subprocess.run(("cc", *options, "-o", programs / name, source, "-lm"), check=True)
    return Ground(programs, tmp_path_factory.mktemp("bench"), Cores.divide(available_cores()))


@pytest.fixture(scope="module")
def rounds(ground: Ground) -> Rounds:
    loader = Loader(ground.programs, ground.directory, ground.cores)
    return Rounds(loader, Pulse(ground.cores.server), ground.cores, print)


def undealt_port() -> int:
    """A free port out of those that the system deals to nobody who does not name it."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(1024, lowest) or range(1024, 65536), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("There is none.")


@needs_compiler
def test_the_smallest_cases_run_through_the_gateway(
    ground: Ground, rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A port that was free a moment ago may be that of another test by the time the gateway takes it.
    monkeypatch.setattr(servers, "free_port", undealt_port)
    loads = [
        Step("whole", "2 clients", Load(clients=2, requests=10)),
        Step("burst", "2 clients", Load(clients=2, requests=10, stream=True, words=20)),
        Step("paced", "4 streams", paced(4, frames=10, each=200)),
    ]
    with ground.upstream() as upstream, ground.gateway(upstream) as gateway:
        rounds.measure(loads, [Target("direct", upstream), Target("gateway", gateway)], 1)
        processes = [upstream.process.pid, *gateway.process.family()]
        assert gateway.process.rss_kb() >= gateway.process.pss_kb() > 1000
        assert gateway.process.open_files() > 3
        assert gateway.start_seconds > 0
    figures = Figures(rounds.all)
    assert rounds.failures == []
    for step in loads:
        for target in ("direct", "gateway"):
            assert figures.worst(step.case, step.name, target, "errors") == 0
    whole = figures.measured("whole", "2 clients", "gateway", "requests")
    assert whole is not None
    assert whole >= 10
    assert (figures.requests_per_second("whole", "2 clients", "gateway") or 0) > 0
    assert (figures.measured("burst", "2 clients", "gateway", "events") or 0) >= 10 * 20
    assert figures.worst("paced", "4 streams", "gateway", "lost") == 0
    assert (figures.measured("paced", "4 streams", "gateway", "delay_ms", "p50") or 0) > 0
    assert (figures.cpu_us("burst", "2 clients", "gateway") or 0) >= 0
    assert [pid for pid in processes if Path(f"/proc/{pid}").exists()] == []


@needs_compiler
def test_a_load_that_nobody_answers_is_no_measurement(ground: Ground, rounds: Rounds) -> None:
    with ground.upstream() as upstream:
        elsewhere = replace(upstream, port=1)
        with pytest.raises(LoadFailed):
            rounds.loader.run(Load(requests=1), elsewhere)


# Rounds


def a_round(**fields: Any) -> Round:
    usual: dict[str, Any] = {
        "case": "whole",
        "step": "32 clients",
        "target": "gateway",
        "number": 0,
        "load": Load(clients=32),
        "measured": measured(),
        "cpu_seconds": 0.5,
        "beats": (0.01, 0.01),
        "stolen_seconds": 0.0,
        "seconds": 1.0,
        "disturbed": False,
    }
    return Round(**{**usual, **fields})


def measured(requests: int = 100, p50: float = 10.0, **fields: Any) -> dict[str, Any]:
    spread = {"p50": p50, "p90": p50, "p99": 2 * p50, "max": 3 * p50}
    usual = {"seconds": 2.0, "requests": requests, "errors": 0, "reconnects": 0, "events": 10 * requests, "lost": 0}
    return {**usual, "latency_ms": spread, "first_ms": spread, "delay_ms": spread, "gap_ms": spread, **fields}


class Scripted(Rounds):
    """Rounds whose measurements are given."""

    script: Iterator[Round | LoadFailed]

    def _try(self, step: Step, target: Target, load: Load, number: int) -> Round:
        found = next(self.script)
        if isinstance(found, LoadFailed):
            raise found
        return replace(found, case=step.case, step=step.name, target=target.name, number=number, load=load)


def scripted(*script: Round | LoadFailed) -> Scripted:
    cores = Cores.divide([0, 1])
    rounds = Scripted(Loader(Path(), Path(), cores), Pulse(cores.server), cores, print)
    rounds.script = iter(script)
    return rounds


STEP = Step("whole", "32 clients", Load(clients=32, seconds=1))


TARGET = Target("gateway", Server("gateway", process=cast("Process", None), port=1))


def test_a_disturbed_round_is_made_again_and_the_last_one_kept() -> None:
    """Never the best one: here the first that is undisturbed is slower than the one thrown away."""
    rounds = scripted(a_round(measured=measured(900), disturbed=True), a_round(measured=measured(100)))
    rounds.measure([STEP], [TARGET], 1)
    assert [one.kept for one in rounds.all] == [False, True]
    assert Figures(rounds.all).requests_per_second("whole", "32 clients", "gateway") == 50
    assert Figures(rounds.all).disturbed() == (0, 1)


def test_a_round_that_stays_disturbed_is_kept_and_counted() -> None:
    rounds = scripted(*(a_round(measured=measured(100 * n), disturbed=True) for n in range(1, TRIES + 1)))
    rounds.measure([STEP], [TARGET], 1)
    assert [one.measured["requests"] for one in rounds.all if one.kept] == [100 * TRIES]
    assert Figures(rounds.all).disturbed() == (1, 1)


def test_targets_take_turns_and_one_that_fails_is_left_out_and_told() -> None:
    other = replace(TARGET, name="nginx")
    rounds = scripted(a_round(), LoadFailed("No answer was counted."), a_round())
    rounds.measure([STEP], [TARGET, other], 2)
    assert [(one.target, one.number) for one in rounds.all] == [("gateway", 0), ("gateway", 1)]
    assert rounds.failures == ["whole, 32 clients, nginx: No answer was counted."]


def test_what_is_too_heavy_for_a_slow_peer_is_not_asked_of_it() -> None:
    slow = Target("litellm", replace(TARGET.server, name="litellm"))
    rounds = scripted()
    rounds.measure([replace(STEP, heavy=True)], [slow], 2)
    assert rounds.all == []


def test_a_loop_that_took_much_longer_than_the_best_is_a_disturbance() -> None:
    pulse = Pulse(frozenset({0}), [0.010, 0.012])
    assert not pulse.disturbed(0.010, 0.010 * TOLERATED)
    assert pulse.disturbed(0.010, 0.0101 * TOLERATED)
    assert pulse.disturbed(0.0101 * TOLERATED, 0.010)


def test_the_loop_is_timed_on_the_servers_core_and_remembered() -> None:
    before = available_cores()
    pulse = Pulse(Cores.divide(before).server)
    assert pulse.times == [pulse.beat()]
    assert pulse.times[0] > 0
    assert available_cores() == before


@pytest.mark.parametrize(
    ("available", "server", "others"), [([3], {3}, {3}), ([0, 1], {0}, {1}), ([5, 2, 7], {2}, {5, 7})]
)
def test_the_server_has_a_core_to_itself_where_there_are_two(
    available: list[int], server: set[int], others: set[int]
) -> None:
    assert Cores.divide(available) == Cores(frozenset(server), frozenset(others))


# Figures


def test_a_figure_is_the_median_of_the_rounds() -> None:
    rounds = [a_round(measured=measured(n, p50)) for n, p50 in ((100, 8.0), (500, 1.0), (200, 4.0))]
    figures = Figures(rounds)
    at = ("whole", "32 clients", "gateway")
    assert figures.requests_per_second(*at) == 100
    assert figures.events_per_second(*at) == 1000
    assert figures.measured(*at, "latency_ms", "p50") == 4
    assert figures.requests_at_median(*at) == 8000
    assert figures.events_at_median(*at) == 80_000
    by_median = figures.by_median()
    assert (by_median.requests_per_second(*at), by_median.events_per_second(*at)) == (8000, 80_000)
    assert by_median.cpu_us(*at) == 250
    assert figures.cpu_us(*at) == 250
    assert figures.measured("whole", "1 client", "gateway", "latency_ms", "p50") is None
    assert figures.requests_at_median("whole", "1 client", "gateway") is None


def test_what_must_not_happen_is_counted_in_the_worst_round() -> None:
    figures = Figures(a_round(measured=measured(lost=lost)) for lost in (0, 3, 0))
    assert figures.worst("whole", "32 clients", "gateway", "lost") == 3
    assert figures.worst("whole", "32 clients", "nginx", "lost") is None


def test_added_is_the_figure_less_that_of_the_upstream() -> None:
    figures = Figures([a_round(measured=measured(p50=3.0)), a_round(target="direct", measured=measured(p50=0.5))])
    assert figures.added("whole", "32 clients", "gateway", "latency_ms", "p50") == 2.5
    assert figures.added("whole", "32 clients", "gateway", "latency_ms", "p99") == 5
    assert figures.added("whole", "32 clients", "nginx", "latency_ms", "p99") is None


def test_what_was_not_measured_makes_no_ratio_and_no_difference() -> None:
    assert ratio(1.0, None) is ratio(None, 1.0) is ratio(1.0, 0.0) is None
    assert difference(1.0, None) is difference(None, 1.0) is None
    assert (ratio(1.0, 4.0), difference(1.0, 4.0)) == (0.25, -3.0)


@given(st.integers(1, 1000), st.floats(0.01, 1e5))
def test_by_the_median_all_clients_are_served_in_the_median_time(clients: int, p50_ms: float) -> None:
    assert rate_at_median(clients, p50_ms) * p50_ms / 1000 == pytest.approx(clients)


@given(st.floats(-100, 100), st.floats(-100, 100), st.integers(2, 50))
def test_the_slope_of_a_line_is_found(rise: float, foot: float, count: int) -> None:
    assert slope([(x, foot + rise * x) for x in range(count)]) == pytest.approx(rise, abs=1e-6)


# Bars


@pytest.mark.parametrize(
    ("value", "at_least", "met"),
    [(2.0, False, True), (2.1, False, False), (2.0, True, True), (1.9, True, False), (None, True, None)],
)
def test_a_bar_is_met_or_not_or_not_measured(value: float | None, at_least: bool, met: bool | None) -> None:
    assert Bar("Speed", 2, " ms", lambda _: value, at_least=at_least).met(Figures([])) is met


def test_no_bar_is_met_by_measuring_nothing() -> None:
    assert {bar.met(Figures([])) for bar in BARS} == {None}


def test_every_bar_asks_for_something_that_is_measured() -> None:
    """A whole run, as far as names go, leaves no bar open."""
    assert [bar.name for bar in BARS if bar.met(everything()) is None] == []


def test_a_frame_lost_in_one_round_fails_its_bar() -> None:
    (bar,) = (bar for bar in BARS if bar.name == "1,000 streams at 50/s, lost frames")
    calm = a_round(case="paced", step="1000 streams at 50/s")
    assert bar.met(Figures([calm])) is True
    assert bar.met(Figures([calm, calm, replace(calm, measured=measured(lost=1))])) is False
    assert bar.met(Figures([replace(calm, measured=measured(errors=1))])) is False


# Report and chart


def everything() -> Figures:
    """As if all had been measured, nginx twice as fast as the gateway and LiteLLM slower by a factor of a hundred."""
    rates = {"direct": 1000, "nginx": 200, "gateway": 100, "litellm": 1}
    rounds = [
        a_round(case=step.case, step=step.name, target=target, load=step.load, measured=measured(rate))
        for step in steps(Length(1))
        for target, rate in rates.items()
    ]
    rounds += [
        a_round(case="pool", step="whole, 32 clients", target=target) for target in ("10 tokens", "100000 tokens")
    ]
    rows = [
        Row(
            "memory",
            "1000 open streams",
            "gateway",
            {"idle_mb": 70.0, "idle_pss_mb": 60.0, "stream_kb": 30.0, "together": 1e3},
        ),
        Row("start", "first answer", "gateway", {"seconds": 0.8, "longest": 0.9}),
        Row("soak", "mixed load", "gateway", {"slope_mb": 0.1, "first_mb": 80.0, "last_mb": 81.0}),
    ]
    return Figures(rounds, rows)


def circumstances(**fields: Any) -> Circumstances:
    usual: dict[str, Any] = {
        "date": "2026-01-02",
        "command": "make bench",
        "cores": "server on core 0",
        "machine": {"kernel": "Linux 6"},
        "versions": {"nginx": "1.2"},
        "absent": [],
        "notes": {},
        "failures": [],
        "repeated": 2,
        "rounds": 3,
        "seconds": 3.0,
        "answers": 0,
        "stolen": 0.125,
    }
    return Circumstances(**{**usual, **fields})


def test_the_report_says_what_was_measured_and_on_what() -> None:
    text = report(everything(), circumstances(absent=["There is no nginx here."], failures=["pool: It ended."]))
    assert "| Whole answers at 32 clients, to nginx | ≥ 0.1 × (aim 0.3) | 0.50 | met |" in text
    assert "| 32 clients | 500 | 100 | 50.0 | 0.50 | 0.50 | 100 |" in text
    assert "nginx 1.2" in text
    assert "There is no nginx here." in text
    assert "pool: It ended." in text
    assert "12.5%" in text
    assert f"0 of {everything().disturbed()[1]} rounds were kept although" in text
    assert "None" not in text


def test_the_report_of_one_case_leaves_the_others_out() -> None:
    text = report(Figures([a_round(disturbed=True)]), circumstances())
    assert "## Whole answers" in text
    assert "## Memory" not in text
    assert "1 of 1 rounds were kept although" in text
    assert "not measured" in text
    assert "**not met**" not in text


def test_a_table_without_rows_is_none() -> None:
    assert table(("a", "b"), []) == ""
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n|---|---:|\n| 1 | 2 |\n"


def test_the_chart_has_a_bar_for_each_the_longer_the_faster() -> None:
    root = ET.fromstring(chart(everything()))
    bars = root.findall("{http://www.w3.org/2000/svg}rect")
    nginx, gateway, litellm = (float(bar.attrib["width"]) for bar in bars[:3])
    assert len(bars) == 6
    assert 0 < litellm < gateway < nginx <= float(root.attrib["width"])
    assert "LiteLLM" in chart(everything())


def test_the_chart_of_nothing_is_empty() -> None:
    assert ET.fromstring(chart(Figures([]))).findall("{http://www.w3.org/2000/svg}rect") == []


# Cases


def test_every_case_has_a_name_and_every_name_a_case() -> None:
    loads = steps(Length(1))
    known = {step.case for step in loads} | {name for step in loads for name in step.also} | set(SPECIAL)
    assert known == set(NAMES)


def test_the_readme_tells_every_case() -> None:
    told = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"| `{name}` |" not in told] == []


def test_a_load_gives_no_secret_to_the_process_list(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-secret")
    load = Load(clients=3, seconds=1.5, warmup=0.3, extra='"user":"sk-other"')
    told = list(map(str, load.arguments(replace(TARGET.server, key=key), tmp_path / "extra")))
    assert "sk-" not in " ".join(told)
    assert told[told.index("--key") + 1] == str(key)
    assert (tmp_path / "extra").read_text() == '"user":"sk-other"'
    assert told[told.index("--warmup") + 1] == "0.3"
    assert "--open" not in told
