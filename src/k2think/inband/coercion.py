"""Turns a value into what its schema wants, where there is only one way to understand it.

Models write "3" where a number is wanted, 3 where a text is, and objects as text. Only what does not fit is touched,
and nothing is invented. This looks at types, members and required names alone: whether the outcome is valid is for
`schemas` to say. Schemas may refer to themselves and may be built to explode: depth and steps are bounded, and past the
bounds the value stays as it was.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import unquote

import json_repair

MAX_DEPTH = 100
"""How deep arguments may be nested. Far above what tools ask for, far below what the interpreter bears."""

_MAX_SCHEMA_DEPTH = 64
_MAX_STEPS = 10_000
_MAX_MENDED = 64 * 1024
"""Characters. Mending may take time that grows with the square of the length."""
_MAX_DIGITS = 4_000
_MAX_BITS = 13_000

_WORDS = {"true": True, "false": False}
_NULLS = frozenset({"null", "none"})
_ALIASES = {"True": "true", "False": "false", "None": "null"}
_INTEGER = re.compile(r"[+-]?[0-9]{1,300}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(?:\.[0-9]{1,300})?(?:[eE][+-]?[0-9]{1,3})?")
_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<text>'(?:[^'\\]++|\\.)*+'|"(?:[^"\\]++|\\.)*+")"""
    r"""|(?P<mark>[\[\]{}(),:])|(?P<word>[-+.\w]++)""",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPED = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "0": "\0",
    "\n": "",
    "/": "/",
    "\\": "\\",
    "'": "'",
    '"': '"',
}


class NotJson(Exception):
    """A text or a value that cannot be had as JSON. `reason` is one short sentence without a full stop."""

    def __init__(self, reason: str = "this is not JSON") -> None:
        super().__init__(reason)
        self.reason = reason


def read_json(text: str, *, line_ends: bool = False) -> Any:
    """The value of a JSON text. `line_ends`: control characters within strings are forgiven. Raises `NotJson`.

    Of a name that stands twice, the last counts. Not read: NaN and infinities, numbers of thousands of digits, and
    what is nested deeper than `MAX_DEPTH`.
    """
    try:
        value = json.loads(
            text, strict=not line_ends, parse_constant=_refuse, parse_int=_integer, parse_float=_finite_float
        )
    except (ValueError, RecursionError) as error:
        raise NotJson from error
    if text.count("[") + text.count("{") > MAX_DEPTH:
        return plain(value)
    return value


def read_literal(text: str) -> Any:
    """The value of a JSON text or of a Python literal, also of a mixture, with trailing commas. Raises `NotJson`."""
    try:
        return read_json(text)
    except NotJson:
        pass
    pieces: list[str] = []
    place = 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            raise NotJson
        place = token.end()
        if token.lastgroup == "space":
            continue
        piece = token[0]
        if token.lastgroup == "text":
            piece = _json_string(piece)
        elif token.lastgroup == "word":
            piece = _ALIASES.get(piece, piece)
        elif piece in "()":
            if not pieces:  # around a whole value, brackets like these mean nothing
                raise NotJson
            piece = "[" if piece == "(" else "]"
        if piece in "]}" and pieces and pieces[-1] == ",":
            pieces.pop()
        pieces.append(piece)
    return read_json(" ".join(pieces))


def mended(text: str) -> dict[str, Any] | list[Any]:
    """The object or list of a text that is broken JSON: quotes, commas or closers are missing. Raises `NotJson`."""
    for line_ends in (True, False):
        try:
            value = read_json(text, line_ends=True) if line_ends else read_literal(text)
        except NotJson:
            continue
        if isinstance(value, dict | list):
            return value
        raise NotJson
    if len(text) > _MAX_MENDED:
        raise NotJson
    try:
        value = plain(json_repair.repair_json(text, return_objects=True, skip_json_loads=True))
    except (ValueError, RecursionError) as error:
        raise NotJson from error
    # Where nothing was understood, an empty value is given.
    wanted = dict if text.lstrip().startswith("{") else dict | list
    if not isinstance(value, wanted) or (not value and re.search(r"\w", text)):
        raise NotJson
    understood: dict[str, Any] | list[Any] = value
    return understood


