"""The end of a reader: text becomes events here, and the blanks at both ends of a part wait here for what follows.

Whether blanks belong to the text or to a tag beside them shows only in what comes next. Nothing else is held, and of
blanks no more than `MAX_BLANKS`: a model that has lost its way may write line ends without end.
"""

from __future__ import annotations

from k2think.dialogue.events import Event, ReasoningDelta, TextDelta
from k2think.inband.scanner import BLANKS

MAX_BLANKS = 16 * 1024
"""Characters kept back. A longer run of blanks is text, all of it."""


class Outlet:
    """Collects events for `take`. What is put becomes the kind of delta that `begin` or `go_on` named last."""

    __slots__ = ("_events", "_flowing", "_kept", "_make", "_tail", "closing", "trimming")

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._make: type[TextDelta | ReasoningDelta] = TextDelta
        self._tail: list[str] = []  # blanks, and closing tags that may be text
        self._kept = 0  # characters in _tail
        self._flowing = False  # these blanks are too many to be kept back
        self.closing = False
        """Whether such a closing tag waits."""
        self.trimming = False
        """Whether blanks at the beginning go: a tag stands there, and nothing has been put since."""

    def begin(self, make: type[TextDelta | ReasoningDelta]) -> None:
        """A part begins behind a tag: its leading blanks go."""
        self.drop()
        self._make = make
        self.trimming = True

    def go_on(self, make: type[TextDelta | ReasoningDelta]) -> None:
        """A part goes on: its leading blanks count."""
        self._make = make
        self.trimming = False

    def put(self, text: str) -> None:
        """Give text, but keep back the blanks at its end."""
        if self.trimming:
            text = text.lstrip(BLANKS)
            if not text:
                return
            self.trimming = False
        body = text.rstrip(BLANKS)
        if body:
            self._tail.append(body)
            self.keep()
            text = text[len(body) :]
        if text:
            self._keep_back(text)

    def put_closer(self, text: str) -> None:
        """Give a closing tag that is text if anything but blanks follows it."""
        self._flowing = False
        self._keep_back(text)
        self.closing = bool(self._tail)

    def keep(self) -> None:
        """What is kept back belongs to the text."""
        if self._tail:
            self._events.append(self._make("".join(self._tail)))
        self.drop()

    def drop(self) -> None:
        """What is kept back belongs to a tag."""
        self._tail.clear()
        self._kept = 0
        self._flowing = self.closing = False

    def _keep_back(self, text: str) -> None:
        self._tail.append(text)
        self._kept += len(text)
        if self._flowing or self._kept > MAX_BLANKS:
            self.keep()
            self._flowing = True

    def idle(self) -> bool:
        """Whether text without blanks at its end could go out as it comes."""
        return not (self._tail or self.trimming or self._flowing)

    def give(self, *events: Event) -> None:
        """Give events as they are; only while it is `idle`."""
        self._events += events

    def take(self) -> list[Event]:
        """The events since the last time."""
        events, self._events = self._events, []
        return events
