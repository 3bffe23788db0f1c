"""Knows at each place of a Markdown answer whether it stands in code: a tag that is shown there is not meant.

Fences are three or more backticks or tildes at the start of a line, however deep it is indented (in a list more than
three blanks are common), until a line with nothing but at least as many of the same. Spans are runs of backticks until
a run of the same length, or until the line ends: most stray backticks are closed by nothing, and must not quote the
rest of the answer. There is no look-ahead: between a stray backtick and the end of its line everything counts as code,
and `watch` tells later which it was. Source: CommonMark 0.31, sections 4.5 and 6.1; only what matters here.
"""

from __future__ import annotations

import re
from typing import Literal

_RUNS = re.compile(r"`+|~+")
_FENCE = 3


class CodeTracker:
    """Reads an answer along, cut anywhere. Questions may be asked only where a run of backticks has ended: at a tag."""

    __slots__ = (
        "_closing",
        "_fence",
        "_info",
        "_length",
        "_run",
        "_run_length",
        "_run_starts_line",
        "_span",
        "_start",
        "verdict",
    )

    def __init__(self) -> None:
        self.verdict: Literal["open", "closed", "stray"] | None = None
        self.reset()

    def reset(self) -> None:
        """Begin anew, at the start of a line."""
        self.verdict = None
        self._start = True  # nothing but blanks in this line so far
        self._fence = ""  # the character of the fence that is open
        self._length = 0  # and how many of them opened it
        self._closing = False  # this line has closed the fence, if nothing but blanks follows
        self._span = 0  # backticks that opened the span that is open
        self._info = False  # that span may turn out to be the opening line of a fence
        self._run = ""  # the character of the run that may go on
        self._run_length = 0
        self._run_starts_line = False

    def watch(self) -> None:
        """From now on `verdict` tells about the code that is open here: "open", "closed", or "stray" (it was none)."""
        self.verdict = "open"

    def quoted(self) -> bool:
        """Whether what follows stands in code."""
        self._end_run()
        return bool(self._span or (self._fence and not self._closing))

    def line_start(self) -> bool:
        """Whether nothing but blanks stands before this place in its line."""
        self._end_run()
        return self._start

    def settled(self) -> bool:
        """Whether a text without backticks, tildes and line ends would change nothing here."""
        return not (self._start or self._run or self._closing)

    def feed(self, text: str) -> None:
        """Read the next piece."""
        place = 0
        if "`" in text or "~" in text:
            for run in _RUNS.finditer(text):
                start, end = run.span()
                if start > place:
                    self._pass(text[place:start])
                self._go_on(run[0])
                place = end
        if place < len(text):
            self._pass(text[place:] if place else text)

    def _pass(self, text: str) -> None:
        """Read what has neither backticks nor tildes. Of its lines only the first and the last can matter."""
        if self._run:
            self._end_run()
        first = text.find("\n")
        if first < 0:
            self._words(text)
            return
        if self._closing:
            self._words(text[:first])
        self._end_line()
        self._words(text[text.rfind("\n") + 1 :])

    def _words(self, text: str) -> None:
        if (self._start or self._closing) and text and not text.isspace():
            self._start = self._closing = False

    def _go_on(self, run: str) -> None:
        if self._run == run[0]:
            self._run_length += len(run)
            return
        self._end_run()
        self._run, self._run_length = run[0], len(run)
        self._run_starts_line = self._start

    def _end_run(self) -> None:
        if not self._run:
            return
        run, length = self._run, self._run_length
        may_fence = self._run_starts_line and length >= _FENCE
        self._run = ""
        self._start = self._closing = False
        if self._fence:
            self._closing = may_fence and run == self._fence and length >= self._length
        elif run == "`":
            self._info = may_fence and not self._span
            if not self._span:
                self._span = length
            elif self._span == length:
                self._span = 0
                self._judge("closed")
        elif may_fence and not self._span:
            self._fence, self._length = run, length

    def _end_line(self) -> None:
        if self._closing:
            self._fence = ""
            self._judge("closed")
        elif self._info:
            self._fence, self._length = "`", self._span
        elif self._span:
            self._judge("stray")
        self._span = 0
        self._start = True
        self._closing = self._info = False

    def _judge(self, verdict: Literal["closed", "stray"]) -> None:
        if self.verdict == "open":
            self.verdict = verdict
