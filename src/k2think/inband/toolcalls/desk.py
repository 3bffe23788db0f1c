"""The end of the call reader: what it reads becomes events here, and each call is checked before it counts.

While a call is written, its arguments go out piece by piece (`live`), or are held until they are complete, checked and
mended. A held call that cannot be used is a reason to ask the model again; where that is not possible any more, it is
given back as the text that it was.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from k2think.dialogue.events import Event, TextDelta, ToolCallDelta, ToolCallStart
from k2think.dialogue.outcome import Outcome
from k2think.dialogue.prompt import Toolbox
from k2think.inband.checking import ArgumentChecker, Parameter
from k2think.inband.toolcalls.tape import BLANKS

Written: TypeAlias = str | Sequence[Parameter] | dict[str, Any]
"""Arguments as a format gives them: JSON text, texts between tags, or Python's values."""

MAX_BLANKS = 16 * 1024
"""Blanks kept back. A longer run is text."""


class Handling(Struct, frozen=True):
    """What may be done with an answer's calls.

    `live`: pieces go out as they come. `may_ask`: the model can be asked again; `undo`: and nobody has seen anything of
    the answer until it is complete. `text`: it goes out as it comes; it waits for a call, and then goes first; or it
    waits, and a call takes its place (as much had been said before the model was asked again).
    """

    live: bool
    may_ask: bool
    undo: bool
    text: Literal["first", "wait", "drop"] = "first"


class CallDesk:
    """Takes text and calls in their order; `take` gives the events.

    `problem`: why the model should be asked again, for the model to read; from then on nothing is given. `full`: all
    calls that were allowed have been made. `cut_off`: the answer was ended from outside, as too long or unwanted.
    `begun` counts the calls that were read, `made` those that went out; `outcomes` says what became of each, by the
    tool's name.
    """

    def __init__(self, toolbox: Toolbox, checker: ArgumentChecker, handling: Handling) -> None:
        self.problem = ""
        self.full = False
        self.cut_off = False
        self.outcomes: list[tuple[str, Outcome]] = []
        self.begun = 0
        self.made = 0
        self._toolbox = toolbox
        self._checker = checker
        self._handling = handling
        self._events: list[Event] = []
        self._blanks = ""  # at the end of the text: they go if a call follows
        self._waiting: list[str] | None = None if handling.text == "first" else []
        self._name = ""  # of the call that is being read
        self._pieces: list[str] = []
        self._given_back = False  # the last call turned out to be text, and so is what belongs to it
        self._seen = False  # something of a call has gone out

    @property
    def live(self) -> bool:
        """Whether nothing of a call needs to be kept, because it goes out as it comes."""
        return self._handling.live

    @property
    def over(self) -> bool:
        """Whether the rest of the answer counts no more."""
        return self.full or bool(self.problem)

    def idle(self) -> bool:
        """Whether text without blanks at its end could go out as it comes."""
        return not (self._blanks or self._waiting is not None or self.full or self.problem)

    def text(self, text: str) -> None:
        """Text of the answer."""
        self._given_back = False
        if self.full or self.problem:
            return
        if self._waiting is not None:
            self._waiting.append(text)
            return
        body = text.rstrip(BLANKS)
        if body or len(self._blanks) > MAX_BLANKS:
            self._events.append(TextDelta(self._blanks + body))
            self._blanks = ""
        self._blanks += text[len(body) :]

    def aside(self, text: str) -> None:
        """What belongs to the call before it and means nothing by itself: closing tags, brackets, blanks."""
        if self._given_back:
            self.text(text)
            self._given_back = True

    def begin(self, name: str) -> None:
        """A call of this tool has begun, for sure."""
        self.begun += 1
        self._name = name
        self._pieces.clear()
        self._given_back = False
        if self._handling.live and not self.over:
            self._start()

    def piece(self, arguments: str) -> None:
        """The next piece of its arguments, as correct JSON."""
        if not arguments:
            return
        self._pieces.append(arguments)
        if self._handling.live and not self.over:
            self._events.append(ToolCallDelta(self.made, arguments))

    def end(self, written: Written | None, source: str, *, mended: bool = False, cut: bool = False) -> None:
        """The call is complete. `written`: its arguments, None if the pieces were; `source`: all of its text.

        `mended`: something was not as it should be. `cut`: the text ended before the call did.
        """
        if self.over:
            return
        if cut and self.cut_off:
            self._give_up(source)
            return
        if self._handling.live:
            self._end_live(written, mended=mended)
            return
        checked = self._checker.check(self._name, "".join(self._pieces) if written is None else written)
        if not checked.fault:
            self._start()
            self._events.append(ToolCallDelta(self.made, checked.arguments))
            self._made("repaired" if mended or checked.repaired else "parsed")
        elif self._handling.may_ask and (self._handling.undo or not self._seen):
            self.problem = f"The call of '{self._name}' cannot be used: {checked.fault}"
            self.outcomes.append((self._name, "reasked"))
        else:
            self._give_up(source)

    def close(self) -> None:
        """The answer has ended."""
        if self.full or self.problem:
            return
        if self._toolbox.required and not self.made and not self.cut_off and self._handling.may_ask and not self._seen:
            self.problem = "No function was called, but you must call one."
            return
        self._release()
        if self._blanks and not self.made:
            self._events.append(TextDelta(self._blanks))
        self._blanks = ""

    def take(self) -> list[Event]:
        """The events since the last time."""
        events, self._events = self._events, []
        return events

    def _end_live(self, written: Written | None, *, mended: bool) -> None:
        text = "".join(self._pieces)
        checked = self._checker.check(self._name, text if written is None else written)
        if not text:
            self._events.append(ToolCallDelta(self.made, checked.arguments))
        # What has left cannot be mended any more.
        fits = not checked.fault and (not text or checked.arguments == text)
        self._made("failed" if not fits else "repaired" if mended or checked.repaired else "parsed")

    def _give_up(self, source: str) -> None:
        """The call cannot be had. What has left of it stays unfinished, as its arguments are; else it is text."""
        if self._handling.live:
            self._made("failed")
            return
        self.outcomes.append((self._name, "failed"))
        self.text(source)
        self._given_back = True

    def _start(self) -> None:
        if self._handling.text == "drop":
            self._waiting = None
        self._release()
        self._blanks = ""
        self._seen = True
        self._events.append(ToolCallStart(self.made, f"call_{uuid.uuid4().hex[:24]}", self._name))

    def _made(self, outcome: Outcome) -> None:
        self.outcomes.append((self._name, outcome))
        self.made += 1
        self.full = not self._toolbox.parallel

    def _release(self) -> None:
        if self._waiting is not None:
            text, self._waiting = "".join(self._waiting), None
            self.text(text)
