"""From OpenAI's words to the gateway's own; what cannot be honoured is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k2think.dialogue.prompt import Message, OutputFormat, Prompt, ReasoningFormat, Sampling, ToolCall
from k2think.errors import InvalidRequest
from k2think.wire.openai_chat.inbound import Question, to_question
from k2think.wire.openai_chat.schema import decode

HELLO = {"role": "user", "content": "Hello"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def question(*, default_reasoning: ReasoningFormat = "parsed", **fields: Any) -> Question:
    body = json.dumps({"model": "m", "messages": [HELLO]} | fields).encode()
    return to_question(decode(body), default_reasoning=default_reasoning)


def messages(*given: dict[str, Any]) -> tuple[Message, ...]:
    return question(messages=list(given)).prompt.messages


def refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        question(**fields)
    assert caught.value.status == 400
    return caught.value


def test_a_plain_question() -> None:
    assert question() == Question(
        prompt=Prompt(model="m", messages=(Message("user", "Hello"),), sampling=Sampling(), reasoning="parsed"),
        n=1,
        stream=False,
        include_usage=False,
        legacy_functions=False,
    )


def test_sampling_keeps_openai_s_words() -> None:
    sampling = question(
        temperature=0,
        top_p=0.5,
        max_tokens=10.0,
        seed=-3,
        presence_penalty=1,
        frequency_penalty=-1,
        logit_bias={"7": 5},
        reasoning_effort="whatever",
        stop="END",
    ).prompt.sampling
    assert sampling == Sampling(
        temperature=0.0,
        top_p=0.5,
        max_tokens=10,
        seed=-3,
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        logit_bias={"7": 5.0},
        reasoning_effort="whatever",
        stop=("END",),
    )
    assert type(sampling.max_tokens) is int


def test_max_completion_tokens_wins_over_max_tokens() -> None:
    assert question(max_completion_tokens=5, max_tokens=7).prompt.sampling.max_tokens == 5
    assert question(max_completion_tokens=None, max_tokens=7).prompt.sampling.max_tokens == 7


@pytest.mark.parametrize(
    ("stop", "expected"), [(None, ()), ("a", ("a",)), ([], ()), (["a", "b", "c", "d"], ("a", "b", "c", "d"))]
)
def test_stop_is_a_tuple(stop: Any, expected: tuple[str, ...]) -> None:
    assert question(stop=stop).prompt.sampling.stop == expected


@pytest.mark.parametrize(("stop", "param"), [("", "stop"), (["a", ""], "stop[1]")])
def test_an_empty_stop_sequence_is_refused(stop: Any, param: str) -> None:
    assert refusal(stop=stop).param == param


def test_the_request_s_reasoning_format_wins_over_the_default() -> None:
    assert question(default_reasoning="hidden").prompt.reasoning == "hidden"
    assert question(default_reasoning="hidden", reasoning_format="raw").prompt.reasoning == "raw"
    assert question(default_reasoning="hidden", reasoning_format=None).prompt.reasoning == "hidden"


def test_a_stream_is_live() -> None:
    streamed, whole = question(stream=True), question(stream=False)
    assert (streamed.stream, streamed.prompt.live) == (True, True)
    assert (whole.stream, whole.prompt.live) == (False, False)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"stream": True, "stream_options": {"include_usage": True}}, True),
        ({"stream": True, "stream_options": {"include_usage": False}}, False),
        ({"stream": True, "stream_options": {}}, False),
        ({"stream": True, "stream_options": None}, False),
        ({"stream": True}, False),
        ({"stream": False, "stream_options": {"include_usage": True}}, False),
    ],
)
def test_usage_is_included_in_a_stream_that_asks_for_it(fields: dict[str, Any], expected: bool) -> None:
    assert question(**fields).include_usage is expected


def test_n_and_user() -> None:
    asked = question(n=8, user="alice")
    assert (asked.n, asked.prompt.affinity) == (8, "alice")
    assert question(user="alice", prompt_cache_key="talk 5").prompt.affinity == "talk 5"
    whole = question(n=3.0).n
    assert whole == 3
    assert type(whole) is int


def test_roles_become_the_four_that_there_are() -> None:
    assert messages(
        {"role": "developer", "content": "d"},
        {"role": "system", "content": "s", "name": "boss"},
        {"role": "user", "content": "u", "name": "alice"},
        {"role": "assistant", "content": "a", "name": "bot"},
        {"role": "tool", "content": "t", "tool_call_id": "call_1", "name": "weather"},
    ) == (
        Message("system", "d"),
        Message("system", "s", name="boss"),
        Message("user", "u", name="alice"),
        Message("assistant", "a", name="bot"),
        Message("tool", "t", name="weather", call_id="call_1"),
    )


@pytest.mark.parametrize("role", ["developer", "system", "user", "assistant"])
def test_text_parts_become_one_text_with_a_line_break_between_them(role: str) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert messages({"role": role, "content": parts})[0].text == "a\nb"
    assert messages({"role": role, "content": []})[0].text == ""


def test_text_parts_of_a_tool_s_message_become_one_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert messages({"role": "tool", "content": parts, "tool_call_id": "1"})[0].text == "a\nb"


def test_a_refusal_is_what_the_assistant_said() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"}]
    assert messages({"role": "assistant", "content": parts})[0].text == "a\nno"
    assert messages({"role": "assistant", "content": None, "refusal": "no"})[0].text == "no"
    assert messages({"role": "assistant", "content": "a", "refusal": "no"})[0].text == "a\nno"


def test_a_refusal_of_anybody_else_is_refused() -> None:
    error = refusal(messages=[{"role": "user", "content": [{"type": "refusal", "refusal": "no"}]}])
    assert error.param == "messages[0].content[0].type"


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
FILE = {"type": "file", "file": {"file_id": "file-1"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}


@pytest.mark.parametrize("role", ["user", "system", "assistant", "tool"])
def test_sound_is_refused_by_its_place(role: str) -> None:
    content = [{"type": "text", "text": "What is this?"}, SOUND]
    error = refusal(messages=[HELLO, {"role": role, "content": content, "tool_call_id": "1"}])
    assert (error.param, error.code) == ("messages[1].content[1]", "audio_not_supported")


@pytest.mark.parametrize("role", ["developer", "system", "assistant", "tool"])
@pytest.mark.parametrize("part", [IMAGE, FILE])
def test_only_users_attach_something(role: str, part: dict[str, Any]) -> None:
    error = refusal(messages=[HELLO, {"role": role, "content": [part], "tool_call_id": "1"}])
    assert (error.param, error.code) == ("messages[1].content[0].type", "invalid_value")


def test_earlier_thinking_is_not_sent_back() -> None:
    turn = {
        "role": "assistant",
        "content": "4",
        "reasoning_content": "2+2",
        "reasoning": "2+2",
        "reasoning_details": [{"type": "reasoning.text", "text": "2+2"}],
        "annotations": [],
        "audio": {"id": "1"},
    }
    assert messages(turn) == (Message("assistant", "4"),)


@pytest.mark.parametrize("content", [{"content": None}, {"content": ""}, {}])
def test_tool_calls_are_kept_as_they_were_sent(content: dict[str, Any]) -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}, "index": 0},
        {"id": "b", "type": "function", "function": {"name": "clock", "arguments": ""}},
    ]
    assert messages({"role": "assistant", "tool_calls": calls} | content) == (
        Message("assistant", "", calls=(ToolCall("a", "weather", '{"city": "Paris"}'), ToolCall("b", "clock", ""))),
    )


def test_a_custom_tool_s_free_text_becomes_an_argument() -> None:
    calls = [{"id": "a", "type": "custom", "custom": {"name": "run", "input": 'print("ü")'}}]
    (message,) = messages({"role": "assistant", "tool_calls": calls})
    (call,) = message.calls
    assert (call.id, call.name) == ("a", "run")
    assert json.loads(call.arguments) == {"input": 'print("ü")'}


def test_an_old_function_call_gets_an_id_and_what_the_function_gave_the_same() -> None:
    turn, gave, again, gave_again, stray = messages(
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": None},
        {"role": "function", "name": "g", "content": "2"},
    )
    assert turn.calls == (ToolCall(turn.calls[0].id, "f", "{}"),)
    assert turn.calls[0].id
    assert gave == Message("tool", "1", name="f", call_id=turn.calls[0].id)
    assert again.calls[0].id != turn.calls[0].id
    assert gave_again == Message("tool", "", name="f", call_id=again.calls[0].id)
    assert stray == Message("tool", "2", name="g")


@pytest.mark.parametrize("role", ["system", "developer", "assistant"])
def test_a_conversation_may_begin_with_any_role_and_hold_no_user_text(role: str) -> None:
    assert len(messages({"role": role, "content": ""})) == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 2}, "logprobs"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}, "modalities"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
    ],
)
def test_what_cannot_be_honoured_is_refused(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert (error.param, error.code) == (param, "unsupported_parameter")


@pytest.mark.parametrize(
    "fields",
    [
        {"logprobs": False, "top_logprobs": 0},
        {"modalities": ["text"]},
        {"modalities": []},
        {"response_format": {"type": "text"}},
        {"tools": [WEATHER], "tool_choice": "none"},
        {"tools": [], "tool_choice": None},
        {"tool_choice": "auto", "parallel_tool_calls": False, "function_call": "auto"},
        {"functions": [{"name": "f"}], "function_call": "none"},
        {"safety_identifier": "x", "metadata": {"a": "b"}, "store": True},
        {"service_tier": "flex", "verbosity": "low", "prediction": {"type": "content", "content": "x"}},
        {"web_search_options": {}},
        {"include_reasoning": False, "reasoning": {"exclude": True}, "chat_template_kwargs": {"thinking": False}},
    ],
)
def test_what_changes_nothing_about_the_answer_is_let_be(fields: dict[str, Any]) -> None:
    assert question(**fields) == question()


@pytest.mark.parametrize(
    ("response_format", "expected"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, OutputFormat()),
        ({"type": "json_schema", "json_schema": {"name": "s"}}, OutputFormat(name="s")),
        ({"type": "json_schema", "json_schema": {"name": "s", "schema": None}}, OutputFormat(name="s")),
        ({"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}, OutputFormat(schema={}, name="s")),
        (
            {
                "type": "json_schema",
                "json_schema": {"name": "s", "description": "d", "schema": {"type": "array"}, "strict": True},
            },
            OutputFormat(schema={"type": "array"}, name="s", description="d", strict=True),
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "s", "description": None, "strict": None}},
            OutputFormat(name="s", description="", strict=False),
        ),
    ],
)
def test_the_form_of_the_answer(response_format: Any, expected: OutputFormat | None) -> None:
    assert question(response_format=response_format).prompt.output == expected


def test_tools_and_a_form_may_be_asked_for_together() -> None:
    prompt = question(tools=[WEATHER], response_format={"type": "json_object"}).prompt
    assert prompt.tools is not None
    assert prompt.output == OutputFormat()
