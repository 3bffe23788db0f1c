"""Calls that a model wrote into its thinking, because it forgot to end that.

As long as thinking is known to have ended, calls in it are drafts and count for nothing. Where it never ended and no
answer came, the last calls in it are what the model wanted to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from k2think.dialogue.events import Event, TextDelta, ToolCallDelta, ToolCallStart
from k2think.inband.toolcalls.desk import CallDesk
from k2think.inband.toolcalls.names import Names

MAX_THINKING = 1024 * 1024
"""Characters of thinking that are remembered; calls would stand at its end."""


class Rescue:
    """Remembers the thinking. `unended` tells whether it never ended; `read` reads the calls of a whole text."""

    def __init__(self, unended: Callable[[], bool], read: Callable[[str], Sequence[Event]]) -> None:
        self._unended = unended
        self._read = read
        self._pieces: list[str] = []
        self._length = 0

    def remember(self, thinking: str) -> None:
        """The next piece of the thinking."""
        self._pieces.append(thinking)
        self._length += len(thinking)
        if self._length > 2 * MAX_THINKING:
            self._pieces = ["".join(self._pieces)[-MAX_THINKING:]]
            self._length = MAX_THINKING

    def call(self, desk: CallDesk, names: Names) -> None:
        """The answer has ended without a call: make those of the thinking, if that never ended."""
        if not self._pieces or not self._unended():
            return
        calls: list[list[str]] = []
        apart = True  # text stands between this call and the one before it
        for event in self._read("".join(self._pieces)):
            if isinstance(event, TextDelta):
                apart = apart or bool(event.text.strip())
            elif isinstance(event, ToolCallStart):
                if apart:
                    calls.clear()
                apart = False
                calls.append([event.name, ""])
            elif isinstance(event, ToolCallDelta):
                calls[-1][1] += event.arguments
        for name, arguments in calls:
            desk.begin(names.of(name))
            desk.piece(arguments)
            desk.end(None, "")
