"""Tells beforehand how much work a schema makes, because a small one can keep the validator busy for hours.

Twenty definitions, each `anyOf` twice the one before, are a million schemas when their `$ref`s are unfolded, and all of
them look at the same value. So schemas that apply to one value are counted when a schema is read, and too many, or a
circle of them, are refused. Where a schema comes back for what is in a value, the value bounds it: a tree that may be
one of two alternatives takes two looks at its children and four at theirs, which is fine for the trees that there are.
So these visits are counted for each value.

The counts are made in linear time, since each schema, and each pair of a schema and a value, is unfolded once. They may
be too high, but should never be too low.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

from k2think.inband.expectations import parts_of, pointed

MAX_SCHEMAS = 10_000
"""Schemas that may look at one and the same value."""

MAX_HARMLESS = 100
"""Schemas, all `$ref`s unfolded, whose work on any value is no more than the value's size would tell."""

MAX_STEPS = 300_000
"""Pairs of schemas and values that one count goes through; they take about a microsecond each."""

MAX_DEPTH = 150
"""Values within values that are followed. Deeper ones are refused elsewhere."""

_CHARACTERS = 100
"""Characters of a text whose pattern is searched for in the time of one more visit."""
_MEMBERS = 50
"""Members or names that are compared in that time."""
_FAMILIAR = 50
"""A generous guess for the schema of schemas, which the validator brings along."""
_AGAIN = 3
"""To know what was not evaluated, the parts are evaluated once more. A tower of such grows by 2.6 for each floor."""

_IDS = ("$id", "id")
_ANCHORS = ("$anchor", "$dynamicAnchor")


