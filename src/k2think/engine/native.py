"""Remembers what each model's server does by itself: tools and JSON answers.

No server says so beforehand, so all of it is asked for until a server says that it cannot do it. That is forgotten
after a while: the server may have been set up anew, and it may have meant one request only. No clock: callers say what
time it is, in seconds of a clock that never goes back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet

from k2think.errors import RequestRefused, UpstreamError
from k2think.settings.kinds import FEATURES, Feature

MAX_MODELS = 1000
"""Models whose refusals are remembered; the one that refused first is forgotten for another."""

REMEMBERED_FOR = 600.0
"""Seconds after which a feature that was refused is asked for again."""

_TOOLS: frozenset[Feature] = frozenset({"tools"})
_JSON: frozenset[Feature] = frozenset({"json_object", "json_schema"})

# What lies deeper, such as `tools[0].function.parameters`, is one client's mistake and says nothing about the server.
_ABOUT: Mapping[str | None, frozenset[Feature]] = {
    "tools": _TOOLS,
    "tool_choice": _TOOLS,
    "parallel_tool_calls": _TOOLS,
    "response_format": _JSON,
    "response_format.type": _JSON,
    "response_format.json_schema": _JSON,
    "json_schema": _JSON,
    "guided_json": _JSON,
}
_NOTHING: frozenset[Feature] = frozenset()


class Native:
    """The memory. `setting`: what the upstream does for every model; None: to be found out model by model."""

    def __init__(self, setting: Collection[Feature] | None) -> None:
        self._fixed = None if setting is None else frozenset(setting)
        self._refused: dict[str, dict[Feature, float]] = {}  # when each is to be forgotten

    def of(self, model: str, now: float) -> frozenset[Feature]:
        """What the server of `model` (the upstream's id) may be asked to do by itself."""
        if self._fixed is not None:
            return self._fixed
        refused = self._refused.get(model)
        return frozenset(feature for feature in FEATURES if refused.get(feature, now) <= now) if refused else FEATURES

    def learn(self, model: str, error: UpstreamError, used: AbstractSet[str], now: float) -> bool:
        """Remember what `model` cannot do, if `error` says that it is something `used` in the request.

        True: the request is worth another attempt without it, with what `of` gives now.
        """
        if self._fixed is not None or not isinstance(error, RequestRefused) or not error.unsupported:
            return False
        if error.status not in {400, 422}:
            return False
        refused = _ABOUT.get(error.param, _NOTHING) & used
        if not refused:
            return False
        if model not in self._refused and len(self._refused) >= MAX_MODELS:
            del self._refused[next(iter(self._refused))]
        self._refused.setdefault(model, {}).update(dict.fromkeys(refused, now + REMEMBERED_FOR))
        return True
