"""A client's JSON Schema, compiled, and what it says of a value in words that a model can act upon.

The schema comes from outside: it reaches no network and no file, its patterns run in linear time (one that cannot is
refused), and formats are notes to the model, not rules.
"""

from __future__ import annotations

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
        self.definition = definition
        try:
            self._validator: Validator = validator_for(
                dict(definition), validate_formats=False, pattern_options=RegexOptions(), offline=True
            )
        except ValidationError as error:
            raise InvalidSchema(_sentence(error)) from error
        except (ReferencingError, ValueError) as error:
            raise InvalidSchema(_shortened(str(error))) from error

    def problem(self, value: Any) -> str:
        """What is wrong with a value: one sentence of at most 300 characters that names the place, or ""."""
        try:
            self._validator.validate(value)
        except ValidationError as error:
            return _sentence(error)
        except ValueError as error:  # what no JSON can hold: half a character, a set, a nesting without end
            return _shortened(f"this is no JSON: {error}")
        return ""


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