def plain(value: Any, _depth: int = 0) -> Any:
    """A value of Python in the types that JSON has. Raises `NotJson` if it is nested too deep.

    Tuples and sets become lists, names become texts, and so do NaN, infinities and what JSON does not know at all.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        if value.bit_length() > _MAX_BITS:
            raise NotJson("a number has too many digits")
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else json.dumps(value)
    if _depth >= MAX_DEPTH:
        raise NotJson(f"this is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {_name(name): plain(each, _depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, _depth + 1) for each in value]
    if isinstance(value, set | frozenset):
        return [plain(each, _depth + 1) for each in sorted(value, key=repr)]
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace")
    return repr(value)


def coerced(value: Any, schema_definition: Any, root: Any) -> Any:
    """The value as its schema wants it; the very same object if there is nothing to change. Never raises.

    `root` is the whole document, into which `$ref`s of the schema point.
    """
    walk = _Walk(root)
    turned = walk.turned(value, schema_definition, 0)
    return value if walk.exhausted else turned


def types_of(schema_definition: Any, root: Any) -> frozenset[str] | None:
    """The JSON types that a schema allows ("number" alone where integers are meant too); None: it does not say."""
    return _Walk(root).types(schema_definition, 0)


def property_of(name: str, schema_definition: Any, root: Any) -> Any:
    """The schema of a property, also from alternatives and from `additionalProperties`; None: it is not known."""
    return _Walk(root).property(name, schema_definition, 0)


def property_names(schema_definition: Any, root: Any) -> tuple[list[str], list[str]]:
    """The properties that an object's schema names, and those of them that are required."""
    walk = _Walk(root)
    schema = walk.resolved(schema_definition)
    known, required = schema.get("properties"), schema.get("required")
    names = [name for name in known if isinstance(name, str)] if isinstance(known, dict) else []
    return names, [name for name in required if name in names] if isinstance(required, list) else []


