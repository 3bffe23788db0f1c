"""Puts together what an upstream lacks: writes it into the prompt, and reads it out of the answer with a Chain.

K2-Think's service has no field for thinking, keeps no tool turns and cannot be trusted with stop sequences. The order
of the chain: thinking is told from answer, the answer is cut at a stop sequence, tokens are counted, thinking is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from k2think.dialogue.events import Event
from k2think.dialogue.machine import Chain
from k2think.dialogue.prompt import Message, Prompt
from k2think.inband.history import without_thinking, write_calls
from k2think.inband.limits import StopReader
from k2think.inband.parts import Opener
from k2think.inband.presentation import present
from k2think.inband.reasoning import ReasoningReader
from k2think.inband.usage import UsageMeter, estimate_prompt


class Emulation:
    """One attempt's rewritten `prompt` and the chain that reads its answer. Single-use, like the machines in it."""

    def __init__(self, prompt: Prompt, opener: Opener) -> None:
        self.prompt = msgspec.structs.replace(prompt, messages=_written(prompt.messages))
        self._reasoning = ReasoningReader(opener)
        stops = prompt.sampling.stop
        self._stop = StopReader(stops) if stops else None
        self._chain = Chain(
            self._reasoning,
            *((self._stop,) if self._stop else ()),
            UsageMeter(lambda: estimate_prompt(self.prompt)),
            *present(prompt.reasoning),
        )

    @property
    def satisfied(self) -> bool:
        """Whether the answer is complete although upstream may go on."""
        return self._stop is not None and self._stop.done

    @property
    def observed(self) -> Literal["present", "implied"] | None:
        """How the text began, if it showed."""
        return self._reasoning.observed

    def feed_all(self, events: Sequence[Event]) -> Sequence[Event]:
        """Read what one read brought."""
        return self._chain.feed_all(events)

    def close(self) -> Sequence[Event]:
        """Read the end; gives the `Usage`, at least."""
        return self._chain.close()


def _written(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Earlier turns as the model should see them: without their thinking, calls and results as text."""
    return write_calls(tuple(map(_forgetful, messages)))


def _forgetful(message: Message) -> Message:
    if message.role != "assistant" or (text := without_thinking(message.text)) == message.text:
        return message
    return msgspec.structs.replace(message, text=text)
