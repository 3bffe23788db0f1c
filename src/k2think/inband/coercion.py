"""Turns a value into what its schema wants, where there is only one way to understand it.

Models write "3" where a number is wanted, 3 where a text is, and objects as text. Only what does not fit is touched,
and nothing is invented. This looks at types, members and required names alone: whether the outcome is valid is for
`schemas` to say. Where the schema or the value takes too many steps, the value stays as it was.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from k2think.inband.expectations import (
    Expectations,
    alternatives_of,
    is_any,
    item_schemas,
    members_of,
    named_types,
    parts_of,
    same,
)
from k2think.inband.literals import NotJson, read_json
from k2think.inband.repair import Effort, mended

_WORDS = {"true": True, "false": False}
_NULLS = frozenset({"null", "none"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,300}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(?:\.[0-9]{1,300})?(?:[eE][+-]?[0-9]{1,3})?")


def coerced(value: Any, schema_definition: Any, root: Any, effort: Effort | None = None) -> Any:
    """The value as its schema wants it; the very same object if there is nothing to change. Never raises.

    `root` is the whole document, into which `$ref`s of the schema point; `effort` is what may be spent on texts of
    broken JSON.
    """
    walk = _Walk(root, effort or Effort())
    turned = walk.turned(value, schema_definition, 0)
    return value if walk.exhausted else turned


class _Walk(Expectations):
    """One walk through a schema and its value."""

    def __init__(self, root: Any, effort: Effort) -> None:
        super().__init__(root)
        self._effort = effort

    def turned(self, value: Any, schema: Any, depth: int) -> Any:
        if not isinstance(schema, dict) or not schema or not self._go(depth):
            return value
        if "$ref" in schema:
            value = self.turned(value, self._target(schema["$ref"]), depth + 1)
        for part in parts_of(schema, "allOf"):
            value = self.turned(value, part, depth + 1)
        for alternatives in alternatives_of(schema):
            value = self._alternative(value, alternatives, depth)
        value = _typed(value, schema, self._effort)
        value = self._member(value, schema)
        if isinstance(value, dict):
            return self._object(value, schema, depth)
        if isinstance(value, list):
            return self._list(value, schema, depth)
        return value

    def _alternative(self, value: Any, alternatives: Sequence[Any], depth: int) -> Any:
        """What fits one alternative after it was turned. More than one outcome is no outcome."""
        if any(self._fits(value, part, depth + 1) for part in alternatives):
            return value
        outcomes: list[Any] = []
        for part in alternatives:
            outcome = self.turned(value, part, depth + 1)
            if self._fits(outcome, part, depth + 1) and not any(same(outcome, each) for each in outcomes):
                outcomes.append(outcome)
        # To put a value into a list, or to take it out of one, says less than to read it as what it looks like.
        listed = isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))
        direct = [each for each in outcomes if isinstance(each, list) == listed]
        for choice in (direct, outcomes):
            if choice:
                return choice[0] if len(choice) == 1 else value
        others = [part for part in alternatives if self.types(part, depth + 1) != frozenset({"null"})]
        return self.turned(value, others[0], depth + 1) if len(others) == 1 else value

    def _member(self, value: Any, schema: dict[str, Any]) -> Any:
        """The member of an enum that is written a little differently."""
        members = members_of(schema)
        if members is None or not self._go(0, len(members)) or any(same(value, member) for member in members):
            return value
        if isinstance(value, list) and len(value) == 1 and not any(isinstance(member, list) for member in members):
            value_or_inner = value[0]
            if any(same(value_or_inner, member) for member in members):
                return value_or_inner
        else:
            value_or_inner = value
        forms = _spellings(value_or_inner)
        alike = [member for member in members if forms & _spellings(member)]
        return alike[0] if len(alike) == 1 else value

    def _object(self, value: dict[str, Any], schema: dict[str, Any], depth: int) -> dict[str, Any]:
        known = schema.get("properties")
        known = known if isinstance(known, dict) else {}
        others = None if "patternProperties" in schema else schema.get("additionalProperties")
        required = parts_of(schema, "required")
        turned: dict[str, Any] = {}
        for name, old in value.items():
            # Models write null for what they leave out.
            if old is None and name in known and name not in required and not self._fits(None, known[name], depth + 1):
                continue
            turned[name] = self.turned(old, known.get(name, others), depth + 1)
        same_values = len(turned) == len(value) and all(turned[name] is old for name, old in value.items())
        return value if same_values else turned

    def _list(self, value: list[Any], schema: dict[str, Any], depth: int) -> list[Any]:
        first, rest = item_schemas(schema)
        if not first and not isinstance(rest, dict):
            return value
        new = [
            self.turned(each, first[place] if place < len(first) else rest, depth + 1)
            for place, each in enumerate(value)
        ]
        return new if any(a is not b for a, b in zip(new, value, strict=True)) else value

    def _fits(self, value: Any, schema: Any, depth: int) -> bool:
        """Whether nothing that is looked at here speaks against it. What is not looked at does not count."""
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict) or not self._go(depth):
            return True
        types = named_types(schema)
        if types is not None and not is_any(value, types):
            return False
        members = members_of(schema)
        if members is not None and self._go(0, len(members)) and not any(same(value, member) for member in members):
            return False
        if "$ref" in schema and not self._fits(value, self._target(schema["$ref"]), depth + 1):
            return False
        if not all(self._fits(value, part, depth + 1) for part in parts_of(schema, "allOf")):
            return False
        if not all(any(self._fits(value, part, depth + 1) for part in parts) for parts in alternatives_of(schema)):
            return False
        if isinstance(value, dict):
            return self._object_fits(value, schema, depth)
        if isinstance(value, list):
            first, rest = item_schemas(schema)
            return all(
                self._fits(each, first[place] if place < len(first) else rest, depth + 1)
                for place, each in enumerate(value)
            )
        return True

    def _object_fits(self, value: dict[str, Any], schema: dict[str, Any], depth: int) -> bool:
        required = schema.get("required")
        if isinstance(required, list) and any(isinstance(name, str) and name not in value for name in required):
            return False
        known = schema.get("properties")
        known = known if isinstance(known, dict) else {}
        others = True if "patternProperties" in schema else schema.get("additionalProperties", True)
        return all(self._fits(each, known.get(name, others), depth + 1) for name, each in value.items())


def _typed(value: Any, schema: dict[str, Any], effort: Effort) -> Any:
    types = named_types(schema)
    if types is None or is_any(value, types):
        return value
    if isinstance(value, str):
        return _from_text(value, types, effort)
    if isinstance(value, bool | int | float):
        if "string" in types:
            return value if "array" in types else _word(value)
        return [value] if "array" in types else value
    if isinstance(value, list):
        if len(value) != 1:
            return value
        if is_any(value[0], types):
            return value[0]
        inner = _typed(value[0], schema, effort)
        return inner if is_any(inner, types) else value
    if isinstance(value, dict) and "array" in types:
        return [value]
    return value


def _from_text(text: str, types: frozenset[str], effort: Effort) -> Any:
    """What a text means where no text is wanted."""
    word = text.strip()
    if "null" in types and word.lower() in _NULLS:
        return None
    if "boolean" in types and word.lower() in _WORDS:
        return _WORDS[word.lower()]
    if types & {"integer", "number"} and (number := _number(word)) is not None and is_any(number, types):
        return int(number) if "number" not in types and isinstance(number, float) else number
    if types & {"object", "array"} and word[:1] + word[-1:] in {"{}", "[]", "()"}:
        try:
            value: Any = mended(f"[{word[1:-1]}]" if word[0] == "(" else word, effort)
        except NotJson:
            value = None
        if isinstance(value, list) and len(value) == 1 and "array" not in types:
            value = value[0]
        if isinstance(value, dict) and "object" not in types:
            value = [value]
        if isinstance(value, dict | list) and is_any(value, types):
            return value
    if word[:1] == '"':
        try:
            inner = read_json(word)
        except NotJson:
            inner = None
        if isinstance(inner, str):
            return _from_text(inner, types, effort)
    return [text] if "array" in types else text


def _number(word: str) -> int | float | None:
    if _INTEGER.fullmatch(word):
        return int(word)
    if _NUMBER.fullmatch(word):
        number = float(word)
        return number if math.isfinite(number) else None
    return None


def _word(value: Any) -> str:
    """A scalar as JSON writes it; a text as it is."""
    return value if isinstance(value, str) else json.dumps(value)


def _spellings(value: Any) -> frozenset[str]:
    """The ways to write a scalar that are taken for the same; none for lists and objects."""
    if isinstance(value, dict | list):
        return frozenset()
    word = _word(value).strip()
    if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'":
        word = word[1:-1].strip()
    word = word.casefold()
    if value is None or word == "none":
        return frozenset(("null", "none"))
    return frozenset((word,))
