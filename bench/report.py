"""Writes a run down as Markdown: the bars, then a table for each case. Pure: figures in, text out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.bars import BARS, Bar
from bench.figures import Figures, ratio

NAMES = {"direct": "upstream itself", "floor": "libraries alone", "litellm": "LiteLLM"}


@dataclass(frozen=True)
class Circumstances:
    """What a reader must know to believe the figures."""

    date: str
    command: str
    cores: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    absent: Sequence[str]
    notes: Mapping[str, str]
    failures: Sequence[str]
    repeated: int
    rounds: int
    seconds: float
    answers: int
    stolen: float


def report(figures: Figures, about: Circumstances) -> str:
    """The whole text."""
    parts = [
        "# What the gateway carries\n",
        f"Written by `{about.command}` on {about.date}; how to read it: [README.md](README.md).\n",
        _circumstances(figures, about),
        _bars(figures),
        _latency(figures),
        _rates(figures, "whole", "Whole answers", requests=True),
        _rates(figures, "burst", "Streams of 200 words in a burst", requests=False),
        _first_events(figures),
        _paced(figures),
        _cpu(figures),
        _variants(figures),
        _size(figures),
        _pool(figures),
        _memory(figures),
        _start(figures),
        _rates(figures, "workers", "Several processes", requests=True),
        _soak(figures),
        _notes(about),
    ]  # fmt: skip
    return "\n".join(part for part in parts if part)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; nothing if it has no rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}", *lines]) + "\n"


def number(value: float | None) -> str:
    """A figure with about three digits that mean something."""
    if value is None:
        return "–"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def name(target: str) -> str:
    return NAMES.get(target, target)


def _circumstances(figures: Figures, about: Circumstances) -> str:
    disturbed, all_rounds = figures.disturbed()
    software = ", ".join(f"{program} {version}" for program, version in about.versions.items())
    machine = ", ".join(f"{what} {value}" for what, value in about.machine.items())
    facts = [
        f"Machine: {machine}; {about.cores}.",
        f"Software: {software}.",
        (
            f"Each figure is the median of {about.rounds} interleaved rounds of {about.seconds:g} s"
            + (f" (rates: of {about.answers} answers)" if about.answers else "")
            + ", or of all streams once."
        ),
        (
            f"Disturbance: {disturbed} of {all_rounds} rounds were kept although the machine stood still in them; "
            f"{about.repeated} more were thrown away for it and made again. "
            f"The hypervisor took {about.stolen:.1%} of the server's core."
        ),
        (
            "The gateway runs with its defaults, which write a log line for each request (here to a file), and 10 "
            "tokens; nginx and LiteLLM log nothing."
        ),
        "The gateway asks upstream for a stream also where the client does not; nginx passes on the upstream's JSON.",
        "*Libraries alone* is [floor.py](floor.py): uvicorn, msgspec and the gateway's HTTP client, nothing else.",
        *about.absent,
    ]
    lines = [f"- {fact}" for fact in facts]
    return "\n".join(lines) + "\n"


def _bars(figures: Figures) -> str:
    words = {True: "met", False: "**not met**", None: "not measured"}
    by_median = figures.by_median()

    def row(bar: Bar) -> tuple[str, ...]:
        middle = number(bar.value(by_median)) if bar.is_rate else ""
        return bar.name, str(bar), number(bar.value(figures)), words[bar.met(figures)], middle

    return "## The bars\n\n" + table(("what", "wanted", "measured", "", "by the median"), map(row, BARS))


def _latency(figures: Figures) -> str:
    def row(target: str) -> list[str]:
        at = ("latency", "1 client", target, "latency_ms")
        values = [figures.measured(*at, "p50"), figures.measured(*at, "p99")]
        values += [figures.added(*at, "p50"), figures.added(*at, "p99")]
        return [name(target), *map(number, values)]

    heads = ("ms", "p50", "p99", "added p50", "added p99")
    return _section("One client", "Whole answers of a few words.", table(heads, map(row, figures.targets("latency"))))


def _rates(figures: Figures, case: str, title: str, *, requests: bool) -> str:
    unit = "requests/s" if requests else "events/s"
    rate = figures.requests_per_second if requests else figures.events_per_second
    at_median = figures.requests_at_median if requests else figures.events_at_median

    targets = figures.targets(case)
    compared = [target for target in ("nginx", "floor", "litellm") if target in targets and "gateway" in targets]

    def row(step: str, value: Callable[[str, str, str], float | None]) -> list[str]:
        ratios = [ratio(value(case, step, "gateway"), value(case, step, other)) for other in compared]
        return [step, *(number(value(case, step, target)) for target in targets), *map(number, ratios)]

    heads = [*map(name, targets), *(f"gateway ÷ {name(other)}" for other in compared)]
    counted = table([f"{unit}, counted", *heads], (row(step, rate) for step in figures.steps(case)))
    by_median = table([f"{unit}, by the median", *heads], (row(step, at_median) for step in figures.steps(case)))
    return _section(title, "", "\n".join(part for part in (counted, by_median) if part))


def _first_events(figures: Figures) -> str:
    targets = figures.targets("burst")
    rows = (
        [step, *(number(figures.measured("burst", step, target, "first_ms", "p50")) for target in targets)]
        for step in figures.steps("burst")
    )
    return table(["ms to the first event, p50", *map(name, targets)], rows)


def _paced(figures: Figures) -> str:
    def row(step: str, target: str) -> list[str]:
        at = ("paced", step, target)
        first = [figures.added(*at, "first_ms", part) for part in ("p50", "p99")]
        delay = [figures.added(*at, "delay_ms", part) for part in ("p50", "p99")]
        gap = figures.measured(*at, "gap_ms", "p99")
        lost, errors = figures.worst(*at, "lost"), figures.worst(*at, "errors")
        return [step, name(target), f"{lost or 0:.0f}", f"{errors or 0:.0f}", *map(number, [*first, *delay, gap])]

    targets = figures.targets("paced")
    rows = [
        row(step, target)
        for step in figures.steps("paced")
        for target in targets
        if figures.worst("paced", step, target, "errors") is not None
    ]
    heads = ("streams", "through", "lost", "errors", "first p50", "first p99", "delay p50", "delay p99", "gap p99")
    text = (
        "Milliseconds. *First* (to the first text) and *delay* (of each frame, from its writing to its reading) are "
        "what a server adds to the upstream itself under the same load, so the upstream's own rows are 0. *Gap* is the "
        "time between two frames of a stream as it came. All streams of a row begin at the same moment, so the last "
        "of them waits for the others' beginnings; *1 more beside 100* is a client that asks for short streams while "
        "100 run."
    )
    return _section("Paced streams", text, table(heads, rows))


def _cpu(figures: Figures) -> str:
    wanted = [("burst", step) for step in figures.steps("burst")]
    wanted += [("paced", step) for step in figures.steps("paced") if not step.startswith("1 more")]
    targets = [target for target in figures.targets("burst") if target != "direct"]
    rows = (
        [f"{case}, {step}", *(number(figures.cpu_us(case, step, target)) for target in targets)]
        for case, step in wanted
    )
    return _section("Processor time of the server for each event", "", table(["µs", *map(name, targets)], rows))


def _variants(figures: Figures) -> str:
    burst, whole = "burst, 32 clients", "whole, 32 clients"

    def row(target: str) -> list[str]:
        values = [
            figures.requests_per_second("variants", whole, target),
            figures.requests_at_median("variants", whole, target),
            figures.events_per_second("variants", burst, target),
            figures.events_at_median("variants", burst, target),
            figures.cpu_us("variants", burst, target),
        ]
        return [target, *map(number, values)]

    heads = ("gateway", "whole: requests/s", "by the median", "burst: events/s", "by the median", "µs an event")
    text = (
        "*Default*: thinking as a field of its own, request log on. The others differ in one thing: thinking *hidden*, "
        "*raw* tags, one of the client's *tools* declared, request *log off*."
    )
    return _section("The gateway's options", text, table(heads, map(row, figures.targets("variants"))))


def _size(figures: Figures) -> str:
    targets = figures.targets("size")

    def row(step: str) -> list[str]:
        direct = figures.measured("size", step, "direct", "latency_ms", "p50")
        values = [figures.added("size", step, target, "latency_ms", "p50") for target in targets if target != "direct"]
        return [step, number(direct), *map(number, values)]

    heads = ("one client, p50 ms", "upstream itself", *(f"added by {name(one)}" for one in targets if one != "direct"))
    return _section("Large questions and answers", "", table(heads, map(row, figures.steps("size"))))


def _pool(figures: Figures) -> str:
    step = "whole, 32 clients"
    sizes = figures.targets("pool")
    rows: list[list[str]] = []
    if sizes:
        counted = [number(figures.requests_per_second("pool", step, size)) for size in sizes]
        by_median = [number(figures.requests_at_median("pool", step, size)) for size in sizes]
        rows = [["requests/s, counted", *counted], ["requests/s, by the median", *by_median]]
    for line in figures.steps("pool"):
        if line != step:
            rows.append([f"µs in the pool: {line}", *(number(figures.row("pool", line, size, "us")) for size in sizes)])
    return _section("Many tokens", "", table(["whole, 32 clients", *sizes], rows))


def _memory(figures: Figures) -> str:
    rows = (
        [name(target), step, *(number(figures.row("memory", step, target, value)) for value in values)]
        for step in figures.steps("memory")
        for target in figures.targets("memory")
        if figures.row("memory", step, target, "idle_mb") is not None
        for values in [("idle_mb", "idle_pss_mb", "stream_kb", "together")]
    )
    heads = ("", "with", "idle, MB", "idle, MB, shared pages once", "KB a stream", "streams open together")
    return _section("Memory", "After 100 requests, and at the most while all streams are open.", table(heads, rows))


def _start(figures: Figures) -> str:
    rows = (
        [name(one), *(number(figures.row("start", "first answer", one, value)) for value in ("seconds", "longest"))]
        for one in figures.targets("start")
    )
    return _section("Start", "", table(("s to the first answered request", "median", "longest"), rows))


def _soak(figures: Figures) -> str:
    values = ("slope_mb", "first_mb", "last_mb")
    rows = (
        [name(target), *(number(figures.row("soak", "mixed load", target, value)) for value in values)]
        for target in figures.targets("soak")
    )
    return _section("Soak", "", table(("mixed load", "MB/min", "MB at first", "MB in the end"), rows))


def _notes(about: Circumstances) -> str:
    lines = [f"- {case}: {text}" for case, text in about.notes.items()] + [f"- {failure}" for failure in about.failures]
    return "## Not measured, or otherwise than meant\n\n" + "\n".join(lines) + "\n" if lines else ""


def _section(title: str, text: str, figures: str) -> str:
    if not figures:
        return ""
    return f"## {title}\n\n" + (f"{text}\n\n" if text else "") + figures
