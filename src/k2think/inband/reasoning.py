"""Parts the thinking from the answer in the text of a model that writes both into one stream.

Here a text becomes tokens, and everything that is no text passes. What the tags mean is in `parts`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby, repeat
from operator import contains
from typing import Any

from k2think.dialogue.events import Event, ReasoningDelta, TextDelta, Usage
from k2think.inband.parts import Observed, Opener, Parter
from k2think.inband.scanner import BLANKS, TagScanner

_GAP = f"[{BLANKS}]{{0,64}}"
_ORDINARY = re.compile(
    rf"{_GAP}<think>[{BLANKS}]*+([^<]++)(?<![{BLANKS}]{{64}})</think>"
    rf"{_GAP}<answer>([{BLANKS}]*+[^<`~]++)(?<![\"'])(?<![{BLANKS}]{{64}})</answer>"
)
"""What nearly all whole answers are: the tags are meant, no code is in the answer, and no blanks need be kept back."""


class ReasoningReader:
    """A Machine: the upstream's events in; out come the same, with their text as TextDelta and ReasoningDelta.

    Whatever is no text passes behind all that was held; Usage passes at once. Thinking that came by its own channel
    passes too, and what text follows it at the head is answer.
    """

    __slots__ = ("_fresh", "_parter", "_plain", "_scanner")

    def __init__(self, opener: Opener = "present") -> None:
        self._scanner = TagScanner()
        self._parter = Parter(opener)
        self._plain: type[TextDelta | ReasoningDelta] | None = None
        self._fresh = True  # no text has come

    @property
    def observed(self) -> Observed | None:
        """What the text has shown about thinking's opening tag: "present" if the text began with one, "implied" if a
        closing tag came and no opening one before it, None if neither is certain.
        """
        return self._parter.observed

    @property
    def unended(self) -> bool:
        """Whether there was thinking, and nothing has ended it so far."""
        return self._parter.unended

    def feed(self, event: Event) -> Sequence[Event]:
        """Take one event."""
        if type(event) is not TextDelta:
            return self._pass(event)
        text = event.text
        # Nearly all deltas are a few letters that mean nothing to the rules: they need not be taken apart.
        if self._plain is not None and "<" not in text and text[-1:] not in BLANKS and len(text) > 1:
            if self._plain is ReasoningDelta:
                self._scanner.before = text
                return (ReasoningDelta(text),)
            if "\n" not in text and "`" not in text and "~" not in text:
                self._scanner.before = text
                return (event,)
        if self._fresh and (whole := _ORDINARY.fullmatch(text)):
            self._parter.take_whole(*whole.groups())
        else:
            for token in self._scanner.feed(text):
                self._parter.take(token)
        self._fresh = False
        self._plain = None if self._scanner.held else self._parter.plain()
        return self._parter.given()

    def feed_all(self, events: Sequence[Event]) -> Sequence[Event]:
        """Take what one read brought. Text in the middle of a part goes as it is, and is looked at in one piece."""
        out: list[Event] = []
        for kind, alike in groupby(events, type):
            run: list[Any] = list(alike)
            out += self._read([event.text for event in run]) if kind is TextDelta else self._pass_all(run)
        return out

    def close(self) -> Sequence[Event]:
        """The stream has ended: what was held is decided."""
        for token in self._scanner.close():
            self._parter.take(token)
        self._parter.end()
        self._plain = None
        return self._parter.given()

    def _read(self, texts: list[str]) -> list[Event]:
        out: list[Event] = []
        while texts:
            make = None if self._scanner.held else self._parter.flowing()
            count = _plain(texts) if make is not None else 0
            if make is None or not count:
                out += self.feed(TextDelta(texts.pop(0)))
                continue
            run, texts = texts[:count], texts[count:]
            out += map(make, run)
            text = "".join(run)
            self._scanner.remember(text)
            self._parter.pass_by(text)
            self._plain = self._parter.plain()
        return out

    def _pass_all(self, events: list[Event]) -> list[Event]:
        return [out for event in events for out in self._pass(event)]

    def _pass(self, event: Event) -> Sequence[Event]:
        if type(event) is Usage:
            return (event,)  # may come with any chunk, and says nothing about the text
        if type(event) is ReasoningDelta:
            if not event.text:
                return ()
            if not self._parter.native() and not self._scanner.held:
                return (event,)
        return (*self.close(), event)


def _plain(texts: list[str]) -> int:
    """How many of the texts there are before a tag; not counting those at the end whose blanks may belong to one."""
    count = len(texts)
    if "<" in "".join(texts):
        count = [*map(contains, texts, repeat("<"))].index(True)
    while count and (not texts[count - 1] or texts[count - 1][-1] in BLANKS):
        count -= 1
    return count
