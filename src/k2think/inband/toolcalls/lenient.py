"""JSON as models write it comes in, cut anywhere; JSON as it should be goes out, piece by piece.

Arguments are streamed to the client while they are written, so a mistake must be mended where it stands, without
knowing what follows: single quotes, Python's literals, keys without quotes, a comma too many or (at a line's end) too
few, quotation marks and line ends within strings, escapes that JSON does not know, brackets that are missing at the
end. What is correct passes character for character. Where none of these rules helps the reader is `stuck`.
"""

from __future__ import annotations

import json
import math
import re
from typing import Literal, TypeAlias

MAX_DEPTH = 256
"""Brackets within brackets."""

MAX_WORD = 1024
"""Characters of a number, literal or key without quotes."""

MAX_LOOKAHEAD = 256
"""Blanks behind a quotation mark that are looked through to see whether it ends the string."""

_BLANKS = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(r"[^\s,:{}\[\]\"']*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_RUN = {'"': re.compile(r'[^"\\\x00-\x1f]*'), "'": re.compile(r"[^'\"\\\x00-\x1f]*")}
_LITERALS = {
    **dict.fromkeys(("true", "True", "TRUE"), "true"),
    **dict.fromkeys(("false", "False", "FALSE"), "false"),
    **dict.fromkeys(("null", "None", "NULL", "nil", "undefined", "NaN", "nan"), "null"),
}
_CLOSER = {"{": "}", "[": "]"}
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f", '"': '\\"'}
_KNOWN_ESCAPES = frozenset('"\\/bfnrt')
_DIGITS = {"u": 4, "x": 2, "U": 8}
"""Hexadecimal digits of an escape; JSON knows the first, Python all three."""
_HEX = frozenset("0123456789abcdefABCDEF")

_Expected: TypeAlias = Literal["value", "first value", "key", "first key", "colon", "comma"]


