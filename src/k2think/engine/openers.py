"""Remembers how a model's texts begin: with an opening `<think>`, or already inside the thinking.

A reader in a live stream cannot know this before the closing tag comes, so it goes by the model's last answer.
"""

from __future__ import annotations

from typing import Literal

from k2think.inband.parts import Opener


class Openers:
    """The memory, one word a model. `setting` other than `auto` decides for all."""

    def __init__(self, setting: Literal["auto", "present", "implied"]) -> None:
        self._setting = setting
        self._seen: dict[str, Literal["present", "implied"]] = {}

    def choose(self, model: str, *, live: bool, hidden: bool) -> Opener:
        """How the next answer of `model` shall be read.

        Nobody waits for a whole answer's first words, so there the end may decide. Where thinking is hidden, showing a
        thought as answer would be worse than waiting, as long as nothing is known of the model.
        """
        if self._setting != "auto":
            return self._setting
        if not live:
            return "undecided"
        return self._seen.get(model, "undecided" if hidden else "present")

    def observe(self, model: str, seen: Literal["present", "implied"] | None) -> None:
        """Remember how an answer of `model` began, if it showed."""
        if seen is not None:
            self._seen[model] = seen
