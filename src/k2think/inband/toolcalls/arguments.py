"""The arguments of one call, in whichever wrapping a model gives them: an object, or a string that holds one.

A string may again hold a string: a model that escapes once too often is understood all the same.
"""

from __future__ import annotations

import re

from k2think.inband.toolcalls.lenient import LenientJson
from k2think.inband.toolcalls.tape import BLANKS

MAX_WRAPPINGS = 3
"""Strings within strings."""

_WORD_END = re.compile(r"[\s,}\]<`]")
_RUN = re.compile(r"[^\"'\\]+")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class ArgumentsReader:
    """Reads one value; whatever follows it is not touched. `done`, `stuck`: as in `LenientJson`.

    `take` gives an object piece by piece, as correct JSON; `text` is what came instead of an object, once it is `done`.
    """

    def __init__(self, wrapping: int = 0) -> None:
        self.done = False
        self._wrapping = wrapping
        self._json: LenientJson | None = None
        self._string: _String | None = None
        self._words: list[str] = []

    @property
    def stuck(self) -> bool:
        """Whether no rule fits what comes next."""
        if self._string is not None:
            return self._string.inner.stuck
        return self._json is not None and self._json.stuck

    @property
    def mended(self) -> bool:
        """Whether something was not as it should be; a string that holds an object is OpenAI's own form."""
        if self._string is not None:
            return self._string.inner.mended or self._wrapping > 0
        return self._json is not None and self._json.mended

    @property
    def cut(self) -> bool:
        """Whether `close` came in the middle of a string."""
        if self._string is not None:
            return self._string.inner.cut
        return self._json is not None and self._json.cut

    @property
    def is_object(self) -> bool:
        """Whether it is an object, as far as it was read."""
        if self._string is not None:
            return self._string.inner.is_object
        return self._json is not None and self._json.is_object

    @property
    def in_string(self) -> bool:
        """Whether it is wrapped in a string."""
        return self._string is not None

    @property
    def text(self) -> str:
        """What came instead of an object."""
        return self._string.inner.text if self._string is not None else "".join(self._words)

    def feed(self, text: str, place: int = 0) -> int:
        """Read `text` from `place` on; give the place behind what was read."""
        if self._json is None and self._string is None and not self._words:
            place = self._begin(text, place)
        if self._string is not None:
            place = self._string.feed(text, place)
            self.done = self._string.done
        elif self._json is not None:
            place = self._json.feed(text, place)
            self.done = self._json.done
            if not self._json.is_object:
                self._words.append(self._json.take())
        elif self._words:
            place = self._read_word(text, place)
        return place

    def close(self) -> None:
        """The text has ended: supply what is missing."""
        if self._string is not None:
            self._string.inner.close()
        elif self._json is not None:
            self._json.close()
            if not self._json.is_object:
                self._words.append(self._json.take())
        self.done = True

    def take(self) -> str:
        """The pieces of an object since the last time."""
        if self._string is not None:
            return self._string.inner.take()
        return self._json.take() if self._json is not None and self._json.is_object else ""

    def plain(self) -> bool:
        """Whether what is read is neither object nor array nor a further string: any quotation mark ends it."""
        return self._json is None and self._string is None

    def _begin(self, text: str, place: int) -> int:
        while place < len(text) and text[place] in BLANKS:
            place += 1
        if place == len(text):
            return place
        character = text[place]
        if character in "{[":
            self._json = LenientJson()
        elif character in "\"'" and self._wrapping < MAX_WRAPPINGS:
            self._string = _String(character, ArgumentsReader(self._wrapping + 1))
            place += 1
        else:
            self._words.append("")
        return place

    def _read_word(self, text: str, place: int) -> int:
        """A bare word up to what cannot belong to it; within a string everything belongs to it."""
        found = None if self._wrapping else _WORD_END.search(text, place)
        self.done = found is not None
        end = found.start() if found else len(text)
        self._words.append(text[place:end])
        return end


class _String:
    """A JSON string, decoded for the reader of what is in it."""

    def __init__(self, quote: str, inner: ArgumentsReader) -> None:
        self.inner = inner
        self.done = False
        self._quote = quote
        self._escape = ""

    def feed(self, text: str, place: int) -> int:
        """Read up to the mark that ends the string."""
        end = len(text)
        while place < end and not self.done and not self.inner.stuck:
            if self._escape:
                place = self._read_escape(text, place)
            elif self.inner.done:
                place = self._read_end(text, place)
            elif run := _RUN.match(text, place):
                place += self.inner.feed(run[0])
            elif text[place] == "\\":
                self._escape = text[place]
                place += 1
            elif text[place] == self._quote and self.inner.plain():
                self.inner.close()
                self.done = True
                place += 1
            else:  # within an object a mark without its backslash can only belong to it
                place += self.inner.feed(text[place])
        return place

    def _read_end(self, text: str, place: int) -> int:
        """Behind the object: the mark that ends the string, which may have been forgotten."""
        character = text[place]
        if character == self._quote:
            self.done = True
        elif character not in BLANKS and character != "\\":
            self.done = True
            return place
        return place + 1

    def _give(self, text: str) -> None:
        self.inner.feed(text)

    def _read_escape(self, text: str, place: int) -> int:
        character = text[place]
        if self._escape == "\\":
            if character == "u":
                self._escape += character
            else:
                self._escape = ""
                self._give(_ESCAPED.get(character, character))
            return place + 1
        if character not in "0123456789abcdefABCDEF":
            self._give(self._escape)
            self._escape = ""
            return place
        self._escape += character
        if len(self._escape) == len("\\u0000"):
            code = int(self._escape[2:], 16)  # noqa: FURB166 - it has no 0x
            # Half of a pair is no character: the string within, for which it is meant, knows the same escape.
            self._give(self._escape if 0xD800 <= code < 0xE000 else chr(code))
            self._escape = ""
        return place + 1