class LenientJson:
    """Reads one object or array; whatever follows it is not touched.

    `done`: its last bracket was read. `stuck`: no rule fits what comes next. `mended`: something was not as it should
    be. `cut`: `close` came in the middle of a string.
    """

    def __init__(self) -> None:
        self.done = self.stuck = self.mended = self.cut = False
        self._out: list[str] = []
        self._stack: list[str] = []
        self._outermost = ""
        self._expected: _Expected = "value"
        self._quote = ""  # in a string: what it began with
        self._key = False  # that string is a key
        self._ending = ""  # a quotation mark that may end the string, and the blanks behind it
        self._escape = ""  # a backslash and what of its escape has come
        self._word = ""  # a number or the like that may go on
        self._comma = ""  # a comma and the blanks behind it, which go if a bracket follows
        self._out_of_comma = False  # a comma came, so the value that is expected may as well be missing

    @property
    def begun(self) -> bool:
        """Whether the first bracket was read."""
        return bool(self._stack) or self.done

    @property
    def is_object(self) -> bool:
        """Whether what is open, or was read, is an object at its outermost."""
        return self._outermost == "{"

    def feed(self, text: str, place: int = 0) -> int:
        """Read `text` from `place` on; give the place behind what was read: its end, unless `done` or `stuck`."""
        end = len(text)
        while place < end and not (self.done or self.stuck):
            if self._quote:
                place = self._read_string(text, place)
            elif self._word:
                place = self._read_word(text, place)
            else:
                place = self._read_token(text, place)
        return place

    def close(self) -> None:
        """The text has ended: supply what is missing."""
        if self.done or not self._stack:
            return
        self.mended = True
        if self._quote:
            self._close_string_at_end()
        if self._word and not self._end_word() and self._expected not in {"key", "first key"}:
            self._put("null")
            self._value_ended()
        self._comma = ""
        if self._expected == "colon":
            self._put(": null")
        elif self._expected == "value" and not self._out_of_comma:
            self._put("null")
        self._put("".join(_CLOSER[bracket] for bracket in reversed(self._stack)))
        self._stack.clear()
        self.done = True

    def take(self) -> str:
        """The correct JSON since the last time."""
        if not self._out:
            return ""
        text = "".join(self._out)
        self._out.clear()
        return text

    def _put(self, text: str) -> None:
        if self._comma:
            self._out.append(self._comma)
            self._comma = ""
        self._out.append(text)

    def _read_token(self, text: str, place: int) -> int:
        blanks = _BLANKS.match(text, place)
        assert blanks is not None
        if blanks.end() > place:
            if self._comma:
                self._comma += blanks[0]
                if len(self._comma) > MAX_LOOKAHEAD:  # nobody needs so many
                    self._comma = self._comma[:MAX_LOOKAHEAD]
            elif self._stack:
                self._out.append(blanks[0])
            return blanks.end()
        character = text[place]
        expected = self._expected
        if expected == "colon":
            if character == ":":
                self._put(":")
                self._expect_value()
                return place + 1
        elif character in "}]":
            return self._close_bracket(character, place)
        elif character == ",":
            return self._read_comma(place)
        elif expected == "comma":
            pass  # two values side by side
        elif character in "\"'":
            self._open_string(character)
            return place + 1
        elif expected in {"key", "first key"}:
            if character.isidentifier():
                return self._read_word(text, place)
        elif character in "{[":
            return self._open_bracket(character, place)
        elif self._stack and (character.isalnum() or character in "+-._"):
            return self._read_word(text, place)
        self.stuck = True
        return place

    def _open_bracket(self, character: str, place: int) -> int:
        if len(self._stack) >= MAX_DEPTH:
            self.stuck = True
            return place
        if not self._stack:
            self._outermost = character
        self._put(character)
        self._stack.append(character)
        self._expected = "first key" if character == "{" else "first value"
        return place + 1

    def _close_bracket(self, character: str, place: int) -> int:
        opener = "{" if character == "}" else "["
        if opener not in self._stack or (self._expected == "value" and not self._out_of_comma):
            self.stuck = True
            return place
        if self._comma:
            self._comma = ""
            self.mended = True
        while self._stack[-1] != opener:  # the inner brackets were forgotten
            self._put(_CLOSER[self._stack.pop()])
            self.mended = True
        self._stack.pop()
        self._put(character)
        self._expected = "comma"
        self._out_of_comma = False
        self.done = not self._stack
        return place + 1

    def _read_comma(self, place: int) -> int:
        if self._expected == "comma":
            self._comma = ","
            self._expected = "key" if self._stack[-1] == "{" else "value"
            self._out_of_comma = True
        elif self._out_of_comma or self._expected in {"first key", "first value"}:
            self.mended = True  # one too many
        else:
            self.stuck = True
            return place
        return place + 1

    def _expect_value(self) -> None:
        self._expected = "value"
        self._out_of_comma = False

    def _value_ended(self) -> None:
        self._expected = "comma"
        self._out_of_comma = False

    # Strings.

    def _open_string(self, quote: str) -> None:
        if not self._stack:
            self.stuck = True  # only objects and arrays are read
            return
        self._quote = quote
        self._key = self._expected in {"key", "first key"}
        self.mended = self.mended or quote == "'"
        self._put('"')

    def _read_string(self, text: str, place: int) -> int:
        if self._ending:
            return self._read_behind_quote(text, place)
        if self._escape:
            return self._read_escape(text, place)
        run = _RUN[self._quote].match(text, place)
        assert run is not None
        if run.end() > place:
            self._out.append(run[0])
            return run.end()
        character = text[place]
        if character == self._quote:
            self._ending = character
        elif character == "\\":
            self._escape = character
        else:
            self.mended = True
            self._out.append(_ESCAPES.get(character) or f"\\u{ord(character):04x}")
        return place + 1

    def _read_behind_quote(self, text: str, place: int) -> int:
        """Whether a quotation mark ends its string shows in what follows it."""
        blanks = _BLANKS.match(text, place, place + MAX_LOOKAHEAD + 1)
        assert blanks is not None
        self._ending += blanks[0]
        place = blanks.end()
        if len(self._ending) > MAX_LOOKAHEAD:
            self._end_string()
            return place
        if place == len(text):
            return place
        character = text[place]
        if character == "," and "," not in self._ending and not self._key:
            self._ending += character
            return place + 1
        if "," in self._ending:
            ends = self._begins_member(character)
        else:
            ends = self._key or character in "}]<" or ("\n" in self._ending and character == "`")
        if ends:
            self._end_string()
        elif self._misses_comma(character):
            self._end_string()
            self._read_comma(place)
            self.mended = True
        else:
            self._go_on_with_string()
        return place

    def _begins_member(self, character: str) -> bool:
        """Whether what follows a comma can be the next value or key, and not the rest of a sentence."""
        if character in "\"'}]" or "\n" in self._ending:
            return True
        return self._stack[-1] == "[" and (character in "{[-tfnTFN" or character.isdigit())

    def _misses_comma(self, character: str) -> bool:
        """Whether a new value, or key, begins behind a quotation mark and blanks."""
        if "," in self._ending:
            return False
        if "\n" in self._ending and self._stack[-1] == "[" and character == "{":
            return True
        return len(self._ending) > 1 and character in {'"', "'"}

    def _go_on_with_string(self) -> None:
        """The quotation mark belongs to the string."""
        self.mended = True
        for written in self._ending:
            self._out.append(_ESCAPES.get(written, written))
        self._ending = ""

    def _end_string(self) -> None:
        before, comma, behind = self._ending[1:].partition(",")
        self._out.append('"' + before)
        self._quote = self._ending = ""
        if self._key:
            self._expected = "colon"
            return
        self._value_ended()
        if comma:
            self._read_comma(0)
            self._comma += behind

    def _close_string_at_end(self) -> None:
        if not self._ending:
            self.cut = True
            self._escape = ""
            self._ending = self._quote
        self._end_string()

    def _read_escape(self, text: str, place: int) -> int:
        character = text[place]
        if self._escape == "\\":
            if character in _KNOWN_ESCAPES:
                self._out.append("\\" + character)
            elif character in _DIGITS:
                self._escape += character
                return place + 1
            else:
                self.mended = True
                # A backslash before a mark or a line end was meant to protect it; before a letter it is itself.
                plain = character in "'`" or character < " "
                self._out.append((_ESCAPES.get(character) or character) if plain else "\\\\" + character)
            self._escape = ""
            return place + 1
        wanted = _DIGITS[self._escape[1]]
        if character in _HEX:
            self._escape += character
            if len(self._escape) < 2 + wanted:
                return place + 1
            self.mended = self.mended or wanted != 4
            self._out.append(_of_code(self._escape[2:]))
            self._escape = ""
            return place + 1
        self.mended = True
        self._out.append("\\" + self._escape)
        self._escape = ""
        return place

    # Words: numbers, literals, keys without quotes.

    def _read_word(self, text: str, place: int) -> int:
        found = _WORD.match(text, place, place + MAX_WORD + 1 - len(self._word))
        assert found is not None
        self._word += found[0]
        place = found.end()
        if len(self._word) > MAX_WORD or (place < len(text) and not self._end_word()):
            self.stuck = True
        return place

    def _end_word(self) -> bool:
        word, self._word = self._word, ""
        if self._expected in {"key", "first key"}:
            if "\\" in word or not word.isprintable():
                return False
            self.mended = True
            self._put(f'"{word}"')
            self._expected = "colon"
            return True
        correct = _correct(word)
        if correct is None:
            return False
        self.mended = self.mended or correct != word
        self._put(correct)
        self._value_ended()
        return True


def _of_code(digits: str) -> str:
    """JSON's escape for a character given by its number."""
    if len(digits) <= 4:
        return "\\u" + digits.rjust(4, "0")
    code = int(digits, 16)
    return json.dumps(chr(code))[1:-1] if code < 0x110000 else f"\\\\U{digits}"


def _correct(word: str) -> str | None:
    """What a word is in JSON; None: no number or literal at all."""
    if _NUMBER.fullmatch(word):
        return word
    if word in _LITERALS:
        return _LITERALS[word]
    try:
        return str(int(word))
    except ValueError:
        pass
    try:
        number = float(word)
    except ValueError:
        return None
    return str(number) if math.isfinite(number) else None
