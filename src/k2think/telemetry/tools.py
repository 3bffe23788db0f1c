"""How often calls of tools and JSON answers came out right, so that somebody can see whether the model manages them."""

from __future__ import annotations

from collections import Counter
from typing import Any, get_args

from k2think.dialogue.outcome import Outcome

MAX_NAMES = 500
"""Tools counted by name. Clients choose the names, so there is no end to them."""

MAX_NAME = 100
"""Characters of a name that are kept."""

OTHERS = "(other)"
"""The name for tools beyond these."""


class ToolStats:
    """Counts since the start, by tool and in all. An answer may count more than once: asked again, then parsed."""

    def __init__(self, max_names: int = MAX_NAMES) -> None:
        self._max_names = max_names
        self._by_name: dict[str, Counter[Outcome]] = {}
        self._others: Counter[Outcome] = Counter()
        self._total: Counter[Outcome] = Counter()
        self._structured: Counter[Outcome] = Counter()

    def count(self, name: str, outcome: Outcome) -> None:
        """A call of the tool `name` came to this."""
        self._total[outcome] += 1
        name = name[:MAX_NAME]
        counter = self._by_name.get(name)
        if counter is None:
            if name == OTHERS or len(self._by_name) >= self._max_names:
                counter = self._others
            else:
                counter = self._by_name[name] = Counter()
        counter[outcome] += 1

    def count_structured(self, outcome: Outcome) -> None:
        """A JSON answer came to this."""
        self._structured[outcome] += 1

    def as_dict(self) -> dict[str, Any]:
        """All counts: `total` and `structured_output` by outcome, `tools` by name and outcome."""
        tools = {name: _shown(self._by_name[name]) for name in sorted(self._by_name)}
        if self._others:
            tools[OTHERS] = _shown(self._others)
        return {"total": _shown(self._total), "tools": tools, "structured_output": _shown(self._structured)}


def _shown(counter: Counter[Outcome]) -> dict[str, int]:
    return {outcome: counter[outcome] for outcome in get_args(Outcome)}
