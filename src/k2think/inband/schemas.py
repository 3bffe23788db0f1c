"""A client's JSON Schema, compiled, and what it says of a value in words that a model can act upon.

The schema comes from outside: it reaches no network and no file, its patterns run in linear time (one that cannot is
refused), formats are notes to the model, not rules, and what would take too long is not begun. To say yes or no takes
the validator some nanoseconds for each part of a schema. To say what is wrong can take a thousand times as long: where
there are alternatives it writes down what is wrong with each of them, with the value every time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from jsonschema_rs import (
    ReferencingError,
    RegexOptions,
    ValidationError,
    ValidationErrorKind,
    Validator,
    validator_for,
)

from k2think.inband.complexity import Complexity, TooComplex

MAX_VISITS = 3_000_000
"""How often parts of a schema may look at parts of a value: a tenth of a second at the worst."""

MAX_TOLD = 20_000
"""Wrong alternatives, weighed by the value's length, that the validator may write down: a few tenths of a second."""

_FULL, _MASKED = 100, 2_500
"""Characters of a value that weigh as much as one alternative more; and where the value itself is not written."""

_UNTOLD = "this fits none of the alternatives that its schema allows"
_MAX_SENTENCE = 300
_MAX_PLACE = 80
_MAX_BRANCHES = 3
"""How many of several wrong alternatives are told of."""


class InvalidSchema(Exception):
    """A schema that cannot be compiled. `reason` is one short sentence without a full stop."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Schema:
    """A compiled JSON Schema; draft 2020-12 unless its `$schema` names another. Raises `InvalidSchema`."""

    def __init__(self, definition: Mapping[str, Any]) -> None:
        self.definition = dict(definition)
        try:
            self._validator = _compiled(self.definition)
            self._complexity = Complexity(self.definition)
        except ValidationError as error:
            raise InvalidSchema(_sentence(error)) from error
        except (ReferencingError, ValueError) as error:
            raise InvalidSchema(_shortened(str(error))) from error
        except TooComplex as error:
            raise InvalidSchema(error.reason) from error

    def problem(self, value: Any) -> str:
        """What is wrong with a value: one sentence of at most 300 characters that names the place, or ""."""
        try:
            if not self._complexity.harmless and self._complexity.visits(value)[0].weighed > MAX_VISITS:
                return "this is too complex to be checked against its schema"
            return "" if self._validator.is_valid(value) else self._told(value)
        except TooComplex as error:
            return error.reason
        except ValueError as error:  # what no JSON can hold: half a character, a set, a nesting without end
            return _shortened(f"this is no JSON: {error}")

    def _told(self, value: Any) -> str:
        """What is wrong with a value that does not fit, in as many words as there is time for."""
        validator = self._validator
        if self._complexity.chooses:
            try:
                _, choice = self._complexity.visits(value)
            except TooComplex:
                return _UNTOLD
            length = len(json.dumps(value))
            if choice * (1 + length // _MASKED) > MAX_TOLD:
                return _UNTOLD
            if choice * (1 + length // _FULL) > MAX_TOLD:
                validator = _compiled(self.definition, mask="the value")
        try:
            validator.validate(value)
        except ValidationError as error:
            return _sentence(error)
        return ""


def _compiled(definition: dict[str, Any], *, mask: str | None = None) -> Validator:
    return validator_for(definition, validate_formats=False, pattern_options=RegexOptions(), offline=True, mask=mask)


def _sentence(error: ValidationError) -> str:
    errors = _telling(error)
    told = " or ".join(dict.fromkeys(_shortened(each.message, _MAX_SENTENCE // len(errors)) for each in errors))
    place = _place(errors[0].instance_path)
    return _shortened(f"at '{place}': {told}" if place else told)


def _telling(error: ValidationError) -> list[ValidationError]:
    """The errors that say most: where every alternative failed, those of the alternatives that came furthest."""
    for _ in range(8):
        kind = error.kind
        if not isinstance(kind, ValidationErrorKind.AnyOf | ValidationErrorKind.OneOfNotValid):
            break
        branches = [branch[0] for branch in islice(kind.context, 32) if branch]
        if not branches:
            break
        furthest = max(len(branch.instance_path) for branch in branches)
        best = [branch for branch in branches if len(branch.instance_path) == furthest]
        if len(best) > 1:
            same_place = [branch for branch in best if branch.instance_path == best[0].instance_path]
            return same_place[:_MAX_BRANCHES]
        error = best[0]
    return [error]


def _place(path: Sequence[str | int]) -> str:
    place = ""
    for step in path:
        place += f"[{step}]" if isinstance(step, int) else f".{step}" if place else step
    return _shortened(place, _MAX_PLACE)


def _shortened(text: str, limit: int = _MAX_SENTENCE) -> str:
    """One line of at most `limit` characters. The middle goes: the value stands in front, what was wanted behind."""
    text = " ".join(text.split(maxsplit=limit))
    if len(text) <= limit:
        return text
    front = limit // 2
    return f"{text[:front]}…{text[-(limit - front - 1) :]}"
