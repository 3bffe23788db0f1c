"""Turns rounds into figures: medians over rounds, what a server adds to the upstream, ratios, slopes. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.rounds import Round


def middle(values: Sequence[float]) -> float:
    """The median; of an even number of values the mean of the two in the middle."""
    return statistics.median(values)


def ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def difference(through: float | None, direct: float | None) -> float | None:
    return through - direct if through is not None and direct is not None else None


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The straight line through the points that fits best (least squares): how much it rises for each step along."""
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


def rate_at_median(clients: int, p50_ms: float) -> float:
    """Answers a second that `clients` get if each takes the median time: what the rate would be without standstills."""
    return clients / p50_ms * 1000 if p50_ms else 0.0


@dataclass(frozen=True)
class Row:
    """Figures that come from no load."""

    case: str
    step: str
    target: str
    values: Mapping[str, float]


class Figures:
    """Medians over the rounds that were kept, by case, step and target. `None` is what was not measured."""

    def __init__(self, rounds: Iterable[Round], rows: Iterable[Row] = ()) -> None:
        self._all: dict[tuple[str, str, str], list[Round]] = {}
        for one in rounds:
            self._all.setdefault((one.case, one.step, one.target), []).append(one)
        kept = {place: [one for one in group if one.kept] for place, group in self._all.items()}
        self._groups = {place: group for place, group in kept.items() if group}
        self._rows = {(row.case, row.step, row.target): row for row in rows}

    def by_median(self) -> Figures:
        """The same with each rate by the median."""
        return _ByMedian((one for group in self._all.values() for one in group), self._rows.values())

    def steps(self, case: str) -> list[str]:
        """The case's steps, in the order in which they were measured."""
        return list(dict.fromkeys(step for known, step, _ in [*self._groups, *self._rows] if known == case))

    def targets(self, case: str) -> list[str]:
        return list(dict.fromkeys(target for known, _, target in [*self._groups, *self._rows] if known == case))

    def row(self, case: str, step: str, target: str, value: str) -> float | None:
        """A figure that comes from no load."""
        row = self._rows.get((case, step, target))
        return row.values.get(value) if row else None

    def measured(self, case: str, step: str, target: str, *path: str) -> float | None:
        """A value out of what the load measured, such as `latency_ms`, `p50`."""
        return self._median(case, step, target, lambda one: _at(one.measured, path))

    def requests_per_second(self, case: str, step: str, target: str) -> float | None:
        return self._median(case, step, target, lambda one: _per_second(one, "requests"))

    def events_per_second(self, case: str, step: str, target: str) -> float | None:
        return self._median(case, step, target, lambda one: _per_second(one, "events"))

    def requests_at_median(self, case: str, step: str, target: str) -> float | None:
        """Requests a second if all took the median time: stands disturbance better, but is no count."""
        p50 = self.measured(case, step, target, "latency_ms", "p50")
        return rate_at_median(self._clients(case, step, target), p50) if p50 else None

    def events_at_median(self, case: str, step: str, target: str) -> float | None:
        answers = self.requests_at_median(case, step, target)
        events = self._median(case, step, target, lambda one: one.measured["events"] / max(one.measured["requests"], 1))
        return answers * events if answers is not None and events is not None else None

    def cpu_us(self, case: str, step: str, target: str) -> float | None:
        """Microseconds of the server's processor time for each event that reached the client."""
        return self._median(case, step, target, lambda one: one.cpu_seconds / max(one.measured["events"], 1) * 1e6)

    def added(self, case: str, step: str, target: str, *path: str) -> float | None:
        """What the server adds: its figure less that of the upstream itself under the same load."""
        return difference(self.measured(case, step, target, *path), self.measured(case, step, "direct", *path))

    def worst(self, case: str, step: str, target: str, name: str) -> float | None:
        """The largest count of any round, also of those that were made again: for what must not happen at all."""
        group = self._all.get((case, step, target))
        return max(one.measured.get(name) or 0 for one in group) if group else None

    def disturbed(self) -> tuple[int, int]:
        """How many rounds stayed disturbed, and how many there are."""
        rounds = [one for group in self._groups.values() for one in group]
        return sum(one.disturbed for one in rounds), len(rounds)

    def _clients(self, case: str, step: str, target: str) -> int:
        return self._groups[(case, step, target)][0].load.clients

    def _median(self, case: str, step: str, target: str, value: Any) -> float | None:
        found = [value(one) for one in self._groups.get((case, step, target), [])]
        numbers = [number for number in found if number is not None]
        return middle(numbers) if numbers else None


class _ByMedian(Figures):
    """Figures whose rates are what they would be if all answers took the median time."""

    requests_per_second = Figures.requests_at_median
    events_per_second = Figures.events_at_median


def _per_second(one: Round, name: str) -> float:
    return float(one.measured[name]) / float(one.measured["seconds"])


def _at(tree: Any, path: Sequence[str]) -> float | None:
    for name in path:
        if not isinstance(tree, dict) or tree.get(name) is None:
            return None
        tree = tree[name]
    return float(tree)
