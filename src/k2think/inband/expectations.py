"""What a schema says of a value's types, members and properties, looked at without compiling it.

Schemas come from outside, may refer to themselves and may be built to explode: depth and steps are bounded, and past
the bounds nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote

_MAX_SCHEMA_DEPTH = 64
_MAX_STEPS = 10_000
_MAX_REFERENCE = 1_000
"""Characters of a `$ref`. Each step of it is walked whenever it is met."""


def types_of(schema_definition: Any, root: Any) -> frozenset[str] | None:
    """The JSON types that a schema allows ("number" alone where integers are meant too); None: it does not say."""
    return Expectations(root).types(schema_definition, 0)


def property_of(name: str, schema_definition: Any, root: Any) -> Any:
    """The schema of a property, also from alternatives and from `additionalProperties`; None: it is not known."""
    return Expectations(root).property(name, schema_definition, 0)


def property_names(schema_definition: Any, root: Any) -> tuple[list[str], list[str]]:
    """The properties that an object's schema names, and those of them that are required."""
    walk = Expectations(root)
    schema = walk.resolved(schema_definition)
    known, required = schema.get("properties"), schema.get("required")
    names = [name for name in known if isinstance(name, str)] if isinstance(known, dict) else []
    return names, [name for name in required if name in names] if isinstance(required, list) else []


def pointed(reference: Any, root: Any) -> Any:
    """What a local `$ref` points to in a document; None if nothing."""
    if not isinstance(reference, str) or not reference.startswith("#") or len(reference) > _MAX_REFERENCE:
        return None
    target = root
    for step in unquote(reference[1:]).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(target, dict):
            target = target.get(name)
        elif isinstance(target, list) and name.isdecimal() and len(name) < 7 and int(name) < len(target):
            target = target[int(name)]
        else:
            return None
    return target if reference == "#" or reference.startswith("#/") else None


class Expectations:
    """One walk through a schema, with a purse of steps. `root` is the document into which `$ref`s point."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._steps = _MAX_STEPS

    @property
    def exhausted(self) -> bool:
        """Whether the steps have run out, so that what was said since may be wrong."""
        return self._steps < 0

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
        """What `types_of` says; `depth` counts the schemas around this one."""
        if not isinstance(schema, dict) or not self._go(depth):
            return None
        found: list[frozenset[str] | None] = [_own_types(schema)]
        if "$ref" in schema:
            found.append(self.types(self._target(schema["$ref"]), depth + 1))
        found.extend(self.types(part, depth + 1) for part in parts_of(schema, "allOf"))
        for alternatives in alternatives_of(schema):
            each = [self.types(part, depth + 1) for part in alternatives]
            known = [types for types in each if types is not None]
            found.append(frozenset().union(*known) if len(known) == len(each) else None)
        told = [types for types in found if types is not None]
        return _common(told) if told else None

    def property(self, name: str, schema: Any, depth: int) -> Any:
        """What `property_of` says."""
        if not isinstance(schema, dict) or not self._go(depth):
            return None
        own = schema.get("properties")
        if isinstance(own, dict) and name in own:
            return own[name]
        inner = [self._target(schema["$ref"])] if "$ref" in schema else []
        inner.extend(parts_of(schema, "allOf"))
        inner.extend(part for alternatives in alternatives_of(schema) for part in alternatives)
        for part in inner:
            if (found := self.property(name, part, depth + 1)) is not None:
                return found
        others = schema.get("additionalProperties")
        return others if isinstance(others, dict) and others and "patternProperties" not in schema else None

    def _go(self, depth: int, steps: int = 1) -> bool:
        self._steps -= steps
        return self._steps >= 0 and depth < _MAX_SCHEMA_DEPTH

    def _target(self, reference: Any) -> Any:
        return pointed(reference, self._root)


def _own_types(schema: dict[str, Any]) -> frozenset[str] | None:
    """The types that a schema names, or that its members have; what stands behind other keys is not looked at."""
    types = named_types(schema)
    members = members_of(schema)
    if members is None:
        return types
    of_members = frozenset(type_of(member) for member in members)
    return of_members if types is None else _common([types, of_members])


def named_types(schema: dict[str, Any]) -> frozenset[str] | None:
    """What stands behind `type`; None if nothing does."""
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


def parts_of(schema: dict[str, Any], key: str) -> Sequence[Any]:
    """The list behind a key; empty if there is none."""
    parts = schema.get(key)
    return parts if isinstance(parts, list) else ()


def alternatives_of(schema: dict[str, Any]) -> Iterator[Sequence[Any]]:
    """The schemas of which one must fit, for each key that has such."""
    return (parts for key in ("anyOf", "oneOf") if (parts := parts_of(schema, key)))


def members_of(schema: dict[str, Any]) -> list[Any] | None:
    """The values that an enum has; None if it is none."""
    if "const" in schema:
        return [schema["const"]]
    members = schema.get("enum")
    return members if isinstance(members, list) else None


def item_schemas(schema: dict[str, Any]) -> tuple[Sequence[Any], Any]:
    """The schemas of a list's first members, and that of the others. Older drafts have the first ones in `items`."""
    items = schema.get("items")
    if isinstance(items, list):
        return items, schema.get("additionalItems")
    return parts_of(schema, "prefixItems"), items


def is_any(value: Any, types: frozenset[str]) -> bool:
    """Whether a value has one of these types; 3.0 is an integer."""
    kind = type_of(value)
    if kind in types or (kind == "integer" and "number" in types):
        return True
    return isinstance(value, float) and value.is_integer() and "integer" in types


def type_of(value: Any) -> str:
    """The narrowest type of a value, in JSON Schema's words."""
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


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1. Deep within lists and objects that does not matter here."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