class _Walk:
    """One walk through a schema and its value, with a purse of steps."""

    __slots__ = ("_root", "_steps")

    def __init__(self, root: Any) -> None:
        self._root = root
        self._steps = _MAX_STEPS

    @property
    def exhausted(self) -> bool:
        return self._steps < 0

    # -- reading schemas

    def resolved(self, schema: Any) -> dict[str, Any]:
        """The schema behind `$ref`s that have nothing beside them that matters; empty if there is none."""
        for _ in range(_MAX_SCHEMA_DEPTH):
            if not isinstance(schema, dict):
                return {}
            if "$ref" not in schema or "properties" in schema:
                return schema
            schema = self._target(schema["$ref"])
        return {}

    def types(self, schema: Any, depth: int) -> frozenset[str] | None:
        if not isinstance(schema, dict) or not self._go(depth):
            return None
        found: list[frozenset[str] | None] = [_own_types(schema)]
        if "$ref" in schema:
            found.append(self.types(self._target(schema["$ref"]), depth + 1))
        found.extend(self.types(part, depth + 1) for part in _parts(schema, "allOf"))
        for alternatives in _alternatives(schema):
            each = [self.types(part, depth + 1) for part in alternatives]
            known = [types for types in each if types is not None]
            found.append(frozenset().union(*known) if len(known) == len(each) else None)
        told = [types for types in found if types is not None]
        return _common(told) if told else None

    def property(self, name: str, schema: Any, depth: int) -> Any:
        if not isinstance(schema, dict) or not self._go(depth):
            return None
        own = schema.get("properties")
        if isinstance(own, dict) and name in own:
            return own[name]
        inner = [self._target(schema["$ref"])] if "$ref" in schema else []
        inner.extend(_parts(schema, "allOf"))
        inner.extend(part for alternatives in _alternatives(schema) for part in alternatives)
        for part in inner:
            if (found := self.property(name, part, depth + 1)) is not None:
                return found
        others = schema.get("additionalProperties")
        return others if isinstance(others, dict) and others and "patternProperties" not in schema else None

    def _target(self, reference: Any) -> Any:
        """What a local `$ref` points to; None if nothing."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        target = self._root
        for step in unquote(reference[1:]).split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict):
                target = target.get(name)
            elif isinstance(target, list) and name.isdecimal() and len(name) < 7 and int(name) < len(target):
                target = target[int(name)]
            else:
                return None
        return target if reference == "#" or reference.startswith("#/") else None

    def _go(self, depth: int, steps: int = 1) -> bool:
        self._steps -= steps
        return self._steps >= 0 and depth < _MAX_SCHEMA_DEPTH

    # -- turning values

    def turned(self, value: Any, schema: Any, depth: int) -> Any:
        if not isinstance(schema, dict) or not schema or not self._go(depth):
            return value
        if "$ref" in schema:
            value = self.turned(value, self._target(schema["$ref"]), depth + 1)
        for part in _parts(schema, "allOf"):
            value = self.turned(value, part, depth + 1)
        for alternatives in _alternatives(schema):
            value = self._alternative(value, alternatives, depth)
        value = _typed(value, schema)
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
            if self._fits(outcome, part, depth + 1) and not any(_same(outcome, each) for each in outcomes):
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
        members = _members(schema)
        if members is None or not self._go(0, len(members)) or any(_same(value, member) for member in members):
            return value
        if isinstance(value, list) and len(value) == 1 and not any(isinstance(member, list) for member in members):
            value_or_inner = value[0]
            if any(_same(value_or_inner, member) for member in members):
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
        changes: dict[str, Any] = {}
        for name, old in value.items():
            new = self.turned(old, known.get(name, others), depth + 1)
            if new is not old:
                changes[name] = new
        return {**value, **changes} if changes else value

    def _list(self, value: list[Any], schema: dict[str, Any], depth: int) -> list[Any]:
        first, rest = _item_schemas(schema)
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
        types = _named_types(schema)
        if types is not None and not _is_any(value, types):
            return False
        members = _members(schema)
        if members is not None and self._go(0, len(members)) and not any(_same(value, member) for member in members):
            return False
        if "$ref" in schema and not self._fits(value, self._target(schema["$ref"]), depth + 1):
            return False
        if not all(self._fits(value, part, depth + 1) for part in _parts(schema, "allOf")):
            return False
        if not all(any(self._fits(value, part, depth + 1) for part in parts) for parts in _alternatives(schema)):
            return False
        if isinstance(value, dict):
            return self._object_fits(value, schema, depth)
        if isinstance(value, list):
            first, rest = _item_schemas(schema)
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


def _typed(value: Any, schema: dict[str, Any]) -> Any:
    types = _named_types(schema)
    if types is None or _is_any(value, types):
        return value
    if isinstance(value, str):
        return _from_text(value, types)
    if isinstance(value, bool | int | float):
        if "string" in types:
            return value if "array" in types else _word(value)
        return [value] if "array" in types else value
    if isinstance(value, list):
        if len(value) != 1:
            return value
        if _is_any(value[0], types):
            return value[0]
        inner = _typed(value[0], schema)
        return inner if _is_any(inner, types) else value
    if isinstance(value, dict) and "array" in types:
        return [value]
    return value


def _from_text(text: str, types: frozenset[str]) -> Any:
    """What a text means where no text is wanted."""
    word = text.strip()
    if "null" in types and word.lower() in _NULLS:
        return None
    if "boolean" in types and word.lower() in _WORDS:
        return _WORDS[word.lower()]
    if types & {"integer", "number"} and (number := _number(word)) is not None and _is_any(number, types):
        return int(number) if "number" not in types and isinstance(number, float) else number
    if types & {"object", "array"} and word[:1] + word[-1:] in {"{}", "[]", "()"}:
        try:
            value: Any = mended(f"[{word[1:-1]}]" if word[0] == "(" else word)
        except NotJson:
            value = None
        if isinstance(value, list) and len(value) == 1 and "array" not in types:
            value = value[0]
        if isinstance(value, dict) and "object" not in types:
            value = [value]
        if isinstance(value, dict | list) and _is_any(value, types):
            return value
    if word[:1] == '"':
        try:
            inner = read_json(word)
        except NotJson:
            inner = None
        if isinstance(inner, str):
            return _from_text(inner, types)
    return [text] if "array" in types else text


def _number(word: str) -> int | float | None:
    if _INTEGER.fullmatch(word):
        return int(word)
    if _NUMBER.fullmatch(word):
        number = float(word)
        return number if math.isfinite(number) else None
    return None


def _own_types(schema: dict[str, Any]) -> frozenset[str] | None:
    """The types that a schema names, or that its members have; what stands behind other keys is not looked at."""
    types = _named_types(schema)
    members = _members(schema)
    if members is None:
        return types
    of_members = frozenset(_type_of(member) for member in members)
    return of_members if types is None else _common([types, of_members])


def _named_types(schema: dict[str, Any]) -> frozenset[str] | None:
    types = schema.get("type")
    if isinstance(types, str):
        return frozenset((types,))
    if isinstance(types, list):
        return frozenset(each for each in types if isinstance(each, str))
    return None


def _common(told: Sequence[frozenset[str]]) -> frozenset[str]:
    """The types that are allowed by all: an integer is a number."""
    common = told[0]
    for types in told[1:]:
        wide = types | {"integer"} if "number" in types else types
        common = (common | {"integer"} if "number" in common else common) & wide
    return common


def _parts(schema: dict[str, Any], key: str) -> Sequence[Any]:
    parts = schema.get(key)
    return parts if isinstance(parts, list) else ()


def _alternatives(schema: dict[str, Any]) -> Iterator[Sequence[Any]]:
    return (parts for key in ("anyOf", "oneOf") if (parts := _parts(schema, key)))


def _members(schema: dict[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    members = schema.get("enum")
    return members if isinstance(members, list) else None


def _item_schemas(schema: dict[str, Any]) -> tuple[Sequence[Any], Any]:
    """The schemas of a list's first members, and that of the others. Older drafts have the first ones in `items`."""
    items = schema.get("items")
    if isinstance(items, list):
        return items, schema.get("additionalItems")
    return _parts(schema, "prefixItems"), items


def _is_any(value: Any, types: frozenset[str]) -> bool:
    kind = _type_of(value)
    if kind in types or (kind == "integer" and "number" in types):
        return True
    return isinstance(value, float) and value.is_integer() and "integer" in types


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "object" if isinstance(value, dict) else "array"


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1. Deep within lists and objects that does not matter here."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


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


def _name(name: Any) -> str:
    if isinstance(name, str):
        return name
    value = plain(name)
    return value if isinstance(value, str) else json.dumps(value)


def _json_string(token: str) -> str:
    if token[0] == '"':
        try:
            return json.dumps(json.loads(token, strict=False))
        except ValueError:
            pass
    return json.dumps(_ESCAPE.sub(_unescaped, token[1:-1]))


def _unescaped(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3]
    if code is None:
        return _ESCAPED.get(match[4], match[0])
    number = int(code, 16)
    return chr(number) if number <= 0x10FFFF else match[0]


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError("too many digits")
    return int(digits)


def _finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("too large")
    return number