class TooComplex(Exception):
    """A schema, or a value under it, that would take too much work. `reason` is a short sentence, no full stop."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Visits(NamedTuple):
    """How often schemas look at a value and into it; `weighed`: with long texts counted as more than one."""

    plain: int
    weighed: int


class _Node:
    """One schema. `same` look at the same value, so many times each; the others look at what is in it."""

    def __init__(self, own: int, *, chooses: bool) -> None:
        self.own = own
        self.work = own  # with all of `same`, unfolded
        self.chooses = chooses  # it or one of `same` has alternatives
        self.same: list[tuple[_Node, int]] = []
        self.names: dict[str, _Node] = {}
        self.any_name: list[_Node] = []
        self.other_names: list[_Node] = []
        self.places: list[_Node | None] = []
        self.any_place: list[_Node] = []
        self.other_places: list[_Node] = []

    def within(self) -> Iterator[_Node]:
        """All that look at what is in the value."""
        yield from self.names.values()
        for nodes in (self.any_name, self.other_names, self.any_place, self.other_places):
            yield from nodes
        yield from (node for node in self.places if node is not None)

    def of_name(self, name: str) -> Sequence[_Node]:
        """Those that look at a member of an object."""
        known = self.names.get(name)
        found = self.other_names if known is None else [known]
        return [*self.any_name, *found] if self.any_name else found

    def of_place(self, place: int) -> Sequence[_Node]:
        """Those that look at a member of a list."""
        if place >= len(self.places):
            return [*self.any_place, *self.other_places]
        known = self.places[place]
        return self.any_place if known is None else [*self.any_place, known]


class Complexity:
    """Knows the work that a schema makes. The schema has been compiled, so all that it refers to exists.

    `harmless`: any value can be checked. `chooses`: there are alternatives in it, so that an error may consist of
    many. Raises `TooComplex`.
    """

    def __init__(self, definition: dict[str, Any]) -> None:
        self._document = _Document(definition)
        self._nodes: dict[int, _Node] = {}
        self._unread: list[tuple[dict[str, Any], _Node]] = []
        self._familiar: _Node | None = None
        self._top = self._node(definition)
        while self._unread:
            self._read(*self._unread.pop())
        nodes = list(self._nodes.values())
        self._places = {node: place for place, node in enumerate(_ordered(nodes))}
        self._weigh()
        self.chooses = any(node.chooses for node in nodes)
        self.harmless = _unfolded(self._top, MAX_HARMLESS) <= MAX_HARMLESS

    def visits(self, value: Any) -> tuple[Visits, int]:
        """The visits to a value, and how many of them stand behind the largest choice among alternatives.

        Raises `TooComplex` if there are too many to be counted.
        """
        count = _Count(self._places)
        return count.of(self._top, value, 0), count.choice

    def _node(self, schema: dict[str, Any]) -> _Node:
        node = self._nodes.get(id(schema))
        if node is None:
            compared = len(parts_of(schema, "enum")) + len(parts_of(schema, "required"))
            node = _Node(1 + compared // _MEMBERS, chooses="anyOf" in schema or "oneOf" in schema)
            self._nodes[id(schema)] = node
            self._unread.append((schema, node))
        return node

    def _read(self, schema: dict[str, Any], node: _Node) -> None:
        again = _AGAIN if "unevaluatedProperties" in schema or "unevaluatedItems" in schema else 1
        same = [part for key in ("allOf", "anyOf", "oneOf") for part in parts_of(schema, key)]
        same += [schema.get(key) for key in ("not", "if", "then", "else")]
        same += [part for key in ("dependentSchemas", "dependencies") for part in _values(schema.get(key))]
        for key in ("$ref", "$dynamicRef", "$recursiveRef"):
            if isinstance(reference := schema.get(key), str):
                targets = self._document.targets(schema, key, reference)
                same += targets
                if not targets:
                    node.same.append((self._schema_of_schemas(), again))
        node.same += [(part, again) for part in self._all(same)]
        names = schema.get("properties")
        node.names = {name: self._node(part) for name, part in _items(names) if isinstance(part, dict)}
        node.any_name = self._all([*_values(schema.get("patternProperties")), schema.get("propertyNames")])
        node.other_names = self._all([schema.get("additionalProperties")])
        items = schema.get("items")
        first = items if isinstance(items, list) else parts_of(schema, "prefixItems")
        node.places = [self._node(part) if isinstance(part, dict) else None for part in first]
        node.other_places = self._all([schema.get("additionalItems") if isinstance(items, list) else items])
        node.any_place = self._all([schema.get("contains"), schema.get("unevaluatedItems")])
        node.any_name += self._all([schema.get("unevaluatedProperties")])

    def _all(self, schemas: Sequence[Any]) -> list[_Node]:
        return [self._node(schema) for schema in schemas if isinstance(schema, dict)]

    def _schema_of_schemas(self) -> _Node:
        if self._familiar is None:
            node = self._familiar = _Node(_FAMILIAR, chooses=True)
            node.any_name = node.any_place = [node]
            self._nodes[id(node)] = node
        return self._familiar

    def _weigh(self) -> None:
        for node in self._places:
            for part, times in node.same:
                node.work += times * part.work
                node.chooses = node.chooses or part.chooses
            if node.work > MAX_SCHEMAS:
                raise TooComplex(f"the schema is too complex: more than {MAX_SCHEMAS} parts of it apply to one value")


class _Document:
    """Where the references of a schema lead. Where that is not plain, to everything that may be meant."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._resources: list[dict[str, Any]] = [root]  # what `$id`s make documents of their own
        self._outer = [0]
        self._anchors: dict[str, list[dict[str, Any]]] = {}
        self._resource_of: dict[int, int] = {}
        self._ids: list[str] = [""]
        self._moving = False  # a `$dynamicRef` of a foreign schema may come back here
        unread: list[tuple[Any, int]] = [(root, 0)]
        while unread:
            value, resource = unread.pop()
            if isinstance(value, dict) and id(value) not in self._resource_of:
                resource = self._entered(value, resource)
                self._resource_of[id(value)] = resource
            if isinstance(value, dict | list):
                members = value.values() if isinstance(value, dict) else value
                unread.extend((each, resource) for each in members if isinstance(each, dict | list))

    def _entered(self, schema: dict[str, Any], resource: int) -> int:
        for name in (schema.get(key) for key in _ANCHORS):
            if isinstance(name, str):
                self._anchors.setdefault(name, []).append(schema)
        self._moving = self._moving or "$dynamicAnchor" in schema or "$recursiveAnchor" in schema
        for name in (schema.get(key) for key in _IDS):
            if not isinstance(name, str):
                continue
            if name.startswith("#"):
                self._anchors.setdefault(name[1:], []).append(schema)
            elif schema is self._resources[0]:
                self._ids[0] = name
            else:
                self._resources.append(schema)
                self._outer.append(resource)
                self._ids.append(name)
                resource = len(self._resources) - 1
        return resource

    def targets(self, schema: dict[str, Any], key: str, reference: str) -> list[Any]:
        """What a reference in `schema` leads to; nothing if that is the schema of schemas. Raises `TooComplex`."""
        address, _, fragment = reference.partition("#")
        resources = self._meant(schema, key, address)
        if not fragment:
            return resources[:1] if not address and key == "$ref" else resources
        if not fragment.startswith("/"):
            found = self._anchors.get(unquote(fragment), [])
        else:
            found = [pointed(f"#{fragment}", resource) for resource in resources]
            found = [each for each in found if isinstance(each, dict | bool)]
        if not found and resources:
            raise TooComplex("the schema has a reference that cannot be followed")
        return found

    def _meant(self, schema: dict[str, Any], key: str, address: str) -> list[dict[str, Any]]:
        if address:
            exact = [place for place, name in enumerate(self._ids) if address == name.removesuffix("#")]
            if "://" in address and exact:
                return [self._resources[place] for place in exact]
            if "://json-schema.org/" in address and not any("json-schema.org" in name.lower() for name in self._ids):
                if self._moving:
                    raise TooComplex("the schema is too complex: it extends the schema of schemas")
                return []
        if address or key == "$recursiveRef":
            return self._resources
        place = self._resource_of[id(schema)]
        meant = [self._resources[place]]
        while place:
            place = self._outer[place]
            meant.append(self._resources[place])
        return meant


