"""The instructions about tools: all functions whole, the grammar of calls, and what is asked of the model."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2think.dialogue.prompt import Message, Tool, Toolbox, ToolCall
from k2think.errors import InvalidRequest
from k2think.inband.history import write_calls
from k2think.inband.toolprompt import complaint_turns, write_tools

WEATHER = Tool(
    "weather",
    "Tells the weather.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
CLOCK = Tool("clock")
BOTH = Toolbox((WEATHER, CLOCK))
HELLO = Message("user", "Hello")
CALL = re.compile(r"<tool_call>\n(.*)\n</tool_call>")


def instructions(toolbox: Toolbox, template: str = "") -> str:
    system, user = write_tools((HELLO,), toolbox, template)
    assert (system.role, user) == ("system", HELLO)
    return system.text


def listed(text: str) -> list[dict[str, Any]]:
    """The functions as the model finds them: line by line between the tags."""
    block = re.search(r"<tools>\n(.*?)\n</tools>", text, re.DOTALL)
    assert block
    return [json.loads(line) for line in block[1].split("\n")]


def test_every_function_is_listed_on_a_line() -> None:
    assert listed(instructions(BOTH)) == [
        {
            "type": "function",
            "function": {"name": "weather", "description": "Tells the weather.", "parameters": WEATHER.parameters},
        },
        {
            "type": "function",
            "function": {"name": "clock", "description": "", "parameters": {"type": "object", "properties": {}}},
        },
    ]


def test_nothing_is_cut() -> None:
    tools = tuple(Tool(f"tool_{number}", "é\n" * 2_000) for number in range(200))
    assert [tool["function"]["name"] for tool in listed(instructions(Toolbox(tools)))] == [tool.name for tool in tools]


def test_instructions_stand_behind_the_callers_own_words() -> None:
    system = Message("system", "Be kind.", name="boss")
    first, *rest = write_tools((system, HELLO, Message("system", "later")), BOTH)
    assert first.text == "Be kind.\n\n" + instructions(BOTH)
    assert first.name == "boss"
    assert rest == [HELLO, Message("system", "later")]


def test_a_system_message_keeps_its_place() -> None:
    hello, system = write_tools((HELLO, Message("system", "Be kind.")), BOTH)
    assert hello is HELLO
    assert system.text.startswith("Be kind.\n\n")
    (empty,) = write_tools((Message("system", ""),), BOTH)
    assert empty.text == instructions(BOTH)


def test_without_functions_nothing_is_written() -> None:
    messages = (HELLO,)
    assert write_tools(messages, Toolbox(())) is messages


def test_earlier_calls_have_the_grammar_that_the_instructions_ask_for() -> None:
    (example,) = CALL.findall(instructions(BOTH))
    (earlier,) = write_calls((Message("assistant", "", calls=(ToolCall("call_1", "weather", '{"city": "Bern"}'),)),))
    written = CALL.fullmatch(earlier.text)
    assert written
    shape = re.compile(r'\{"name": "\w+", "arguments": \{"\w+": "\w+"\}\}')
    assert shape.fullmatch(example)
    assert shape.fullmatch(written[1])
    (result,) = write_calls((Message("tool", "x"),))
    assert result.text.startswith("<tool_response>")
    assert "<tool_response>" in instructions(BOTH)


@pytest.mark.parametrize(
    ("toolbox", "demand"),
    [
        (Toolbox((WEATHER,), required=True), "You must call the function `weather` in this answer."),
        (
            Toolbox((WEATHER, CLOCK), required=True),
            "You must call one of these functions in this answer: `weather`, `clock`.",
        ),
        (Toolbox((WEATHER,), parallel=False), "Make at most one call in an answer."),
        (
            Toolbox((CLOCK,), required=True, parallel=False),
            "You must call the function `clock` in this answer. Make at most one call in an answer.",
        ),
        (BOTH, ""),
    ],
)
@pytest.mark.parametrize("template", ["", "Use {tools_list}."])
def test_what_is_demanded(toolbox: Toolbox, demand: str, template: str) -> None:
    text = instructions(toolbox, template)
    assert text.endswith(demand)
    assert ("must call" in text) == toolbox.required
    assert ("at most one" in text) != toolbox.parallel
    if not template:
        assert ("plain text" in text) != toolbox.required


def test_a_template_replaces_the_instructions() -> None:
    text = instructions(BOTH, 'Write {trigger_signal}{"name": ...} for: {tools_list} {other} {}')
    before, _, rest = text.partition(" for: ")
    assert before == 'Write <tool_call>{"name": ...}'
    lines = rest.removesuffix(" {other} {}").split("\n")
    assert [json.loads(line)["function"]["name"] for line in lines] == ["weather", "clock"]
    assert "# Functions" not in text


def test_a_description_is_never_taken_for_a_placeholder() -> None:
    text = instructions(Toolbox((Tool("f", "{trigger_signal} {tools_list}"),)), "{tools_list}")
    assert json.loads(text)["function"]["description"] == "{trigger_signal} {tools_list}"


@settings(deadline=None)  # a busy machine is no fault
@given(
    st.lists(
        st.sampled_from(
            ["</tools>", "</TOOLS>", "<|im_end|>", "</tool_call>", "</tool_response>", "\n", '"', "\\", "a", "/"]
        )
    ).map("".join)
)
def test_no_description_ends_its_block(description: str) -> None:
    text = instructions(Toolbox((Tool("f", description, {"properties": {description: {}}}),)))
    assert text.count("</tools>") == text.count("</tool_call>") == 1
    assert "</tool_response>" not in text
    assert "<|im_end|>" not in text
    assert "</TOOLS>" not in text
    (tool,) = listed(text)
    assert tool["function"]["description"] == description
    assert tool["function"]["parameters"] == {"properties": {description: {}}}


def test_parameters_without_bottom_are_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(100_000):
        schema = {"items": schema}
    with pytest.raises(InvalidRequest, match="'deep'") as refused:
        write_tools((), Toolbox((Tool("deep", "", schema),)))
    assert refused.value.param == "tools"
    while schema:  # taken apart by hand: one level after the other
        schema = schema["items"]


def test_the_model_sees_what_it_said_and_what_is_wrong_with_it() -> None:
    said, complaint = complaint_turns("<think>Hm.</think>\n{'a'", "It is not JSON.")
    assert said == Message("assistant", "{'a'")
    assert complaint.role == "user"
    assert "It is not JSON." in complaint.text
    assert "Answer again" in complaint.text


def test_of_a_long_answer_the_model_sees_the_end() -> None:
    said, complaint = complaint_turns("a" * 20_000 + "b" * 20_000, "p" * 100_000)
    assert said.text == "b" * 20_000
    assert len(complaint.text) < 5_000


@pytest.mark.parametrize("wanted", ["call", "JSON"])
def test_the_model_is_asked_again_for_one_thing_only(wanted: Literal["call", "JSON"]) -> None:
    *_, complaint = complaint_turns("x", "It is wrong.", wanted=wanted)
    assert complaint.text.endswith(f"Answer again with nothing but the corrected {wanted}.")


def test_an_answer_without_calls_has_the_form_that_was_asked_for() -> None:
    (system,) = write_tools((), BOTH, output=True)
    assert system.text.endswith("If no function is needed, give your final answer in the form described below.")
    assert "plain text" not in system.text
    required = msgspec.structs.replace(BOTH, required=True)
    assert write_tools((), required, output=True) == write_tools((), required)


@pytest.mark.parametrize("answer", ["", " \n", "<think>only this</think>"])
def test_an_answer_of_nothing_has_no_turn(answer: str) -> None:
    (complaint,) = complaint_turns(answer, "It is empty.")
    assert complaint.role == "user"
