"""A whole answer, collected from its events: what a client gets that did not ask for a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from msgspec import Struct

from k2think.dialogue.events import (
    Event,
    Finish,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from k2think.dialogue.prompt import ToolCall


class Completion(Struct, frozen=True):
    """One answer. `finish_reason` is None and `usage` empty only if the events ended early."""

    text: str
    reasoning: str
    calls: tuple[ToolCall, ...]
    finish_reason: FinishReason | None
    usage: Usage


class Collector:
    """Takes events, gives the Completion."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[tuple[ToolCallStart, list[str]]] = []
        self._finish: FinishReason | None = None
        self._usage = Usage(0, 0)

    def feed_all(self, events: Sequence[Event]) -> None:
        """Take the next events."""
        for event in events:
            match event:
                case TextDelta(text):
                    self._text.append(text)
                case ReasoningDelta(text):
                    self._reasoning.append(text)
                case ToolCallStart():
                    self._calls.append((event, []))
                case ToolCallDelta(index, arguments):
                    self._calls[index][1].append(arguments)
                case Finish(reason):
                    self._finish = reason
                case Usage():
                    self._usage = event
                case _:
                    assert_never(event)

    def completion(self) -> Completion:
        """What has been collected."""
        return Completion(
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            calls=tuple(ToolCall(start.id, start.name, "".join(pieces)) for start, pieces in self._calls),
            finish_reason=self._finish,
            usage=self._usage,
        )
