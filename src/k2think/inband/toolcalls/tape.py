"""Text that arrives cut anywhere, for readers that are written as if it were all there.

A reader is a generator that yields whenever it needs more text, and is resumed when there is some. So where the text
was cut cannot change what it reads.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Reading: TypeAlias = Generator[None, None, T]
"""Yields where text is missing; returns what was read."""

BLANKS = " \t\r\n"

MAX_BLANKS = 1024
"""Blanks in a row, where it is not yet sure that a call is read."""

_BLANKS = re.compile(rf"[{BLANKS}]*")


class NotACall(Exception):
    """What was read is text after all; the reading goes on where it is."""


class Tape:
    """The text, and the place up to which it was read. What is taken while it records can be given back."""

    def __init__(self) -> None:
        self.text = ""
        self.place = 0
        self.ended = False
        self._recording = False
        self._recorded: list[str] = []

    def feed(self, text: str) -> None:
        """There is more text."""
        self.text = self.text[self.place :] + text
        self.place = 0

    def take(self, end: int) -> str:
        """Read up to the place `end`."""
        taken = self.text[self.place : end]
        self.place = end
        if self._recording:
            self._recorded.append(taken)
        return taken

    def take_next(self, count: int = 1) -> str:
        """Read `count` characters."""
        return self.take(self.place + count)

    def ahead(self, count: int) -> str:
        """The next `count` characters, as far as they are there, without taking them."""
        return self.text[self.place : self.place + count]

    def record(self) -> None:
        """Begin to record."""
        self._recording = True
        self._recorded.clear()

    def recorded(self) -> str:
        """End the recording, and give what was taken meanwhile."""
        text = "".join(self._recorded)
        self._recording = False
        self._recorded.clear()
        return text

    def more(self) -> Reading[bool]:
        """Wait for more text; False: there is none."""
        length = len(self.text) - self.place
        while not self.ended:
            yield
            if len(self.text) - self.place > length:
                return True
        return False

    def peek(self) -> Reading[str]:
        """Give the next character, without taking it; empty at the end."""
        while self.place == len(self.text):
            if not (yield from self.more()):
                return ""
        return self.text[self.place]

    def skip_blanks(self, limit: int | None = MAX_BLANKS) -> Reading[str]:
        """Take blanks, and give the next character. Raises `NotACall` if they are more than `limit`."""
        count = 0
        while True:
            found = _BLANKS.match(self.text, self.place)
            assert found is not None
            count += len(found[0])
            self.take(found.end())
            if limit is not None and count > limit:
                raise NotACall
            if self.place < len(self.text):
                return self.text[self.place]
            if not (yield from self.more()):
                return ""

    def run(self, pattern: re.Pattern[str], limit: int) -> Reading[str]:
        """Give the longest run that `pattern` (a class of characters with a star) matches, up to `limit` characters.

        Takes nothing.
        """
        while True:
            end = self.place + limit
            found = pattern.match(self.text, self.place, end)
            assert found is not None
            if found.end() < min(end, len(self.text)) or found.end() == end:
                return found[0]
            if not (yield from self.more()):
                return found[0]

    def quoted(self, allowed: Collection[str]) -> Reading[str]:
        """At a quotation mark: take the quotation, give its word. Raises `NotACall` as soon as it is none of these."""
        quote = self.take_next()
        longest = max(map(len, allowed))
        while True:
            word, ended, _ = self.ahead(longest + 1).partition(quote)
            if ended:
                if word not in allowed:
                    raise NotACall
                self.take_next(len(word) + 1)
                return word
            if not any(one.startswith(word) for one in allowed) or not (yield from self.more()):
                raise NotACall

    def until(
        self, pattern: re.Pattern[str], reserve: int, limit: int | None = None
    ) -> Reading[tuple[str, re.Match[str] | None]]:
        """Take all up to where `pattern` matches, and give it with the match, which is not taken; None: at the end.

        `reserve`: how long a match may be at most, if it begins with `<` (0: one character, of any kind). Raises
        `NotACall` behind `limit` characters.
        """
        pieces: list[str] = []
        count = 0
        while True:
            end = len(self.text) if limit is None else min(len(self.text), self.place + limit - count + 1)
            found = pattern.search(self.text, self.place, end)
            if found is not None:
                pieces.append(self.take(found.start()))
                return "".join(pieces), found
            safe = end
            if reserve:
                begun = self.text.rfind("<", max(self.place, end - reserve), end)
                safe = begun if begun >= 0 else end
            count += safe - self.place
            pieces.append(self.take(safe))
            if limit is not None and count > limit:
                raise NotACall
            if end == len(self.text) and not (yield from self.more()):
                pieces.append(self.take(len(self.text)))
                return "".join(pieces), None

    def untake(self, text: str) -> None:
        """Put back what was taken last."""
        self.text = text + self.text[self.place :]
        self.place = 0
