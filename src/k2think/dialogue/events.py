"""The one vocabulary between everything: what an answer is made of, piece by piece.

An answer is any number of deltas, one `Finish`, then one `Usage`. Upstreams produce events, readers rewrite them,
dialects turn them into frames. Structs of msgspec: as small as tuples, built faster than dataclasses.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Literal, TypeAlias

from msgspec import Struct

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]


class TextDelta(Struct, frozen=True, gc=False):
    """The next piece of the answer."""

    text: str


class ReasoningDelta(Struct, frozen=True, gc=False):
    """The next piece of the thinking."""

    text: str


class ToolCallStart(Struct, frozen=True, gc=False):
    """A call of a tool begins; `index` counts the calls of one answer from 0."""

    index: int
    id: str
    name: str


class ToolCallDelta(Struct, frozen=True, gc=False):
    """The next piece of a call's arguments; the pieces together are one JSON object."""

    index: int
    arguments: str


class Finish(Struct, frozen=True, gc=False):
    """The answer is complete, and why."""

    reason: FinishReason


class Usage(Struct, frozen=True, gc=False):
    """Tokens spent. `reasoning_tokens` are part of `completion_tokens`; -1 where the upstream did not say."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int = -1
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


Event: TypeAlias = TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | Finish | Usage


def joined(events: Sequence[Event]) -> Sequence[Event]:
    """The same answer with fewer deltas: neighbouring ones of text are one."""
    out: list[Event] = []
    for kind, alike in groupby(events, type):
        run: list[Any] = list(alike)
        out += [TextDelta("".join([event.text for event in run]))] if kind is TextDelta else run
    return out
