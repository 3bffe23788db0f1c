"""From what a model wrote as arguments to the object that is sent, or to the sentence that says what is wrong."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from k2think.dialogue.prompt import Tool
from k2think.errors import InvalidRequest
from k2think.inband.checking import ArgumentChecker, Checked, Parameter
from k2think.inband.schemas import Schema

CASES = Path(__file__).parent.parent.parent.parent / "shared" / "tool-calls"

TOOLS = {
    "trip": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "unit": {"type": ["string", "null"], "enum": ["Celsius", None]},
            "size": {"$ref": "#/$defs/size"},
            "note": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]},
            "free": {"description": "whatever"},
        },
        "required": ["city"],
        "$defs": {"size": {"type": ["number", "null"]}},
    },
    "todo": {
        "type": "object",
        "properties": {"todos": {"type": "array", "items": {"properties": {"what": {"type": "string"}}}}},
    },
    "code": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
    "count": {"properties": {"n": {"type": "integer"}}, "required": ["n"]},
    "open": {},
    "odd": {"type": "objekt", "properties": {"zip": {"type": "string"}}},
}


def checker() -> ArgumentChecker:
    return ArgumentChecker([Tool(name, parameters=schema) for name, schema in TOOLS.items()])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("trip", '{"city":"Paris"}'),
        ("trip", ' {\n "city" : "Par\\u0069s", "days": 3.0,"other":[1]}\n'),
        ("trip", '{"city": "a", "city": "b"}'),
        ("trip", '{"city": "\\ud83d"}'),
        ("trip", '{"city": "\u00e9", "days": 1' + "0" * 100 + "}"),
        ("code", '{"code": "{\\"a\\": 1}"}'),
        ("count", '{"n": 3}'),
        ("open", '{"a": 1e5}'),
        ("odd", '{"zip": 3}'),
        ("unknown", '{"a": "1"}'),
    ],
)
def test_what_fits_stays_character_for_character(name: str, text: str) -> None:
    assert checker().check(name, text) == Checked(text, repaired=False)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        # broken
        ("trip", "{'city': 'Paris', 'tags': ['a', \"b\"],}", {"city": "Paris", "tags": ["a", "b"]}),
        ("trip", '{"city": "Paris", "tags": ["a"', {"city": "Paris", "tags": ["a"]}),
        ("trip", '{"city": "Paris"}}', {"city": "Paris"}),
        ("trip", '```json\n{"city": "Paris"}\n```', {"city": "Paris"}),
        ("trip", '{"city": "a\nb"}', {"city": "a\nb"}),
        ("trip", '"city": "Paris", "days": 3', {"city": "Paris", "days": 3}),
        ("open", "Here it is: {'a': None}", {"a": None}),
        ("open", '{"a": NaN, "b": 1e999}', {"a": "NaN", "b": "Infinity"}),
        # encoded more than once
        ("trip", json.dumps('{"city": "Paris"}'), {"city": "Paris"}),
        ("trip", json.dumps(json.dumps('{"city": "Paris"}')), {"city": "Paris"}),
        ("trip", json.dumps("{'city': 'Paris'}"), {"city": "Paris"}),
        ("trip", '{\\"city\\": \\"Paris\\"}', {"city": "Paris"}),
        # wrong types
        ("trip", '{"city": 7, "days": "3", "tags": "x", "unit": "celsius"}',
         {"city": "7", "days": 3, "tags": ["x"], "unit": "Celsius"}),
        ("trip", '[{"city": "Paris"}]', {"city": "Paris"}),
        ("todo", '{"todos": "[{\\"what\\": 1}]"}', {"todos": [{"what": "1"}]}),
        # the only property
        ("trip", "Paris", {"city": "Paris"}),
        ("trip", '"Paris"', {"city": "Paris"}),
        ("count", "3", {"n": 3}),
        ("count", " '3' ", None),
        ("code", "1.50", {"code": "1.50"}),
        ("code", 'def f(): return {"a": 1}', {"code": 'def f(): return {"a": 1}'}),
        ("code", "true", {"code": "true"}),
        ("todo", '[{"what": "x"}]', {"todos": [{"what": "x"}]}),
        ("todo", '[{"todos": []}]', {"todos": []}),
        # nothing
        ("open", "", {}),
        ("open", " \n", {}),
        ("open", "null", {}),
        ("todo", '""', {}),
    ],
)  # fmt: skip
def test_what_can_be_understood_is_repaired(name: str, text: str, value: dict[str, Any] | None) -> None:
    checked = checker().check(name, text)
    if value is None:
        assert checked.fault
        return
    assert (json.loads(checked.arguments), checked.repaired, checked.fault) == (value, True, "")


@pytest.mark.parametrize(
    ("name", "text", "arguments", "fault"),
    [
        ("trip", "", "{}", '"city" is a required property'),
        ("trip", '{"days":1}', '{"days":1}', '"city" is a required property'),
        ("trip", '{"days": "1"}', '{"days": 1}', '"city" is a required property'),
        ("trip", '{"city":"x","days":"x"}', '{"city":"x","days":"x"}', 'at \'days\': "x" is not of type "integer"'),
        ("count", "three", "{}", "the arguments are not a JSON object that can be read"),
        ("count", "[1, 2]", "{}", "the arguments are not a JSON object that can be read"),
        ("open", "words", "{}", "the arguments are not a JSON object that can be read"),
        ("open", "[" * 100_000, "{}", "the arguments are not a JSON object that can be read"),
        ("open", '{"a":' * 200 + "1" + "}" * 200, "{}", "the arguments are not a JSON object that can be read"),
        ("open", '{"a": ' + "9" * 4200 + "}", "{}", "the arguments are not a JSON object that can be read"),
        ("code", "{x for x}", "{}", "the arguments are not a JSON object that can be read"),
    ],
)
def test_what_cannot_be_used_is_told(name: str, text: str, arguments: str, fault: str) -> None:
    checked = checker().check(name, text)
    assert (checked.arguments, checked.fault) == (arguments, fault)


PLAIN, JSON, TEXT = "plain", "json", "text"


@pytest.mark.parametrize(
    ("name", "text", "kind", "value", "repaired"),
    [
        ("city", "\n Paris \r\n", PLAIN, " Paris ", False),
        ("city", "\n\nx\n\n", PLAIN, "\nx\n", False),
        ("city", '"Boston, MA"', PLAIN, '"Boston, MA"', False),
        ("city", '"Boston, MA"', JSON, "Boston, MA", False),
        ("city", "\nParis\n", JSON, "Paris", False),
        ("city", "\nParis\n", TEXT, "\nParis\n", False),
        ("city", "1.50", PLAIN, "1.50", False),
        ("city", "1.50", JSON, "1.50", False),
        ("city", '{"a": 1}', JSON, '{"a": 1}', False),
        ("city", "", PLAIN, "", False),
        ("unit", "Celsius", PLAIN, "Celsius", False),
        ("unit", "celsius", PLAIN, "Celsius", True),
        ("unit", "null", JSON, None, False),
        ("days", "\n3\n", PLAIN, 3, False),
        ("days", "3", JSON, 3, False),
        ("days", "3", TEXT, 3, True),
        ("days", '"3"', JSON, 3, True),
        ("size", "2.5", PLAIN, 2.5, False),
        ("size", "null", PLAIN, None, False),
        ("size", "None", PLAIN, None, True),
        ("tags", '["a", "b"]', PLAIN, ["a", "b"], False),
        ("tags", "['a', 'b']", PLAIN, ["a", "b"], True),
        ("tags", "a", JSON, ["a"], True),
        ("note", "[1]", PLAIN, [1], False),
        ("note", "5", PLAIN, "5", False),
        ("note", '"x"', PLAIN, '"x"', False),
        ("note", '"x"', JSON, "x", False),
        ("free", "True", PLAIN, True, False),
        ("free", "{'a': (1,)}", PLAIN, {"a": [1]}, False),
        ("free", "[special delivery]", PLAIN, "[special delivery]", False),
        ("free", "True", JSON, "True", False),
        ("more", "5", PLAIN, 5, False),
        ("more", "5", TEXT, "5", False),
        ("more", "NaN", PLAIN, "NaN", False),
        ("more", "\nlambda x: x**2\n", JSON, "lambda x: x**2", False),
    ],
)
def test_parameters_are_read_as_their_format_writes_them(
    name: str, text: str, kind: Literal["text", "plain", "json"], value: Any, *, repaired: bool
) -> None:
    city = () if name == "city" else (Parameter("city", "x", "text"),)
    checked = checker().check("trip", [*city, Parameter(name, text, kind)])
    assert not checked.fault
    assert checked.repaired is repaired
    assert json.dumps(json.loads(checked.arguments)[name]) == json.dumps(value)


def test_no_parameters_are_an_empty_object() -> None:
    assert checker().check("open", []) == Checked("{}", repaired=False)
    assert checker().check("code", ()).fault == '"code" is a required property'


def test_the_values_of_a_call_in_python_are_checked() -> None:
    assert checker().check("trip", {"city": "é", "tags": ("a",)}) == Checked('{"city": "é", "tags": ["a"]}', False)
    assert checker().check("trip", {"city": "x", "days": "3"}) == Checked('{"city": "x", "days": 3}', True)
    assert checker().check("open", {"a": math.nan, "b": {1}}) == Checked('{"a": "NaN", "b": [1]}', False)
    assert checker().check("open", {"a": 10**6000}) == Checked("{}", False, "a number has too many digits")
    assert checker().check("open", {"a": "\ud83d"}) == Checked('{"a": "\\ud83d"}', False)


def test_a_strict_tool_must_have_a_schema_that_can_be_kept() -> None:
    with pytest.raises(InvalidRequest) as caught:
        ArgumentChecker([Tool("fine", strict=True), Tool("odd", parameters=TOOLS["odd"], strict=True)])
    assert caught.value.param == "tools"
    assert "'odd'" in caught.value.message
    assert "objekt" in caught.value.message


WORDS = [
    "{",
    "}",
    "[",
    "]",
    '"',
    "'",
    ":",
    ",",
    "city",
    "days",
    "3",
    "null",
    "True",
    "NaN",
    "\\",
    " ",
    "\n",
    "```",
    "é",
]
texts = st.text(max_size=40) | st.lists(st.sampled_from(WORDS), max_size=30).map("".join)


@settings(deadline=None, max_examples=200)
@given(name=st.sampled_from([*TOOLS, "unknown"]), text=texts)
@example(name="trip", text='"\ud800"')
def test_any_text_gives_an_object_and_what_is_faultless_fits(name: str, text: str) -> None:
    verify(name, checker().check(name, text))


@settings(deadline=None, max_examples=100)
@given(
    name=st.sampled_from(list(TOOLS)),
    written=st.lists(
        st.builds(
            Parameter,
            st.sampled_from(["city", "days", "tags", "unit", "note", "code", "n", "todos", "x"]),
            texts,
            st.sampled_from(["text", "plain", "json"]),
        ),
        max_size=4,
    ),
)
def test_any_parameters_give_an_object_and_what_is_faultless_fits(name: str, written: list[Parameter]) -> None:
    verify(name, checker().check(name, written))


def verify(name: str, checked: Checked) -> None:
    value = json.loads(checked.arguments, parse_constant=pytest.fail)
    assert isinstance(value, dict)
    checked.arguments.encode()
    assert len(checked.fault) <= 300
    if name not in {"odd", "unknown"}:
        assert bool(Schema(TOOLS[name]).problem(value)) <= bool(checked.fault)


@settings(deadline=None)
@given(
    value=st.fixed_dictionaries(
        {"city": st.text()},
        optional={"days": st.integers(), "tags": st.lists(st.text()), "size": st.none() | st.floats(allow_nan=False,
                  allow_infinity=False), "note": st.text() | st.lists(st.integers())},
    ),
    spaces=st.integers(0, 2) | st.none(),
)  # fmt: skip
def test_a_value_that_fits_is_never_changed(value: dict[str, Any], spaces: int | None) -> None:
    text = json.dumps(value, indent=spaces)
    assert checker().check("trip", text) == Checked(text, repaired=False)
    checked = checker().check("trip", value)
    assert (json.loads(checked.arguments), checked.repaired, checked.fault) == (value, False, "")


TAGS = {
    "5-": (r"<tool>(.*?)</tool>", r"</function_call>", r"<(?!/|tool>|args>|function_call)(\w+)>(.*?)</\1>", "json"),
    "6-": (r'<invoke name="(.*?)">', "</invoke>", r'<parameter name="(.*?)".*?>(.*?)</parameter>', "plain"),
    "7-": (r"<function=(.*?)>", r"</function>", r"<parameter=(.*?)>(.*?)</parameter>", "plain"),
    "8-": (r"<tool_call>(\w+)", r"</tool_call>", r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", "plain"),
    "9-ifm-xml": (
        r"<ifm\|tool_call>(\w+)",
        r"</ifm\|tool_call>",
        r"<ifm\|arg_key>(.*?)</ifm\|arg_key>\s*<ifm\|arg_value>(.*?)</ifm\|arg_value>",
        "plain",
    ),
}  # fmt: skip


def public_cases() -> Iterator[Any]:
    file = CASES / "formats.jsonl"
    for line in file.read_text("utf-8").splitlines() if file.exists() else ():
        case = json.loads(line)
        for start, tags in TAGS.items():
            if case["format"].startswith(start):
                yield pytest.param(case, tags, id=case["id"])


@pytest.mark.parametrize(("case", "tags"), list(public_cases()))
def test_the_published_formats_with_tags_give_the_expected_values(
    case: dict[str, Any], tags: tuple[str, str, str, Literal["plain", "json"]]
) -> None:
    name, end, parameter, kind = tags
    given = ArgumentChecker(
        [Tool(tool["function"]["name"], parameters=tool["function"].get("parameters", {})) for tool in case["tools"]]
    )
    calls = re.findall(f"{name}(.*?){end}", case["text"], re.DOTALL)
    checked = [
        given.check(tool, [Parameter(key, text, kind) for key, text in re.findall(parameter, inner, re.DOTALL)])
        for tool, inner in calls
    ]
    assert [each.fault for each in checked] == [""] * len(case["expected"]["tool_calls"])
    assert [json.loads(each.arguments) for each in checked] == [
        call["arguments"] for call in case["expected"]["tool_calls"]
    ]
    assert not any(each.repaired for each in checked)
