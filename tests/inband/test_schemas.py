"""What a compiled schema says of a value, and what it never does: reach out, or take forever."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

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
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"properties": {"a": {"$ref": "#"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}},
    ],
)
def test_a_schema_may_refer_to_itself(definition: dict[str, Any]) -> None:
    assert Schema(definition).problem({"a": {"a": {}}}) == ""


def test_patterns_take_linear_time() -> None:
    schema = Schema({"pattern": "^(a+)+$"})
    assert schema.problem("a" * 50_000 + "!")
    assert schema.problem("a" * 50_000) == ""
