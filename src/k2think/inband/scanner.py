"""Finds the tags that part thinking from answer in a text that arrives cut anywhere.

It says where the tags are, never what they mean: that is for `parts`, and `quoting` knows about code. The families are
those of K2-Think and of the web service before it: `<think>`, `<think_fast>` and `<think_faster>`, each also with
`ifm|` before its name; `<answer>`, also with `ifm|`; `<details type="reasoning">` with its `<summary>`.

A tag that stands between quotation marks of its own (`"</think>"`, or in backticks) is talked about, not used, and
comes out as text. That takes one character of look-ahead, and only behind a mark that can open a quotation:
in `say "yes"</think>"Yes"` the marks belong to the words.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias, cast

from msgspec import Struct

Kind: TypeAlias = Literal[
    "think_open",
    "think_close",
    "answer_open",
    "answer_close",
    "details_open",
    "details_close",
    "summary_open",
    "summary_close",
]

BLANKS = " \t\r\n"

MAX_ATTRIBUTES = 256
"""Characters between a tag's name and its `>`: Open WebUI's longest tag has about 60."""

MAX_CLOSER_BLANKS = 8
"""Blanks between a closing tag's name and its `>`."""

_QUOTES = "`\"'"
_BLANK = rf"[{BLANKS}]"
_THINK = r"(?:ifm\|)?think(?:_fast(?:er)?)?"
_ANSWER = r"(?:ifm\|)?answer"
# What closes itself (`<think />`) opens nothing.
_ATTRIBUTES = rf"(?:{_BLANK}[^<>]{{0,{MAX_ATTRIBUTES - 1}}}(?<!/))?"
_TAG = re.compile(
    rf"<(?:(?P<think_open>{_THINK}{_ATTRIBUTES})"
    rf"|(?P<answer_open>{_ANSWER}{_ATTRIBUTES})"
    rf"|(?P<details_open>details{_ATTRIBUTES})"
    rf"|(?P<summary_open>summary{_ATTRIBUTES})"
    rf"|(?P<think_close>/{_THINK}{_BLANK}{{0,{MAX_CLOSER_BLANKS}}})"
    rf"|(?P<answer_close>/{_ANSWER}{_BLANK}{{0,{MAX_CLOSER_BLANKS}}})"
    rf"|(?P<details_close>/details{_BLANK}{{0,{MAX_CLOSER_BLANKS}}})"
    rf"|(?P<summary_close>/summary{_BLANK}{{0,{MAX_CLOSER_BLANKS}}})"
    r")>"
)
_UNFINISHED = re.compile(
    rf"<(?:(?:{_THINK}|{_ANSWER}|details|summary){_BLANK}[^<>]{{0,{MAX_ATTRIBUTES - 1}}}"
    rf"|/(?:{_THINK}|{_ANSWER}|details|summary){_BLANK}{{1,{MAX_CLOSER_BLANKS}}})"
)
_NAMES = ("think_faster", "ifm|think_faster", "answer", "ifm|answer", "details", "summary")
_BEGINNINGS = frozenset(
    whole[:length] for name in _NAMES for whole in (f"<{name}", f"</{name}") for length in range(1, len(whole) + 1)
)
_LONGEST = len("<ifm|think_faster") + MAX_ATTRIBUTES
_REASONING_TYPE = re.compile(rf"{_BLANK}type=(?:\"reasoning\"|'reasoning'|reasoning(?:{_BLANK}|>))")
_CLOSES_QUOTATION = re.compile(r"[A-Za-z0-9.!?)\]}%]")


class Tag(Struct, frozen=True, gc=False):
    """A whole tag: what it does, and how it was written."""

    kind: Kind
    text: str


class TagScanner:
    """A Machine: text in, text and tags out, in order. Held back is only what may still become a tag.

    `before` is the text that went out last; who knows that a text has no `<` and that nothing is `held` may let it be
    remembered instead of feeding it, or write it there if it is at least two characters long.
    """

    __slots__ = ("before", "held")

    def __init__(self) -> None:
        self.before = ""
        self.held = ""

    def feed(self, text: str) -> list[str | Tag]:
        """Take the next text, cut anywhere."""
        if self.held:
            text = self.held + text
        elif "<" not in text:
            self.remember(text)
            return [text] if text else []
        return self._cut(text, ended=False)

    def close(self) -> list[str | Tag]:
        """The text has ended: what was held is what it is."""
        return self._cut(self.held, ended=True) if self.held else []

    def _cut(self, text: str, *, ended: bool) -> list[str | Tag]:
        out: list[str | Tag] = []
        place = 0
        stop = len(text)
        for match in _TAG.finditer(text):
            start, end = match.span()
            if match.lastgroup == "details_open" and not _REASONING_TYPE.search(match[0]):
                continue
            quote = self._quotation(text, start)
            if quote:
                if end == len(text) and not ended:
                    stop = start
                    break
                if text.startswith(quote, end):
                    continue
            if start > place:
                out.append(text[place:start])
            out.append(Tag(cast("Kind", match.lastgroup), match[0]))
            place = end
        else:
            last = text.rfind("<", place)
            if last >= 0 and not ended and _may_become_tag(text, last):
                stop = last
        if stop > place:
            out.append(text[place:stop])
        self.held = text[stop:]
        if stop:
            self.remember(text[max(0, stop - 2) : stop])
        return out

    def remember(self, text: str) -> None:
        """This text goes out: it has no `<`, or has been cut."""
        self.before = text if len(text) > 1 else self.before[-1:] + text

    def _quotation(self, text: str, start: int) -> str:
        """The quotation mark right before `start`, if it is there and can open a quotation."""
        if start and text[start - 1] not in _QUOTES:
            return ""
        context = text[max(0, start - 2) : start] if start > 1 else self.before[-2:] + text[:start]
        if context[-1:] not in _QUOTES or _CLOSES_QUOTATION.match(context[-2:-1]):
            return ""
        return context[-1:]


def _may_become_tag(text: str, start: int) -> bool:
    if len(text) - start > _LONGEST:
        return False
    rest = text[start:]
    return rest in _BEGINNINGS or _UNFINISHED.fullmatch(rest) is not None
