"""Tokens that wait until more of the text is known, with a bound that depends on places in the text only."""

from __future__ import annotations

from k2think.inband.quoting import CodeTracker
from k2think.inband.scanner import Tag

MAX_SUSPENDED = 64 * 1024
"""Characters held in `nested` and `midline`: some 16,000 tokens, longer than nearly all answers."""

MAX_UNDECIDED = 16 * 1024 * 1024
"""Characters held in `undecided`: as many as one event of an upstream may have bytes."""


class Held:
    """At most `room` characters. The tracker reads along, as if what is held were answer."""

    __slots__ = ("_code", "_room", "doubtful", "tokens")

    def __init__(self, code: CodeTracker, room: int) -> None:
        self.tokens: list[str | Tag] = []
        self.doubtful: int | None = None
        """Which token is the first closing think tag that stood in code, if that code may still turn out to be none."""
        self._code = code
        self._room = room

    def add(self, token: str | Tag) -> str | Tag | None:
        """Hold a token, and give what there was no room for: a piece of text is cut there, a tag is not."""
        text = token if isinstance(token, str) else token.text
        rest: str | Tag | None = None
        if len(text) > self._room:
            if isinstance(token, Tag):
                return token
            token, rest = text[: self._room], text[self._room :]
            text = token
        self._room -= len(text)
        self.tokens.append(token)
        self._code.feed(text)
        return rest

    def add_doubtful(self, tag: Tag) -> str | Tag | None:
        """Hold a closing think tag that stands in code."""
        if self.doubtful is None:
            self.doubtful = len(self.tokens)
            self._code.watch()
        return self.add(tag)

    def end(self) -> None:
        """Nothing more will be held: code that has just been closed was code."""
        if not self._code.quoted() and self._code.verdict != "stray":
            self.doubtful = None

    def proved(self) -> bool:
        """Whether the doubtful tag has turned out to stand in no code."""
        if self.doubtful is not None and self._code.verdict == "closed":
            self.doubtful = None
        return self.doubtful is not None and self._code.verdict == "stray"
