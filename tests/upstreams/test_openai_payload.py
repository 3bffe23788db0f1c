"""What an OpenAI-compatible server is sent."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2think.dialogue.prompt import Message, OutputFormat, Prompt, Role, Sampling, Tool, Toolbox, ToolCall
from k2think.errors import RequestRefused
from k2think.upstreams.openai import payload
from k2think.upstreams.turns import fold

USER = Message("user", "a")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool("weather", "Tells the weather.", SCHEMA, strict=True)
CLOCK = Tool("clock")


def sent(tools: Toolbox | None = None, output: OutputFormat | None = None) -> dict[str, Any]:
    prompt = Prompt("x", (USER,), Sampling(temperature=0.5), tools=tools, output=output)
    body: dict[str, Any] = json.loads(payload(prompt, "the-id"))
    return body


def test_a_plain_question_carries_nothing_of_tools_or_forms() -> None:
    assert sent() == {
        "stream": True,
        "stream_options": {"include_usage": True},
        "model": "the-id",
        "messages": [{"role": "user", "content": "a"}],
        "temperature": 0.5,
    }


def test_tools_go_in_openais_form_and_what_is_not_given_stays_out() -> None:
    assert {name: value for name, value in sent(Toolbox((WEATHER, CLOCK))).items() if "tool" in name} == {
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "Tells the weather.",
                    "parameters": SCHEMA,
                    "strict": True,
                },
            },
            {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}},
        ],
        "tool_choice": "auto",
    }


@pytest.mark.parametrize(
    ("toolbox", "choice"),
    [
        (Toolbox((WEATHER,)), "auto"),
        (Toolbox((WEATHER, CLOCK), required=True), "required"),
        (Toolbox((CLOCK,), required=True), {"type": "function", "function": {"name": "clock"}}),
    ],
)
def test_a_call_is_demanded_as_exactly_as_it_can_be(toolbox: Toolbox, choice: Any) -> None:
    assert sent(toolbox)["tool_choice"] == choice


def test_a_single_call_is_asked_for_where_there_must_not_be_more() -> None:
    assert sent(Toolbox((CLOCK,), parallel=False))["parallel_tool_calls"] is False


@pytest.mark.parametrize(
    ("output", "form"),
    [
        (OutputFormat(), {"type": "json_object"}),
        (OutputFormat({}), {"type": "json_schema", "json_schema": {"name": "answer", "schema": {}}}),
        (
            OutputFormat(SCHEMA, "place", "A city.", strict=True),
            {
                "type": "json_schema",
                "json_schema": {"name": "place", "description": "A city.", "schema": SCHEMA, "strict": True},
            },
        ),
    ],
)
def test_the_form_of_the_answer_goes_along(output: OutputFormat, form: dict[str, Any]) -> None:
    assert sent(output=output)["response_format"] == form


def test_a_schema_nested_without_end_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"items": deep}
    with pytest.raises(RequestRefused):
        sent(Toolbox((Tool("f", parameters=deep),)))


# Turns


def calling(text: str, *ids: str, arguments: str = '{"a": 1}') -> Message:
    return Message("assistant", text, calls=tuple(ToolCall(id_, "f", arguments) for id_ in ids))


def result(text: str, id_: str) -> Message:
    return Message("tool", text, name="f", call_id=id_)


def shown(turns: list[dict[str, Any]]) -> list[str]:
    return [
        f"{turn['role']}:{turn['content']}"
        + "".join(f"+{call['id']}" for call in turn.get("tool_calls", ()))
        + (f"@{turn['tool_call_id']}" if "tool_call_id" in turn else "")
        for turn in turns
    ]


def test_calls_and_results_go_as_turns_of_their_own() -> None:
    assert fold([USER, calling("", "c1"), result("sunny", "c1")]) == [
        {"role": "user", "content": "a"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]


@pytest.mark.parametrize("arguments", ["", " \n"])
def test_arguments_of_nothing_are_an_empty_object(arguments: str) -> None:
    turn = fold([USER, calling("", "c1", arguments=arguments)])[1]
    assert turn["tool_calls"][0]["function"]["arguments"] == "{}"


@pytest.mark.parametrize(
    ("messages", "folded"),
    [
        (
            [USER, calling("I look.", "c", "d"), result("1", "c"), result("2", "d"), USER],
            ["user:a", "assistant:I look.+c+d", "tool:1@c", "tool:2@d", "user:a"],
        ),
        ([USER, USER, calling("", "c"), result("1", "c")], ["user:a\n\na", "assistant:None+c", "tool:1@c"]),
        (
            [USER, Message("assistant", "x"), calling("", "c"), result("1", "c"), Message("assistant", "y")],
            ["user:a", "assistant:x", "assistant:None+c", "tool:1@c", "assistant:y", "user:Continue."],
        ),
        (
            [USER, calling("", "c"), result("1", "c"), Message("assistant", "y"), Message("assistant", "z"), USER],
            ["user:a", "assistant:None+c", "tool:1@c", "assistant:y\n\nz", "user:a"],
        ),
        (
            [Message("system", "s"), USER, calling("", "c"), Message("system", "t"), result("1", "c")],
            ["system:s\n\nt", "user:a", "assistant:None+c", "tool:1@c"],
        ),
        (
            [USER, calling("", "c"), Message("assistant", "y"), USER],
            ["user:a", "assistant:None+c", "assistant:y", "user:a"],
        ),
        ([USER, calling("", "c")], ["user:a", "assistant:None+c", "user:Continue."]),
        ([result("1", "c"), Message("tool", "2")], ["tool:1@c", "user:2"]),
    ],
)
def test_nothing_is_put_together_across_calls_and_results(messages: list[Message], folded: list[str]) -> None:
    assert shown(fold(messages)) == folded


TURNS = st.one_of(
    st.builds(Message, st.sampled_from(["system", "user", "assistant", "tool"]), st.text(max_size=4)),
    st.builds(calling, st.text(max_size=4), st.sampled_from("cd")),
    st.builds(result, st.text(max_size=4), st.sampled_from("cd")),
)


@given(st.lists(TURNS, min_size=1))
def test_whatever_the_conversation_every_call_and_text_is_sent_and_plain_turns_alternate(
    messages: list[Message],
) -> None:
    turns = fold(messages)
    plain: list[Role | None] = [
        None if "tool_calls" in turn or turn["role"] == "tool" else turn["role"] for turn in turns
    ]
    assert "system" not in plain[1:]
    assert turns[-1]["role"] in {"user", "tool"}
    assert all(a != b for a, b in itertools.pairwise(plain) if a is not None)
    calls = [call["id"] for turn in turns for call in turn.get("tool_calls", ())]
    assert calls == [call.id for message in messages for call in message.calls]
    results = [turn["tool_call_id"] for turn in turns if turn["role"] == "tool"]
    assert results == [message.call_id for message in messages if message.call_id]
    everything = "\n".join(turn["content"] or "" for turn in turns)
    assert all(message.text in everything for message in messages)
