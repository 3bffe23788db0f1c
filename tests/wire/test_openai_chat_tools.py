"""Tools on offer: which, whether one must be called, and whether several may be; a wrong choice is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2think.dialogue.prompt import Tool, Toolbox
from k2think.errors import InvalidRequest
from k2think.wire.openai_chat.inbound import Question, to_question
from k2think.wire.openai_chat.schema import decode

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def function(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name} | fields}


def allowed(mode: str, *tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}


TOOLS = [function("weather", description="It tells.", parameters=SCHEMA, strict=True), function("clock"), function("x")]
FUNCTIONS = [tool["function"] for tool in TOOLS]
WEATHER = Tool("weather", "It tells.", SCHEMA, strict=True)
CLOCK, X = Tool("clock"), Tool("x")
CUSTOM = {"type": "custom", "custom": {"name": "run", "format": {"type": "text"}}}


def question(*, tools_enabled: bool = True, **fields: Any) -> Question:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]} | fields).encode()
    return to_question(decode(body), default_reasoning="parsed", tools_enabled=tools_enabled)


def toolbox(**fields: Any) -> Toolbox | None:
    return question(**fields).prompt.tools


def refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        question(**fields)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, Toolbox((WEATHER, CLOCK, X))),
        ("auto", Toolbox((WEATHER, CLOCK, X))),
        ("none", None),
        ("required", Toolbox((WEATHER, CLOCK, X), required=True)),
        (function("clock"), Toolbox((CLOCK,), required=True)),
        (allowed("auto", function("x"), function("weather"), function("x")), Toolbox((WEATHER, X))),
        (allowed("required", function("x")), Toolbox((X,), required=True)),
        (allowed("auto"), None),
    ],
)
def test_the_choice_says_which_tools_are_offered_and_whether_one_must_be_called(
    choice: Any, expected: Toolbox | None
) -> None:
    asked = question(tools=TOOLS, tool_choice=choice)
    assert asked.prompt.tools == expected
    assert asked.legacy_functions is False


@pytest.mark.parametrize(("parallel", "expected"), [(True, True), (None, True), (False, False)])
def test_several_calls_unless_they_are_forbidden(parallel: bool | None, expected: bool) -> None:
    box = toolbox(tools=TOOLS, parallel_tool_calls=parallel)
    assert box is not None
    assert box.parallel is expected


@pytest.mark.parametrize(
    "fields", [{}, {"tools": None}, {"tools": []}, {"functions": []}, {"tools": [], "functions": []}]
)
@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_without_tools_there_is_no_toolbox(fields: dict[str, Any], choice: str | None) -> None:
    asked = question(**fields, tool_choice=choice, function_call=choice)
    assert asked == question()
    assert (asked.prompt.tools, asked.legacy_functions) == (None, False)


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        function("weather"),
        {"type": "custom", "custom": {"name": "run"}},
        allowed("auto", function("weather")),
    ],
)
@pytest.mark.parametrize("fields", [{}, {"tools": []}, {"functions": FUNCTIONS}])
def test_a_choice_among_tools_without_tools_is_refused(choice: Any, fields: dict[str, Any]) -> None:
    error = refusal(tool_choice=choice, **fields)
    assert (error.param, error.code) == ("tool_choice", "invalid_value")
    assert error.message == (
        "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."
    )


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        (function("no_such"), "'no_such' is not found in 'tools'"),
        (function("w" * 1000), f"'{'w' * 100}…' is not found"),
        (allowed("auto", function("weather"), function("no_such")), "'no_such' is not found in 'tools'"),
        ({"type": "custom", "custom": {"name": "weather"}}, "'weather' is not found in 'tools'"),
        (allowed("required"), "allows no tool"),
        (allowed("auto", function("weather"), {}), "allowed_tools.tools[1]"),
        (allowed("auto", {"type": "function"}), "allowed_tools.tools[0]"),
        (allowed("auto", {"type": "function", "function": "weather"}), "allowed_tools.tools[0]"),
        (allowed("auto", {"type": "function", "function": {"name": ["weather"]}}), "allowed_tools.tools[0]"),
        (allowed("auto", {"type": "custom", "custom": {"name": "weather"}}), "allowed_tools.tools[0]"),
    ],
)
def test_a_choice_of_what_is_not_declared_is_refused(choice: Any, says: str) -> None:
    error = refusal(tools=TOOLS, tool_choice=choice)
    assert (error.param, error.code) == ("tool_choice", "invalid_value")
    assert says in error.message


NAMES = ["a", "a-b_C9", "server.tool", "ns:tool/2", "天气", "x" * 256]
NO_NAMES = ["", "x" * 257, "a b", "a\n", "\u00a0", "\u2028", 'a"', "a'", "a`", "<a", "a>", "a\x00", "\x7f", "\x85"]


@pytest.mark.parametrize("name", NAMES)
def test_names_may_be_longer_and_freer_than_openai_s(name: str) -> None:
    assert toolbox(tools=[function(name)]) == Toolbox((Tool(name),))
    assert toolbox(functions=[{"name": name}]) == Toolbox((Tool(name),), parallel=False)


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_cannot_be_told_from_what_stands_around_it_is_refused(name: str) -> None:
    error = refusal(tools=[function("weather"), function(name)])
    assert (error.param, error.code) == ("tools[1].function.name", "invalid_value")
    assert "tools[1].function.name" in error.message
    assert refusal(functions=[{"name": name}]).param == "functions[0].name"


@settings(deadline=None)  # a busy machine is no fault
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
def test_a_name_is_kept_as_it_is_or_refused(name: str) -> None:
    bad = not name or any(character.isspace() or ord(character) < 32 or character in "\"'`<>" for character in name)
    bad = bad or any(0x7F <= ord(character) <= 0x9F for character in name)
    if bad:
        assert refusal(tools=[function(name)]).param == "tools[0].function.name"
    else:
        assert toolbox(tools=[function(name)]) == Toolbox((Tool(name),))


def test_of_two_tools_with_one_name_the_first_stands() -> None:
    twins = [function("a", description="first"), function("b"), function("a", description="second")]
    assert toolbox(tools=twins) == Toolbox((Tool("a", "first"), Tool("b")))
    assert toolbox(tools=twins, tool_choice=function("a")) == Toolbox((Tool("a", "first"),), required=True)


def test_a_thousand_tools_are_taken() -> None:
    box = toolbox(tools=[function(f"f{number}") for number in range(1024)])
    assert box is not None
    assert len(box.tools) == 1024
    assert refusal(tools=[function(f"f{number}") for number in range(1025)]).param == "tools"


def test_nulls_are_like_nothing_said() -> None:
    assert toolbox(tools=[function("f", description=None, parameters=None, strict=None)]) == Toolbox((Tool("f"),))


@pytest.mark.parametrize("choice", [None, "auto", "required", function("weather"), CUSTOM])
def test_a_custom_tool_is_refused_by_its_place(choice: Any) -> None:
    error = refusal(tools=[*TOOLS, CUSTOM], tool_choice=choice)
    assert (error.param, error.code) == ("tools[3].type", "unsupported_parameter")
    assert "Declare a function instead" in error.message


def test_a_custom_tool_that_must_not_be_called_is_let_be() -> None:
    assert toolbox(tools=[CUSTOM], tool_choice="none") is None


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, Toolbox((WEATHER, CLOCK, X), parallel=False)),
        ("auto", Toolbox((WEATHER, CLOCK, X), parallel=False)),
        ("none", None),
        ({"name": "clock"}, Toolbox((CLOCK,), required=True, parallel=False)),
    ],
)
def test_functions_of_old_are_tools_of_which_one_may_be_called(choice: Any, expected: Toolbox | None) -> None:
    asked = question(functions=FUNCTIONS, function_call=choice, parallel_tool_calls=True)
    assert asked.prompt.tools == expected
    assert asked.legacy_functions is (expected is not None)


def test_an_empty_list_of_tools_leaves_the_functions() -> None:
    assert question(tools=[], functions=FUNCTIONS).legacy_functions is True


@pytest.mark.parametrize("choice", [None, {"name": "other"}, "none"])
def test_tools_win_over_functions(choice: Any) -> None:
    asked = question(tools=TOOLS, functions=[{"name": "other"}], function_call=choice)
    assert asked == question(tools=TOOLS)
    assert asked.prompt.tools == Toolbox((WEATHER, CLOCK, X))
    assert question(tools=TOOLS, tool_choice="none", functions=[{"name": "other"}]).prompt.tools is None


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "'function_call' is only allowed when 'functions' are specified"),
        ({"functions": []}, "'function_call' is only allowed when 'functions' are specified"),
        ({"functions": [{"name": "f"}]}, "'no_such' is not found in 'functions'"),
    ],
)
def test_a_function_call_of_what_is_not_declared_is_refused(fields: dict[str, Any], says: str) -> None:
    error = refusal(function_call={"name": "no_such"}, **fields)
    assert (error.param, error.code) == ("function_call", "invalid_value")
    assert says in error.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": TOOLS}, "tools"),
        ({"tools": TOOLS, "tool_choice": "required"}, "tools"),
        ({"tools": TOOLS, "functions": FUNCTIONS}, "tools"),
        ({"functions": FUNCTIONS}, "functions"),
    ],
)
def test_an_offer_is_refused_where_calls_are_switched_off(fields: dict[str, Any], param: str) -> None:
    error = refusal(tools_enabled=False, **fields)
    assert (error.param, error.code) == (param, "unsupported_parameter")
    assert "ENABLE_TOOLIFY=false" in error.message


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tools": []},
        {"tools": TOOLS, "tool_choice": "none"},
        {"functions": FUNCTIONS, "function_call": "none"},
    ],
)
def test_a_request_that_offers_nothing_is_answered_where_calls_are_switched_off(fields: dict[str, Any]) -> None:
    assert question(tools_enabled=False, **fields) == question()
