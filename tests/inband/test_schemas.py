"""What a compiled schema says of a value, and what it never does: reach out, or take forever."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k2think.inband.complexity import Complexity
from k2think.inband.schemas import InvalidSchema, Schema

TRIP: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "stops": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        "unit": {"enum": ["km", "mi"]},
        "when": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "who": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"age": {"type": "integer"}}}]},
    },
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"city": "Paris"}, ""),
        ({"city": "Paris", "days": 10**80}, ""),
        ({}, '"city" is a required property'),
        ({"city": "x", "days": "x"}, 'at \'days\': "x" is not of type "integer"'),
        ({"city": "x", "stops": [{}, {"name": 1}]}, "at 'stops[1].name': 1 is not of type \"string\""),
        ({"city": "x", "unit": "m"}, 'at \'unit\': "m" is not one of "km" or "mi"'),
        ({"city": "x", "k": 1}, "Additional properties are not allowed ('k' was unexpected)"),
        ({"city": "x", "when": "z"}, 'at \'when\': "z" is not of type "integer" or "z" is not of type "null"'),
        ({"city": "x", "who": {"age": "z"}}, 'at \'who.age\': "z" is not of type "integer"'),
    ],
)
def test_a_problem_is_told_with_its_place(value: Any, problem: str) -> None:
    assert Schema(TRIP).problem(value) == problem


def test_a_sentence_is_short_and_keeps_both_ends() -> None:
    problem = Schema(TRIP).problem({"city": "x", "days": "q\n" * 5000})
    assert len(problem) <= 300
    assert problem.startswith("at 'days': \"q\\n")
    assert problem.endswith('is not of type "integer"')
    assert len(Schema({"propertyNames": {"maxLength": 3}}).problem({"x\n" * 5000: 1})) <= 300


@pytest.mark.parametrize("value", [{1: 2}, {"a": {1}}, {"a": b"b"}])
def test_what_no_json_can_hold_is_a_problem(value: Any) -> None:
    assert (
        Schema({"properties": {"a": {"type": "integer"}}, "maxProperties": 3})
        .problem(value)
        .startswith("this is no JSON")
    )


def test_half_a_character_never_raises() -> None:
    assert Schema({"pattern": "a", "minLength": 1}).problem("\ud800")


def test_a_schema_need_not_name_the_type() -> None:
    schema = Schema({"properties": {"a": {"type": "integer"}}})
    assert schema.problem({"a": 1}) == ""
    assert schema.problem({"a": "1"})


def test_formats_are_no_rules() -> None:
    for dialect in ("https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#"):
        assert Schema({"$schema": dialect, "format": "date"}).problem("tomorrow") == ""


def deep() -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(3000):
        schema = {"properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    "definition",
    [
        {"type": "objekt"},
        {"properties": {"a": {"type": 3}}},
        {"$ref": "#/nowhere"},
        {"$ref": "#nowhere"},
        {"$ref": "other.json"},
        {"pattern": "("},
        {"pattern": "(?=a)b"},
        {"pattern": r"(a)\1"},
        {"pattern": "(((a{1000}){1000}){1000})"},
        {"$schema": "http://127.0.0.1:9/schema"},
        {"enum": [{1, 2}]},
        {"a": "\ud800"},
        deep(),
    ],
)
def test_a_schema_that_cannot_be_compiled_is_refused(definition: dict[str, Any]) -> None:
    with pytest.raises(InvalidSchema) as caught:
        Schema(definition)
    assert 0 < len(caught.value.reason) <= 300
    assert "\n" not in caught.value.reason


def test_references_reach_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        for definition in ({"$ref": address}, {"$schema": address}, {"$id": address, "$ref": "x.json"}):
            with pytest.raises(InvalidSchema):
                Schema(definition)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_references_reach_no_file(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('{"type": "integer"}')
    with pytest.raises(InvalidSchema):
        Schema({"properties": {"a": {"$ref": file.as_uri()}}})


@pytest.mark.parametrize(
    "definition",
    [
        {"properties": {"a": {"$ref": "#"}}},
        {"additionalProperties": {"$ref": "#"}},
        {"properties": {"a": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}},
        {"$defs": {"a": {"properties": {"a": {"$ref": "#/$defs/a"}}}}, "$ref": "#/$defs/a"},
        {"$dynamicAnchor": "a", "properties": {"a": {"$dynamicRef": "#a"}}},
        {"$id": "https://x.y/z", "properties": {"a": {"$ref": "z"}}},
        {"$id": "https://x.y/z", "properties": {"a": {"$ref": "#"}}},
        {"definitions": {"a": {"$anchor": "n"}}, "$ref": "#n"},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
    ],
)
def test_a_schema_may_come_back_for_what_is_in_a_value(definition: dict[str, Any]) -> None:
    assert Schema(definition).problem({"a": {"a": {}}}) == ""


@pytest.mark.parametrize(
    "definition",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"anyOf": [{"type": "string"}, {"$ref": "#"}]},
        {"if": {"$ref": "#"}},
        {"$dynamicAnchor": "a", "not": {"$dynamicRef": "#a"}},
        {"dependentSchemas": {"a": {"$ref": "#"}}},
        {"$id": "https://x.y/z", "allOf": [{"$ref": "https://x.y/z"}]},
        {"$id": "https://x.y/z", "$defs": {"a": {"$id": "a", "allOf": [{"$ref": "z"}]}}, "$ref": "a"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}},
        {"$ref": "#/$defs/0", "$defs": {str(a): {"oneOf": [{"$ref": f"#/$defs/{b}"} for b in range(9) if b != a]}
                                        for a in range(9)}},
    ],
)  # fmt: skip
def test_a_schema_may_not_apply_itself_to_the_same_value(definition: dict[str, Any]) -> None:
    with pytest.raises(InvalidSchema, match="without end"):
        Schema(definition)


def tower(floors: int, floor: Callable[[dict[str, str]], Any], ground: Any = None) -> dict[str, Any]:
    """Definitions, each made of the one below it."""
    definitions = {f"d{n}": floor({"$ref": f"#/$defs/d{n - 1}"}) for n in range(1, floors + 1)}
    return {"$ref": f"#/$defs/d{floors}", "$defs": {"d0": ground or {"type": "integer"}, **definitions}}


def nested(opener: str, depth: int, closer: str) -> Any:
    return json.loads(opener * depth + "1" + closer * depth)


@pytest.mark.parametrize(
    "definition",
    [
        tower(60, lambda below: {"anyOf": [below, below]}),
        tower(60, lambda below: {"oneOf": [below, below]}),
        tower(60, lambda below: {"allOf": [below, below]}),
        tower(60, lambda below: {"if": below, "then": below, "else": below}),
        tower(60, lambda below: {"not": {"allOf": [{"not": below}, {"not": below}]}}),
        tower(60, lambda below: {"dependentSchemas": {"a": below, "b": below}}),
        tower(60, lambda below: {"allOf": [below], "unevaluatedProperties": below}),
        tower(60, lambda below: {"anyOf": [below], "unevaluatedItems": False}),
        tower(60, lambda below: {"allOf": [{"$ref": below["$ref"].replace("$", "%24")}, below]}),
        {"anyOf": [{"oneOf": [{"const": a * 100 + b} for b in range(101)]} for a in range(101)]},
        {"$ref": "#a59", "$defs": {"0": {"$anchor": "a0"}, **{
            str(n): {"$anchor": f"a{n}", "anyOf": [{"$ref": f"#a{n - 1}"}] * 2} for n in range(1, 60)}}},
        {"$id": "https://x.y/z", "$ref": "d40", "$defs": {"d0": {"$id": "d0"}, **{
            f"d{n}": {"$id": f"d{n}", "anyOf": [{"$ref": f"d{n - 1}"}, {"$ref": f"d{n - 1}"}]} for n in range(1, 41)}}},
        {"$dynamicAnchor": "meta", "anyOf": [{"$ref": "https://json-schema.org/draft/2020-12/schema"}] * 2},
    ],
)  # fmt: skip
def test_a_schema_that_explodes_is_refused(definition: dict[str, Any]) -> None:
    """Any of these would take the validator years."""
    with pytest.raises(InvalidSchema, match=r"the schema (is too complex|applies itself)"):
        Schema(definition)


@pytest.mark.parametrize(
    ("definition", "value"),
    [
        (
            tower(80, lambda below: {"properties": {"a": below}, "patternProperties": {".": below}}),
            nested('{"a":', 80, "}"),
        ),
        (tower(80, lambda below: {"patternProperties": {"a": below, ".": below}}), nested('{"a":', 80, "}")),
        (tower(80, lambda below: {"items": below, "contains": below}), nested("[", 80, "]")),
        (tower(80, lambda below: {"prefixItems": [below], "contains": below}), nested("[", 80, "]")),
        (tower(80, lambda below: {"allOf": [{"items": below}] * 2, "unevaluatedItems": below}), nested("[", 80, "]")),
        ({"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]}, nested("[", 80, "]")),
        ({"items": {"oneOf": [{"$ref": "#"}, {"$ref": "#"}]}}, nested("[", 80, "]")),
        (
            {"$dynamicAnchor": "a", "additionalProperties": {"anyOf": [{"$dynamicRef": "#a"}, {"$dynamicRef": "#a"}]}},
            nested('{"a":', 80, "}"),
        ),
        ({"items": {"anyOf": [{"pattern": f"x{n}$"} for n in range(1000)]}}, ["x" * 1000] * 1000),
        ({"items": {"anyOf": [{"const": n} for n in range(5000)]}}, [-1] * 10_000),
    ],
)  # fmt: skip
def test_a_value_under_which_a_schema_explodes_is_not_checked(definition: dict[str, Any], value: Any) -> None:
    assert "too " in Schema(definition).problem(value)


def expression(kinds: int) -> dict[str, Any]:
    """A tree, each of whose nodes is of one of many kinds, told apart by a name."""
    operands = {"left": {"$ref": "#/$defs/e"}, "right": {"$ref": "#/$defs/e"}}
    nodes = [
        {
            "type": "object",
            "properties": {"kind": {"const": f"k{n}"}, **operands},
            "required": ["kind", "left", "right"],
            "additionalProperties": False,
        }
        for n in range(kinds)
    ]
    return {"$ref": "#/$defs/e", "$defs": {"e": {"anyOf": [*nodes, {"type": "integer"}]}}}


def tree(depth: int, leaf: Any) -> Any:
    return {"kind": "k9", "left": tree(depth - 1, leaf), "right": tree(depth - 1, leaf)} if depth else leaf


def test_a_tree_of_alternatives_is_checked_and_its_faults_are_told_in_time() -> None:
    schema = Schema(expression(10))
    assert schema.problem(tree(4, 1)) == ""
    assert schema.problem(tree(1, "nope")).startswith("at 'kind'")
    # To write down what is wrong with ten thousand alternatives would take ten seconds.
    assert schema.problem(tree(4, "nope")) == "this fits none of the alternatives that its schema allows"


def test_long_values_are_told_of_without_themselves() -> None:
    schema = Schema({"properties": {"a": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}})
    long = "x" * 1_000_000
    assert (
        schema.problem({"a": long}) == 'at \'a\': the value is not of type "integer" or the value is not of type "null"'
    )
    many = Schema({"anyOf": [{"type": "integer", "maximum": n} for n in range(1000)]})
    assert many.problem(long[:100_000]) == "this fits none of the alternatives that its schema allows"


def test_what_is_large_but_plain_is_checked() -> None:
    row = {"type": "object", "properties": {f"c{n}": {"type": ["string", "null"]} for n in range(20)}}
    rows = Schema({"type": "array", "items": {"$ref": "#/$defs/row"}, "$defs": {"row": row}})
    assert rows.problem([{"c1": "x", "c19": None}] * 100_000) == ""
    assert rows.problem([*([{}] * 50_000), {"c1": 3}]) == 'at \'[50000].c1\': 3 is not of types "null", "string"'
    # Forty definitions, each of which uses all that come after it, as an interface's description does.
    uses = {
        f"d{n}": {"type": "object", "properties": {f"p{m}": {"$ref": f"#/$defs/d{m}"} for m in range(n + 1, 40)}}
        for n in range(40)
    }
    linked = Schema({"$ref": "#/$defs/d0", "$defs": uses})
    assert linked.problem({"p1": {"p5": {"p39": {}}}}) == ""
    assert linked.problem({"p1": {"p5": {"p39": 3}}}) == "at 'p1.p5.p39': 3 is not of type \"object\""


def test_a_deep_and_wide_tree_is_checked() -> None:
    node = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
        "required": ["name"],
    }
    schema = Schema({"$ref": "#/$defs/node", "$defs": {"node": node}})
    assert schema.problem({"name": "x", "children": [{"name": "y", "children": []}] * 10_000}) == ""
    value: dict[str, Any] = {"name": "x"}
    for _ in range(45):
        value = {"name": "x", "children": [value]}
    assert schema.problem(value) == ""


def test_the_count_of_a_schema_takes_linear_time() -> None:
    """Were a definition unfolded more than once, this would not come to an end."""
    definition = tower(2_000, lambda below: {"properties": {"a": below, "b": below}, "items": below})
    complexity = Complexity(definition)
    assert not complexity.harmless
    assert complexity.visits(nested('{"a":', 80, "}"))[0].plain < 1_000


def test_patterns_take_linear_time() -> None:
    schema = Schema({"pattern": "^(a+)+$"})
    assert schema.problem("a" * 50_000 + "!")
    assert schema.problem("a" * 50_000) == ""