class _Count:
    """One count of the visits to a value. `choice` is the largest number of them behind alternatives."""

    def __init__(self, places: dict[_Node, int]) -> None:
        self.choice = 0
        self._places = places
        self._steps = MAX_STEPS
        self._known: dict[tuple[_Node, int], Visits] = {}
        self._parts: dict[_Node, list[tuple[_Node, int]]] = {}

    def of(self, node: _Node, value: Any, depth: int) -> Visits:
        """The visits of a schema, and all that it consists of, to a value and all that is in it."""
        if not isinstance(value, dict | list):
            visits = Visits(node.work, node.work * (1 + len(value) // _CHARACTERS if isinstance(value, str) else 1))
        elif (known := self._known.get((node, id(value)))) is not None:
            return known
        else:
            if depth > MAX_DEPTH:
                raise TooComplex("this is nested too deeply to be checked")
            visits = self._of_all(node, value, depth)
            self._known[node, id(value)] = visits
        if node.chooses:
            self.choice = max(self.choice, visits.plain)
        return visits

    def _of_all(self, node: _Node, value: dict[str, Any] | list[Any], depth: int) -> Visits:
        plain = weighed = node.work
        parts = self._unfolded(node)
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            self._step(1 + len(parts))
            for part, times in parts:
                for inner in part.of_place(name) if isinstance(name, int) else part.of_name(name):
                    self._step(1)
                    visits = self.of(inner, each, depth + 1)
                    plain += times * visits.plain
                    weighed += times * visits.weighed
        return Visits(plain, weighed)

    def _unfolded(self, node: _Node) -> list[tuple[_Node, int]]:
        """The parts of a schema that look into a value, and how often each of them does."""
        parts = self._parts.get(node)
        if parts is None:
            times = {node: 1}
            waiting = [node]
            while waiting:
                for part, _ in waiting.pop().same:
                    self._step(1)
                    if part not in times:
                        times[part] = 0
                        waiting.append(part)
            for whole in sorted(times, key=self._places.__getitem__, reverse=True):
                for part, often in whole.same:
                    times[part] += often * times[whole]
            parts = self._parts[node] = [(part, often) for part, often in times.items() if any(part.within())]
        return parts

    def _step(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise TooComplex("this is too large to be checked against its schema")


def _ordered(nodes: Sequence[_Node]) -> list[_Node]:
    """Each behind all that look at the same value for its sake. Raises `TooComplex` for circles."""
    missing = {node: len(node.same) for node in nodes}
    wholes: dict[_Node, list[_Node]] = {}
    for node in nodes:
        for part, _ in node.same:
            wholes.setdefault(part, []).append(node)
    ordered = [node for node, number in missing.items() if not number]
    for node in ordered:  # grows meanwhile
        for whole in wholes.get(node, ()):
            missing[whole] -= 1
            if not missing[whole]:
                ordered.append(whole)
    if len(ordered) < len(nodes):
        raise TooComplex("the schema applies itself to the same value without end")
    return ordered


def _unfolded(top: _Node, limit: int) -> int:
    """How many schemas stand behind one, everything unfolded; more than `limit` if it is more, or without end."""
    number = 0
    waiting = [top]
    while waiting and number <= limit:
        node = waiting.pop()
        number += node.own
        for part, times in node.same:
            waiting.extend([part] * times)
        waiting.extend(node.within())
    return number


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else []


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []
