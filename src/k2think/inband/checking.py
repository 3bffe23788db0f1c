"""Makes of what a model wrote as a call's arguments the JSON object that its tool's schema asks for, or says why not.

What is right stays character for character. What is broken is mended, what has the wrong type is turned where there is
only one way to understand it, and each time the schema has the last word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from k2think.dialogue.prompt import Tool
from k2think.errors import InvalidRequest
from k2think.inband.coercion import coerced
from k2think.inband.expectations import property_names, property_of, types_of
from k2think.inband.literals import NotJson, plain, read_json, read_literal
from k2think.inband.repair import Effort, mended, repaired
from k2think.inband.schemas import InvalidSchema, Schema

_MAX_WRAPPINGS = 3
"""How often JSON may stand within a text of JSON."""

_NO_OBJECT = "the arguments are not a JSON object that can be read"
_SURROGATES = re.compile("[\ud800-\udfff]")
_NAME_FIRST = re.compile(r"""\s*(["']?)([^"':{}\[\]]{1,200})\1\s*:""")


class Parameter(Struct, frozen=True):
    """One argument as a format with tags writes it: text between tags.

    `kind` says how to read it. `text`: the format said that it is a string: exactly these characters. `plain`: strings
    stand unquoted, every other type is JSON; of a property that the schema does not know, what can be read as a value
    of JSON or Python is one. `json`: all that can be read as JSON is JSON, strings too. Where a text stands for itself,
    one line end on each side of it goes, except with `text`.
    """

    name: str
    text: str
    kind: Literal["text", "plain", "json"]


class Checked(Struct, frozen=True):
    """A call's arguments, fit to be sent, or why they are not.

    `arguments` is the JSON text of one object; where there is a `fault`, the best that is known ("{}" at worst).
    `repaired`: something had to be changed. `fault`: one sentence for the model, without a full stop; "" if none.
    """

    arguments: str
    repaired: bool
    fault: str = ""


class ArgumentChecker:
    """Knows the tools of one request. Their schemas are compiled when they are first needed.

    A schema that cannot be compiled checks nothing, but that of a strict tool was promised to be kept: the constructor
    raises `InvalidRequest`.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._schemas: dict[str, Schema | None] = {}
        for tool in tools:
            if tool.strict and tool.parameters:
                try:
                    self._schemas[tool.name] = Schema(tool.parameters)
                except InvalidSchema as error:
                    raise InvalidRequest(
                        f"The parameters of the tool '{tool.name[:100]}' are no valid JSON Schema: {error.reason}.",
                        param="tools",
                    ) from error

    def check(self, name: str, written: str | Sequence[Parameter] | dict[str, Any]) -> Checked:
        """Check the arguments of a call of the tool `name`. Never raises; a tool that is not known takes any object.

        `written` is JSON text (perhaps broken, perhaps a text of JSON within JSON, perhaps the only argument's value
        alone), or what a format with tags had, or the values of a call in Python's syntax.
        """
        tool = self._tools.get(name)
        judge = _Judge(tool.parameters if tool else {}, self._schema(tool) if tool else None)
        if isinstance(written, str):
            return _check_text(written, judge)
        try:
            if isinstance(written, dict):
                value = plain(written)
            else:
                value = {each.name: plain(_typed(each, judge.definition)) for each in written}
        except NotJson as error:
            return Checked("{}", repaired=False, fault=error.reason)
        return judge.settled(value)

    def _schema(self, tool: Tool) -> Schema | None:
        if tool.name not in self._schemas:
            schema = None
            if tool.parameters:
                try:
                    schema = Schema(tool.parameters)
                except InvalidSchema:
                    schema = None
            self._schemas[tool.name] = schema
        return self._schemas[tool.name]


class _Judge:
    """One tool's say on the arguments of one call. `schema` is None where anything goes."""

    def __init__(self, definition: dict[str, Any], schema: Schema | None) -> None:
        self.definition = definition
        self.effort = Effort()
        self._schema = schema

    def problem(self, value: Any) -> str:
        return self._schema.problem(value) if self._schema else ""

    def turned(self, value: Any) -> Any:
        return coerced(value, self.definition, self.definition, self.effort) if self._schema else value

    def settled(self, value: dict[str, Any], text: str | None = None, *, repaired: bool = False) -> Checked:
        """The verdict on an object; `text` is how it was written, if that is JSON."""
        problem = self.problem(value)
        if problem and (better := self.turned(value)) is not value and isinstance(better, dict):
            value, text, repaired = better, None, True
            problem = self.problem(value)
        return Checked(_encoded(value) if text is None else _printable(text), repaired, problem)

    def sole(self) -> str | None:
        """The property that a lone value must be meant for: the only one, or the only one that is required."""
        names, required = property_names(self.definition, self.definition)
        return names[0] if len(names) == 1 else required[0] if len(required) == 1 else None

    def known(self) -> list[str]:
        """The names of all properties."""
        return property_names(self.definition, self.definition)[0]


def _check_text(text: str, judge: _Judge) -> Checked:
    if not text.strip():
        return judge.settled({}, repaired=True)
    try:
        value = read_json(text)
    except NotJson:
        value = _from_broken(text, judge)
    else:
        if isinstance(value, dict):
            return judge.settled(value, text)
    value = _unwrapped(value, judge.effort)
    if value is None or value == "":
        return judge.settled({}, repaired=True)
    if isinstance(value, dict):
        return judge.settled(value, repaired=True)
    return _from_lone(value, text.strip(), judge)


def _from_broken(text: str, judge: _Judge) -> Any:
    """The value of a text that is not JSON; words stay words."""
    bare = text.strip()
    opens = bare.startswith(("{", "[", "```", '"{', "'{", '"[', "'["))
    named = _NAME_FIRST.match(bare)
    attempts = []
    if named and named[2] in judge.known():
        attempts.append("{" + bare + "}")
    if bare[:2] == "{\\":
        attempts.append(f'"{bare}"')
    if opens or judge.sole() is None:
        attempts.append(bare)
    for attempt in attempts:
        try:
            return read_literal(attempt)
        except NotJson:
            pass
        try:
            return repaired(attempt, judge.effort)
        except NotJson:
            pass
    return bare


def _unwrapped(value: Any, effort: Effort) -> Any:
    """What stands within a text of JSON within a text of JSON."""
    for _ in range(_MAX_WRAPPINGS):
        if not isinstance(value, str):
            break
        inner = value.strip()
        try:
            value = read_json(inner)
        except NotJson:
            if not inner.startswith(("{", "[")):
                break
            try:
                value = mended(inner, effort)
            except NotJson:
                break
    return value


def _from_lone(value: Any, text: str, judge: _Judge) -> Checked:
    """A list of one object is that object; any other value may be the value of the only property."""
    inner = value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) else None
    sole = judge.sole()
    candidates: list[dict[str, Any]] = []
    broken = isinstance(value, str) and text.startswith(("{", "["))
    if sole is not None and not broken:
        candidates.append({sole: value})
        if not isinstance(value, str | list):
            candidates.append({sole: text})
    if inner is not None:
        # A list of objects may be just what the only property wants; names that the schema knows tell the two apart.
        candidates.insert(0 if any(name in inner for name in judge.known()) else len(candidates), inner)
    for candidate in candidates:
        if not judge.problem(candidate):
            return judge.settled(candidate, repaired=True)
    for candidate in candidates:
        verdict = judge.settled(candidate, repaired=True)
        if not verdict.fault:
            return verdict
    if inner is not None:
        return judge.settled(inner, repaired=True)
    return Checked("{}", repaired=False, fault=_NO_OBJECT)


def _typed(parameter: Parameter, definition: dict[str, Any]) -> Any:
    """The value that a parameter's text stands for. Where it has the wrong type it is left to be turned later."""
    if parameter.kind == "text":
        return parameter.text
    text = _cut(parameter.text)
    schema = property_of(parameter.name, definition, definition)
    types = types_of(schema, definition)
    only_text = types is not None and types <= {"string", "null"} and "string" in types
    if parameter.kind == "plain" and only_text:
        return text
    try:
        value = read_literal(text.strip()) if parameter.kind == "plain" and types is None else read_json(text)
    except NotJson:
        return text
    if types is None:
        return value
    if isinstance(value, str):
        return text if parameter.kind == "plain" and "string" in types else value
    # A number that was written where a text is wanted is the text of it: "1.50" stays "1.50".
    return text if "string" in types and not _allows(types, value) else value


def _allows(types: frozenset[str], value: Any) -> bool:
    if value is None:
        return "null" in types
    if isinstance(value, bool):
        return "boolean" in types
    if isinstance(value, int):
        return bool(types & {"integer", "number"})
    if isinstance(value, float):
        return "number" in types
    return ("object" if isinstance(value, dict) else "array") in types


def _cut(text: str) -> str:
    """A text without the line end on each side that belongs to the tags."""
    text = text.removeprefix("\n") if text[:1] == "\n" else text.removeprefix("\r\n")
    return text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")


def _encoded(value: dict[str, Any]) -> str:
    return _printable(json.dumps(value, ensure_ascii=False, allow_nan=False))


def _printable(text: str) -> str:
    """JSON text that can be sent: halves of characters, which UTF-8 does not have, are escaped."""
    return text if text.isascii() else _SURROGATES.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
