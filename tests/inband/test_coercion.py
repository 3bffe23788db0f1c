"""How values are turned into what their schema wants, and that right ones are left alone."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2think.inband.coercion import coerced
from k2think.inband.expectations import property_names, property_of, types_of
from k2think.inband.literals import NotJson, plain, read_json, read_literal
from k2think.inband.repair import Effort, by_guessing, by_rules, mended
from k2think.inband.schemas import Schema

STRING = {"type": "string"}
INTEGER = {"type": "integer"}
NUMBER = {"type": "number"}
BOOLEAN = {"type": "boolean"}
OBJECT = {"type": "object"}
ARRAY = {"type": "array"}


def exactly(value: Any) -> str:
    """So that 1, 1.0 and true differ."""
    return json.dumps(value)


@pytest.mark.parametrize(
    ("schema", "value", "wanted"),
    [
        # scalars
        (INTEGER, "3", 3),
        (INTEGER, " -3\n", -3),
        (INTEGER, "3.0", 3),
        (INTEGER, "3.5", "3.5"),
        (INTEGER, "three", "three"),
        (INTEGER, "9" * 5000, "9" * 5000),
        (INTEGER, True, True),
        (INTEGER, '"3"', 3),
        (NUMBER, "3", 3),
        (NUMBER, "3.5", 3.5),
        (NUMBER, "1e3", 1000.0),
        (NUMBER, "1e999", "1e999"),
        (NUMBER, "NaN", "NaN"),
        (BOOLEAN, "true", True),
        (BOOLEAN, "False", False),
        (BOOLEAN, "yes", "yes"),
        (BOOLEAN, 1, 1),
        (STRING, 3, "3"),
        (STRING, 3.5, "3.5"),
        (STRING, True, "true"),
        (STRING, None, None),
        (STRING, {"a": 1}, {"a": 1}),
        ({"type": ["string", "null"]}, 3, "3"),
        ({"type": ["integer", "null"]}, "null", None),
        ({"type": ["integer", "null"]}, "None", None),
        ({"type": ["string", "null"]}, "null", "null"),
        (INTEGER, "null", "null"),
        ({"type": "null"}, "none", None),
        # objects and lists written as text
        (OBJECT, '{"a": 1}', {"a": 1}),
        (OBJECT, "{'a': None, 'b': (1, 2),}", {"a": None, "b": [1, 2]}),
        (OBJECT, '{"a": 1', '{"a": 1'),
        (OBJECT, [{"a": 1}], {"a": 1}),
        (OBJECT, '[{"a": 1}]', {"a": 1}),
        (OBJECT, [{"a": 1}, {}], [{"a": 1}, {}]),
        (OBJECT, "[1]", "[1]"),
        (ARRAY, "[1, 'a']", [1, "a"]),
        (ARRAY, "(1, 'a')", [1, "a"]),
        (ARRAY, "x", ["x"]),
        (ARRAY, 3, [3]),
        (ARRAY, {"a": 1}, [{"a": 1}]),
        (ARRAY, '{"a": 1}', [{"a": 1}]),
        (ARRAY, "[urgent] mend the roof", ["[urgent] mend the roof"]),
        (ARRAY, None, None),
        ({"type": "array", "items": INTEGER}, "3", [3]),
        ({"type": "array", "items": INTEGER}, ["1", 2, "x"], [1, 2, "x"]),
        # scalars in a list
        (STRING, ["x"], "x"),
        (STRING, ["x", "y"], ["x", "y"]),
        (INTEGER, ["3"], 3),
        (STRING, [3], "3"),
        (STRING, [], []),
        # members
        ({"enum": ["Celsius", "Fahrenheit"]}, "celsius", "Celsius"),
        ({"type": "string", "enum": ["celsius"]}, ' "Celsius" ', "celsius"),
        ({"enum": ["a", "A"]}, "a", "a"),
        ({"enum": ["ab", "AB"]}, "Ab", "Ab"),
        ({"enum": [1, 2]}, "2", 2),
        ({"enum": [1, "1"]}, 1, 1),
        ({"enum": ["1", "2"]}, 2, "2"),
        ({"enum": [True, "x"]}, "True", True),
        ({"enum": [1, 2]}, True, True),
        ({"enum": ["a", "b"]}, ["B"], "b"),
        ({"enum": ["a", None]}, "None", None),
        ({"enum": ["a", "b"]}, "c", "c"),
        ({"const": "Go"}, "go", "Go"),
        # inside
        ({"properties": {"a": INTEGER}}, {"a": "1", "b": "1"}, {"a": 1, "b": "1"}),
        ({"additionalProperties": INTEGER}, {"a": "1"}, {"a": 1}),
        ({"additionalProperties": INTEGER, "patternProperties": {"": STRING}}, {"a": "1"}, {"a": "1"}),
        ({"prefixItems": [INTEGER], "items": STRING}, ["1", 2], [1, "2"]),
        ({"items": [INTEGER], "additionalItems": STRING}, ["1", 2], [1, "2"]),
        # alternatives
        ({"anyOf": [INTEGER, {"type": "null"}]}, "3", 3),
        ({"anyOf": [INTEGER, {"type": "null"}]}, "null", None),
        ({"anyOf": [STRING, INTEGER]}, "3", "3"),
        ({"oneOf": [BOOLEAN, INTEGER]}, "true", True),
        ({"anyOf": [INTEGER, {"type": "array", "items": INTEGER}]}, "3", 3),
        ({"anyOf": [INTEGER, {"type": "array", "items": INTEGER}]}, "[3]", [3]),
        ({"anyOf": [OBJECT, ARRAY]}, '[{"a": 1}]', [{"a": 1}]),
        ({"anyOf": [OBJECT, ARRAY]}, '{"a": 1}', {"a": 1}),
        ({"anyOf": [{"const": "3"}, {"const": 3.0}]}, "'3'", "3"),
        ({"anyOf": [{"type": "null"}, {"properties": {"a": INTEGER}, "required": ["a"], **OBJECT}]}, "{}", {}),
        (
            {
                "oneOf": [
                    {"properties": {"kind": {"const": "a"}, "n": INTEGER}, "required": ["kind"]},
                    {"properties": {"kind": {"const": "b"}, "n": STRING}, "required": ["kind"]},
                ]
            },
            {"kind": "a", "n": "1"},
            {"kind": "a", "n": 1},
        ),
        ({"allOf": [{"properties": {"a": INTEGER}}, {"properties": {"b": BOOLEAN}}]}, {"a": "1", "b": "true"}, None),
        # nothing to go by
        ({}, "3", "3"),
        (True, "3", "3"),
        (None, "3", "3"),
        ({"type": 7, "properties": 3, "items": 3, "anyOf": 3, "required": 3, "enum": 3, "$ref": 3}, "3", "3"),
        ({"anyOf": [{"required": [[]]}, 3]}, {"a": 1}, {"a": 1}),
    ],
)
def test_values_are_turned_where_there_is_one_way(schema: Any, value: Any, wanted: Any) -> None:
    if isinstance(schema, dict) and "allOf" in schema:
        wanted = {"a": 1, "b": True}
    before = exactly(value)
    assert exactly(coerced(value, schema, schema)) == exactly(wanted)
    assert exactly(value) == before


def test_references_are_followed_and_cycles_end() -> None:
    root = {
        "$defs": {"node": {"type": "object", "properties": {"n": INTEGER, "next": {"$ref": "#/$defs/node"}}}},
        "properties": {"top": {"$ref": "#/$defs/node"}, "a/b": {"$ref": "#/properties/a~1b"}, "x": {"$ref": "#/no"}},
    }
    value = {"top": {"n": "1", "next": '{"n": "2"}'}, "a/b": "3", "x": "4"}
    assert coerced(value, root, root) == {"top": {"n": 1, "next": {"n": 2}}, "a/b": "3", "x": "4"}
    for loop in ({"$ref": "#"}, {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}):
        assert coerced("3", loop, loop) == "3"
        assert types_of(loop, loop) is None
        assert property_of("a", loop, loop) is None
        assert property_names(loop, loop) == ([], [])


def test_a_schema_that_explodes_is_given_up() -> None:
    links = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n - 1}"}, {"$ref": f"#/$defs/d{n - 1}"}]} for n in range(1, 40)}
    root = {"$ref": "#/$defs/d39", "$defs": {"d0": INTEGER, **links}}
    value = "x"
    assert coerced(value, root, root) is value
    types_of(root, root)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.sampled_from(["", "3", "true", "null", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)
types = st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object"])
schemas = st.recursive(
    st.one_of(
        st.just({}),
        types.map(lambda name: {"type": name}),
        st.lists(types, min_size=1, unique=True).map(lambda names: {"type": names}),
        st.lists(json_values, min_size=1, max_size=3).map(lambda members: {"enum": members}),
        json_values.map(lambda member: {"const": member}),
    ),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("ab"), inner).map(lambda known: {"type": "object", "properties": known}),
        inner.map(lambda schema: {"additionalProperties": schema, "required": ["a"]}),
        inner.map(lambda schema: {"type": "array", "items": schema}),
        st.lists(inner, min_size=1, max_size=2).map(lambda first: {"prefixItems": first}),
        st.tuples(st.sampled_from(["anyOf", "oneOf", "allOf"]), st.lists(inner, min_size=1, max_size=3)).map(
            lambda pair: {pair[0]: pair[1]}
        ),
    ),
    max_leaves=4,
)


@settings(deadline=None, max_examples=150)
@given(schema=schemas, value=json_values)
def test_a_value_that_fits_is_never_touched_and_another_never_raises(schema: dict[str, Any], value: Any) -> None:
    before = exactly(value)
    outcome = coerced(value, schema, schema)
    assert exactly(value) == before
    if not Schema(schema).problem(value):
        assert outcome is value
    exactly(outcome)


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "[1e999]", "9" * 5000, "[" * 200 + "]" * 200, "[" * 99999, "'a'"])
def test_what_json_does_not_allow_is_not_read(text: str) -> None:
    with pytest.raises(NotJson):
        read_json(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'a': 'it\\'s', \"b\": (1, 2.5,), 'c': None,}", {"a": "it's", "b": [1, 2.5], "c": None}),
        ("{'x': 'say \"hi\"\\n', 'p': 'C:\\dir'}", {"x": 'say "hi"\n', "p": "C:\\dir"}),
        ("'\\x41\\u00e9\\U0001F30D\\UFFFFFFFF'", "Aé🌍\\UFFFFFFFF"),
        ('"\\ud83c\\udf0d"', "🌍"),
        ("True", True),
        ("[true, False, null, None]", [True, False, None, None]),
        ("[(), []]", [[], []]),
        ("{'a': (1,)}", {"a": [1]}),
    ],
)
def test_literals_of_python_are_read(text: str, value: Any) -> None:
    assert read_literal(text) == value


@pytest.mark.parametrize(
    "text", ["", "(1)", "[special delivery]", "{something}", "{'a'", "'it's'", "a b", "f(x)", "007"]
)
def test_what_is_no_literal_is_not_read(text: str) -> None:
    with pytest.raises(NotJson):
        read_literal(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": "b\nc"}', {"a": "b\nc"}),
        ('{"a": "b"', {"a": "b"}),
        ('{"a": 1}}', {"a": 1}),
        ("{a: b}", {"a": "b"}),
        ("[a, b]", ["a", "b"]),
        ('{"p": "C:\\dir"}', {"p": "C:\\dir"}),
        ("{", {}),
        ('{"a": "' + "x" * 40_000, {"a": "x" * 40_000}),
        ('{"a": 1 "b": 2' + ', "c": "x"' * 2_000 + "}", {"a": 1, "b": 2, "c": "x"}),
    ],
)
def test_broken_json_is_mended(text: str, value: Any) -> None:
    assert mended(text) == value


@pytest.mark.parametrize("text", ["", "3", "plain words", "{x for x}", "[" * 5000, '{"' * 40])
def test_what_is_no_json_at_all_is_not_mended(text: str) -> None:
    try:
        value = mended(text)
    except NotJson:
        return
    assert text.startswith('{"{"'), value


HOSTILE = ['["a ' + '{"' * 2_000, '["a ' + '{"a"“"]"' * 500, '{"a": "' + "{a:" * 2_000, '["a ' + "{]" * 2_000]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_that_takes_too_long_is_not_guessed(text: str) -> None:
    effort = Effort()
    with pytest.raises(NotJson):
        by_guessing(text, effort)
    with pytest.raises(NotJson, match="takes too long"):
        effort.look()


def test_what_is_guessed_is_counted_and_plain() -> None:
    text = "{'a': 'it's', b: [1, 2"
    with pytest.raises(NotJson, match="takes too long"):
        by_guessing(text, Effort(looks=100 + len(text)))
    effort = Effort()
    assert by_guessing(text, effort) == {"a": "it's", "b": [1, 2]}
    value = by_guessing('{"some key": "a longer text of words", "b": [1, 2', effort)
    assert {type(each) for each in (*value, *(value.values() if isinstance(value, dict) else ()))} == {str, list}


def test_one_effort_is_for_all_texts() -> None:
    effort = Effort(characters=500, looks=0)
    assert by_rules('{"a": 1', effort) == {"a": 1}
    assert mended('{"a": 1', effort) == {"a": 1}
    with pytest.raises(NotJson):
        mended('{"a": 1', effort)
    assert mended('{"a": 1}', effort) == {"a": 1}
    # A list of broken objects is turned until that is too much.
    schema = {"type": "array", "items": {"type": "object"}}
    value = ["{'a' 1}"] * 30_000
    assert coerced(value, schema, schema, Effort(looks=10)) == value


def test_null_for_what_may_be_left_out_is_left_out() -> None:
    schema = {
        "properties": {
            "a": STRING,
            "b": {"type": ["string", "null"]},
            "c": {"anyOf": [INTEGER, {"type": "null"}]},
            "d": {"enum": ["x"]},
            "e": {"$ref": "#/properties/a"},
            "f": {},
            "g": {"properties": {"a": STRING, "h": INTEGER}},
            "r": STRING,
        },
        "required": ["r"],
        "additionalProperties": STRING,
    }
    value = {**dict.fromkeys("abcdef"), "g": {"a": None, "h": "1"}, "r": None, "other": None}
    kept = {"b": None, "c": None, "f": None, "g": {"h": 1}, "r": None, "other": None}
    assert coerced(value, schema, schema) == kept


def test_what_is_no_literal_is_given_up_early() -> None:
    for text in ("[" * 1_000_000, "1 " * 500_000, "{(" * 500_000, "'a'" * 300_000, "[1," * 300_000, "[,],[," * 100_000):
        with pytest.raises(NotJson):
            read_literal(text)


def test_values_of_python_become_values_of_json() -> None:
    strange = {2: (1, {2}), None: math.inf, True: b"x", "z": 1j, "n": math.nan, "s": frozenset({"b", "a"})}
    assert plain(strange) == {"2": [1, [2]], "null": "Infinity", "true": "x", "z": "1j", "n": "NaN", "s": ["a", "b"]}
    with pytest.raises(NotJson):
        plain(10**6000)
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(NotJson):
        plain(nested)


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({}, None),
        (STRING, {"string"}),
        ({"type": ["string", "null"]}, {"string", "null"}),
        ({"enum": ["a", 1]}, {"string", "integer"}),
        ({"anyOf": [STRING, {"$ref": "#/$defs/n"}]}, {"string", "integer"}),
        ({"anyOf": [STRING, {}]}, None),
        ({"type": ["string", "number"], "enum": [1, "a"]}, {"string", "integer"}),
        ({"allOf": [{"type": ["string", "null"]}, STRING]}, {"string"}),
    ],
)
def test_the_types_of_a_schema_are_known(schema: dict[str, Any], wanted: set[str] | None) -> None:
    assert types_of(schema, {"$defs": {"n": INTEGER}}) == wanted


def test_properties_are_found_wherever_they_are_named() -> None:
    root = {
        "$ref": "#/$defs/all",
        "$defs": {
            "all": {
                "properties": {"a": STRING, "b": {}},
                "required": ["a", "z"],
                "oneOf": [{"properties": {"c": INTEGER}}],
                "additionalProperties": BOOLEAN,
            }
        },
    }
    assert property_of("a", root, root) == STRING
    assert property_of("c", root, root) == INTEGER
    assert property_of("d", root, root) == BOOLEAN
    assert property_names(root, root) == (["a", "b"], ["a"])
