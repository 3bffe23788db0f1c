"""Understands broken JSON: by rules for the mistakes that models make, and where no rule helps, by guessing.

The guesses are `json_repair`'s, which looks ahead from nearly every mark: on hostile text its time grows with the
square of the length, and ten thousand stray quotation marks would hold the gateway up for a minute. So it is given a
text that counts how often it is looked into, and refuses when the `Effort` is spent. What is only broken, however long,
is read through a few times; what explodes is given up early.
"""

from __future__ import annotations

import re
from typing import Any, Self, SupportsIndex

import json_repair

from k2think.inband.literals import NotJson, plain, read_json, read_literal
from k2think.inband.toolcalls.lenient import LenientJson

MAX_RULED = 100_000
"""Characters that are read by rules, which takes a microsecond for most and some microseconds for the worst."""

MAX_GUESSED = 30_000
"""Characters of one text that `json_repair` is given."""

MAX_LOOKS = 150_000
"""How often `json_repair` may look into its texts: at one or two microseconds each, a quarter of a second."""

_SLICE = 64
"""Characters of a longer piece that count as one look."""

_EACH = 100
"""What a text costs however short it is."""

_WORD = re.compile(r"\w")


class Effort:
    """What may be spent on one answer, or on the arguments of one call, however many texts in it are broken."""

    def __init__(self, characters: int = MAX_RULED, looks: int = MAX_LOOKS) -> None:
        self._characters = characters
        self._looks = looks

    def read(self, characters: int) -> None:
        """Take what a text of so many characters costs to be read by rules. Raises `NotJson` if that is too much."""
        if characters + _EACH > self._characters:
            raise NotJson("this takes too long to be understood")
        self._characters -= characters + _EACH

    def look(self, times: int = 1) -> None:
        """Take looks into a text that is guessed at. Raises `NotJson` when none are left."""
        self._looks -= times
        if self._looks < 0:
            raise NotJson("this takes too long to be understood")


def mended(text: str, effort: Effort | None = None) -> dict[str, Any] | list[Any]:
    """The object or list that a text was meant to be, which may even be right. Raises `NotJson`."""
    effort = effort or Effort()
    try:
        value = read_json(text)
    except NotJson:
        effort.read(len(text))
        try:
            value = read_literal(text)
        except NotJson:
            return repaired(text, effort)
    if not isinstance(value, dict | list):
        raise NotJson
    return value


def repaired(text: str, effort: Effort) -> dict[str, Any] | list[Any]:
    """The object or list that a broken text was meant to be: by rules, else by guessing. Raises `NotJson`."""
    try:
        return by_rules(text, effort, whole=True)
    except NotJson:
        return by_guessing(text, effort)


def by_rules(text: str, effort: Effort, *, whole: bool = False) -> dict[str, Any] | list[Any]:
    """The object or list that the text begins with, its mistakes mended by rules. Raises `NotJson`.

    `whole`: no words may follow it, only marks.
    """
    text = text.lstrip()
    if not text.startswith(("{", "[")):
        raise NotJson
    effort.read(len(text))
    lenient = LenientJson()
    end = lenient.feed(text)
    if lenient.stuck or (whole and _WORD.search(text, end)):
        raise NotJson
    lenient.close()
    value = read_json(lenient.take())
    assert isinstance(value, dict | list)
    return value


def by_guessing(text: str, effort: Effort) -> dict[str, Any] | list[Any]:
    """The object or list that the text may be meant to be. Raises `NotJson`, also if nothing was understood."""
    if len(text) > MAX_GUESSED:
        raise NotJson
    effort.look(_EACH)
    try:
        value = plain(json_repair.repair_json(_Counted(text, effort), return_objects=True, skip_json_loads=True))
    except (ValueError, RecursionError) as error:
        raise NotJson from error
    # Where nothing was understood, an empty value is given.
    wanted = dict if text.lstrip().startswith("{") else dict | list
    if not isinstance(value, wanted) or (not value and _WORD.search(text)):
        raise NotJson
    understood: dict[str, Any] | list[Any] = value
    return understood


class _Counted(str):
    """A text that counts how often it is looked into; so does what is made of it."""

    __slots__ = ("_effort",)

    _effort: Effort

    def __new__(cls, text: str, effort: Effort) -> Self:
        counted = super().__new__(cls, text)
        counted._effort = effort
        return counted

    def __getitem__(self, place: SupportsIndex | slice) -> _Counted:
        piece = super().__getitem__(place)
        self._effort.look(1 + len(piece) // _SLICE)
        return _Counted(piece, self._effort)

    def __add__(self, other: str) -> _Counted:
        return _Counted(super().__add__(other), self._effort)

    def __radd__(self, other: str) -> _Counted:
        return _Counted(other + str(self), self._effort)
