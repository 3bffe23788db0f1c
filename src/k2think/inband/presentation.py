"""How thinking is shown to the client: as events of its own, inline in the answer, or not at all.

The last reader of a chain, after the thinking has been told from the answer and the tokens have been counted. It does
not look for tags in the text: that is the reasoning reader's work.
"""

from __future__ import annotations

from collections.abc import Sequence

from k2think.dialogue.events import Event, ReasoningDelta, TextDelta
from k2think.dialogue.machine import Machine
from k2think.dialogue.prompt import ReasoningFormat

OPENER = "<think>"
CLOSER = "</think>\n"


def present(reasoning: ReasoningFormat) -> tuple[Machine[Event, Event], ...]:
    """Give the machines that this format needs, ready to be unpacked into a Chain: none for `parsed`."""
    match reasoning:
        case "parsed":
            return ()
        case "raw":
            return (InlineThinking(),)
        case "hidden":
            return (HiddenThinking(),)


class HiddenThinking:
    """A Machine that leaves the thinking out."""

    def feed(self, event: Event) -> Sequence[Event]:
        """Take one event."""
        return () if type(event) is ReasoningDelta else (event,)

    def close(self) -> Sequence[Event]:
        """Nothing is ever held."""
        return ()


class InlineThinking:
    """A Machine that writes the thinking into the answer, as K2-Think does: `<think>R</think>`, a newline, the answer.

    Each block of thinking gets its own tags. An empty piece of thinking opens none.
    """

    def __init__(self) -> None:
        self._open = False

    def feed(self, event: Event) -> Sequence[Event]:
        """Take one event."""
        if type(event) is ReasoningDelta:
            if not event.text:
                return ()
            if self._open:
                return (TextDelta(event.text),)
            self._open = True
            return (TextDelta(OPENER + event.text),)
        if not self._open:
            return (event,)
        if type(event) is TextDelta:
            if not event.text:
                return ()  # an empty piece of the answer does not end the thinking
            self._open = False
            return (TextDelta(CLOSER + event.text),)
        self._open = False
        return (TextDelta(CLOSER), event)

    def close(self) -> Sequence[Event]:
        """The stream ended, perhaps in the middle of the thinking."""
        if not self._open:
            return ()
        self._open = False
        return (TextDelta(CLOSER),)
