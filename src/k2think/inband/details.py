"""Thinking as Open WebUI folds it: the body of `<details type="reasoning">`, each line quoted with `> `.

Only the quoting is undone here, a line at a time. Where the block begins and ends, and that its summary is no
thinking, is `reasoning`'s part.
"""

from __future__ import annotations

import re

_PREFIX = re.compile(r"^> ", re.MULTILINE)


class Unquoter:
    """A Machine for text: takes one `> ` from the start of each line. Holds back a `>` whose blank may still come."""

    __slots__ = ("_held", "_start", "quoted")

    def __init__(self) -> None:
        self.quoted = False
        """Whether the line read last began with `>`, so that a closing tag in it is part of the thinking."""
        self._start = True
        self._held = False

    def feed(self, text: str) -> str:
        """Take the next piece, cut anywhere; give what is certain of it."""
        if not text:
            return ""
        if self._held:
            text = ">" + text
            self._held = False
        line = text.rfind("\n") + 1
        if line or self._start:
            self.quoted = text.startswith(">", line)
        if self.quoted and line == len(text) - 1 and (line or self._start):
            self._held = True
        first = 0 if self._start else text.find("\n") + 1 or len(text)
        self._start = line == len(text) or self._held
        return text[:first] + _PREFIX.sub("", text[first : len(text) - self._held])

    def close(self) -> str:
        """The body has ended."""
        held, self._held = self._held, False
        self._start = self._start and not held
        return ">" if held else ""
