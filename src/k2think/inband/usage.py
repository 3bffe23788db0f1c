"""What an answer cost: in the upstream's figures where it gave them, estimated where it did not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from k2think.dialogue.events import Event, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStart, Usage
from k2think.dialogue.prompt import Prompt
from k2think.inband.tokens import TokenCounter, estimate_tokens

MESSAGE_TOKENS = 4
"""What ChatML puts around each turn."""

REPLY_TOKENS = 3
"""What ChatML opens the answer with."""

CALL_TOKENS = 12
"""What a call has besides its name and arguments."""


def estimate_prompt(prompt: Prompt) -> int:
    """Estimate the tokens of all turns, with what the chat template puts around them."""
    tokens = REPLY_TOKENS + MESSAGE_TOKENS * len(prompt.messages)
    for message in prompt.messages:
        tokens += estimate_tokens(message.text)
        for call in message.calls:
            tokens += CALL_TOKENS + estimate_tokens(call.name) + estimate_tokens(call.arguments)
    return tokens


class UsageMeter:
    """A Machine that passes all events but Usage, and gives exactly one Usage at its close.

    What the upstream said stands, its last word before earlier ones; a zero is no word. The rest is estimated.
    `prompt_tokens` is asked at most once, and only if the upstream did not say. To all that comes what was `spent` on
    earlier attempts. Must stand before the machine that hides the thinking: hidden thinking was paid for too.
    """

    __slots__ = ("_answer", "_calls", "_given", "_prompt_tokens", "_spent", "_thinking")

    def __init__(self, prompt_tokens: Callable[[], int], spent: Usage = Usage(0, 0, 0)) -> None:  # noqa: B008
        self._prompt_tokens = prompt_tokens
        self._spent = spent
        self._thinking = TokenCounter()
        self._answer = TokenCounter()
        self._calls = 0
        self._given = Usage(0, 0)

    def feed(self, event: Event) -> Sequence[Event]:
        """Take one event."""
        if type(event) is TextDelta:
            self._answer.feed(event.text)
        elif type(event) is ReasoningDelta:
            self._thinking.feed(event.text)
        elif type(event) is ToolCallDelta:
            self._answer.feed(event.arguments)
        elif type(event) is ToolCallStart:
            self._calls += CALL_TOKENS + estimate_tokens(event.name)
        elif type(event) is Usage:
            if event.total_tokens:
                self._given = event
            return ()
        return (event,)

    def feed_all(self, events: Sequence[Event]) -> Sequence[Event]:
        """Take what one read brought."""
        out: list[Event] = []
        for kind, alike in groupby(events, type):
            run: list[Any] = list(alike)
            if kind is TextDelta:
                self._answer.feed("".join([event.text for event in run]))
            elif kind is ReasoningDelta:
                self._thinking.feed("".join([event.text for event in run]))
            else:
                run = [event for event in run if self.feed(event)]
            out += run
        return out

    def close(self) -> Sequence[Event]:
        """The stream ended: give what it cost."""
        given = self._given
        completion, reasoning = given.completion_tokens, given.reasoning_tokens
        if not completion or reasoning < 0:
            thinking = self._thinking.total
            estimated = thinking + self._answer.total + self._calls
            completion = completion or estimated
            if reasoning < 0:
                reasoning = round(completion * thinking / estimated) if estimated else 0
        spent = self._spent
        return (
            Usage(
                prompt_tokens=(given.prompt_tokens or self._prompt_tokens()) + spent.prompt_tokens,
                completion_tokens=completion + spent.completion_tokens,
                reasoning_tokens=min(reasoning, completion) + spent.reasoning_tokens,
                cached_tokens=given.cached_tokens + spent.cached_tokens,
            ),
        )
