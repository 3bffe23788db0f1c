"""Function calling through the whole house: the prompt that upstream gets, and the calls that come back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from conftest import MODEL, MakeStage, Stage, staging
from openai import BadRequestError, OpenAI
from pydantic import BaseModel
from waiting import until

from k2think.simulator.app import SimulatorOptions

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TOOLS: Any = [WEATHER]  # as the official client takes them, whose types are strict
CLOCK: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_time", "description": "Tell the time in a time zone.", "parameters": {}},
}
FORMATS = [
    *("hermes", "fenced", "inline", "function_call", "bare", "parameters", "toolify", "toolify_json", "invoke"),
    *("tool_calls_invoke", "qwen3", "glm", "ifm_xml", "ifm_typed", "ifm_json", "gpt_oss", "tag_pythonic", "pythonic"),
    *("fn_call", "chinese", "unclosed", "single_quotes", "trailing_commas", "double_encoded"),
]


class City(BaseModel):
    name: str
    population: int


CITY = {"type": "json_schema", "json_schema": {"name": "city", "schema": City.model_json_schema(), "strict": True}}


@pytest.fixture
def openai(stage: Stage) -> Iterator[OpenAI]:
    with stage.openai() as client:
        yield client


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage whose calls are checked before they are streamed."""
    with staging(tmp_path_factory.mktemp("checked")) as make:
        yield make(TOOL_STREAMING="checked")


def frames(body: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: ") and line != "data: [DONE]"]


def put_together(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a client makes of a stream's chunks, with its finish reason."""
    calls: list[dict[str, Any]] = []
    message: dict[str, Any] = {"content": "", "reasoning": "", "calls": calls, "finish": None}
    for chunk in chunks:
        for choice in chunk.get("choices", ()):
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["reasoning"] += delta.get("reasoning_content") or ""
            message["finish"] = choice["finish_reason"] or message["finish"]
            for call in delta.get("tool_calls", ()):
                if call["index"] == len(calls):
                    calls.append({"id": call["id"], "name": call["function"]["name"], "arguments": ""})
                calls[call["index"]]["arguments"] += call["function"].get("arguments", "")
    return message


def ask(stage: Stage, text: str, *, stream: bool, **fields: Any) -> dict[str, Any]:
    """Ask with tools, whole or as a stream; the answer in one form."""
    if stream:
        with stage.stream(text, **fields) as response:
            body = response.read().decode()
        assert response.status_code == 200, body
        return put_together(frames(body))
    response = stage.ask(text, **fields)
    assert response.status_code == 200, response.text
    choice = response.json()["choices"][0]
    message = choice["message"]
    return {
        "content": message["content"] or "",
        "reasoning": message.get("reasoning_content", ""),
        "calls": [{"id": call["id"], **call["function"]} for call in message.get("tool_calls", ())],
        "finish": choice["finish_reason"],
    }


def named(answer: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(call["name"], json.loads(call["arguments"])) for call in answer["calls"]]


def system_of(stage: Stage, request: int = -1) -> str:
    first: dict[str, str] = stage.seen()[request]["body"]["messages"][0]
    assert first["role"] == "system"
    return first["content"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_each_format_comes_out_as_openai_calls(stage: Stage, form: str, *, stream: bool) -> None:
    text = f"""[[think="I look." call=get_weather args='{{"city": "Paris", "days": 3}}' format={form}]] Paris?"""
    answer = ask(stage, text, stream=stream, tools=[WEATHER, CLOCK])
    assert named(answer) == [("get_weather", {"city": "Paris", "days": 3})]
    assert answer["finish"] == "tool_calls"
    assert answer["content"].strip() in {"", "Sure."}
    assert answer["reasoning"] == "I look."
    assert answer["calls"][0]["id"].startswith("call_")


@pytest.mark.parametrize("stream", [False, True])
def test_several_calls_have_ids_of_their_own(stage: Stage, *, stream: bool) -> None:
    answer = ask(stage, "[[calls=3]] The weather in Paris, London and Rome?", stream=stream, tools=[WEATHER])
    assert [arguments["city"] for _, arguments in named(answer)] == ["Paris", "London", "Rome"]
    assert len({call["id"] for call in answer["calls"]}) == 3


@pytest.mark.parametrize("stream", [False, True])
def test_at_most_one_call_where_that_was_asked_for(stage: Stage, *, stream: bool) -> None:
    answer = ask(
        stage, "[[calls=3]] The weather in Paris and London?", stream=stream, tools=[WEATHER], parallel_tool_calls=False
    )
    assert len(answer["calls"]) == 1
    assert answer["finish"] == "tool_calls"


def test_upstream_reads_every_schema_whole_behind_the_callers_own_words(stage: Stage) -> None:
    long = json.loads(json.dumps(WEATHER))
    long["function"]["parameters"]["properties"]["city"]["description"] = "x" * 5000
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    stage.http.post("/v1/chat/completions", json={"model": MODEL, "messages": messages, "tools": [long, CLOCK]})
    system = system_of(stage)
    assert system.startswith("Be kind.\n\n")
    assert json.dumps(long["function"]["parameters"], separators=(",", ":")) in system
    assert '"get_time"' in system
    assert "must call" not in system
    assert "tools" not in stage.seen()[-1]["body"]


def test_choice_none_writes_no_tools(stage: Stage) -> None:
    answer = ask(stage, "The weather in Paris?", stream=False, tools=[WEATHER], tool_choice="none")
    assert not answer["calls"]
    assert "get_weather" not in json.dumps(stage.seen()[-1]["body"])


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ("required", {"get_weather", "get_time"}),
        ({"type": "function", "function": {"name": "get_time"}}, {"get_time"}),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "get_time"}}],
                },
            },
            {"get_time"},
        ),
    ],
)
def test_a_forced_choice_is_a_call(stage: Stage, choice: Any, wanted: set[str]) -> None:
    answer = ask(stage, "Nothing of the kind.", stream=False, tools=[WEATHER, CLOCK], tool_choice=choice)
    assert {name for name, _ in named(answer)} <= wanted
    assert answer["calls"]
    assert "must call" in system_of(stage)


@pytest.mark.parametrize("stream", [False, True])
def test_results_go_back_and_are_answered_from(stage: Stage, *, stream: bool) -> None:
    first = ask(stage, "The weather in Paris?", stream=False, tools=[WEATHER])
    call = {"id": first["calls"][0]["id"], "type": "function"}
    call["function"] = {"name": "get_weather", "arguments": first["calls"][0]["arguments"]}
    messages = [
        {"role": "user", "content": "The weather in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "Sunny, 31 degrees"},
    ]
    answer = ask(stage, "", stream=stream, messages=messages, tools=[WEATHER])
    assert "31 degrees" in answer["content"]
    assert answer["finish"] == "stop"
    sent = stage.seen()[-1]["body"]["messages"]
    assert sent[2]["content"].startswith('<tool_call>\n{"name": "get_weather", "arguments": ')
    assert '<tool_response>\n{"name": "get_weather", "content": "Sunny, 31 degrees"}' in sent[3]["content"]


@pytest.mark.parametrize("stream", [False, True])
def test_old_functions_are_answered_in_kind(stage: Stage, *, stream: bool) -> None:
    fields = {"functions": [WEATHER["function"]], "function_call": "auto"}
    if not stream:
        choice = stage.ask("The weather in Paris?", **fields).json()["choices"][0]
        assert choice["finish_reason"] == "function_call"
        assert json.loads(choice["message"]["function_call"]["arguments"]) == {"city": "Paris"}
        return
    with stage.stream("The weather in Paris?", **fields) as response:
        chunks = frames(response.read().decode())
    deltas = [chunk["choices"][0]["delta"].get("function_call", {}) for chunk in chunks]
    assert [delta["name"] for delta in deltas if "name" in delta] == ["get_weather"]
    assert json.loads("".join(delta.get("arguments", "") for delta in deltas)) == {"city": "Paris"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "function_call"


def test_switched_off_means_refused(make_stage: MakeStage) -> None:
    stage = make_stage(ENABLE_TOOLIFY="false")
    response = stage.ask("Hello", tools=[WEATHER])
    assert response.status_code == 400
    assert "ENABLE_TOOLIFY" in response.json()["error"]["message"]
    assert stage.ask("Hello", tools=[WEATHER], tool_choice="none").status_code == 200


def test_a_template_of_ones_own(make_stage: MakeStage) -> None:
    stage = make_stage(TOOLIFY_CUSTOM_PROMPT="Tools are: {tools_list} Begin with {trigger_signal}.")
    answer = ask(stage, "The weather in Paris?", stream=False, tools=[WEATHER])
    assert named(answer) == [("get_weather", {"city": "Paris"})]
    assert system_of(stage).startswith('Tools are: {"type":"function"')
    assert system_of(stage).endswith("Begin with <tool_call>.")


# Checking


BAD = """[[call=get_weather args='{"town": "Paris"}']] The weather in Paris?"""
BAD_CALL = '<tool_call>{"name": "get_weather", "arguments": {"town": "Paris"}}</tool_call>'
GOOD_CALL = BAD_CALL.replace("town", "city")
STUBBORN = BAD.replace("[[", "[[stubborn=yes ")


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_cannot_be_used_is_asked_for_again(checked: Stage, *, stream: bool) -> None:
    before = checked.admin("/tools/stats")["tools"].get("get_weather", {"reasked": 0, "parsed": 0})
    answer = ask(
        checked, BAD, stream=stream, tools=[WEATHER], stream_options={"include_usage": True} if stream else None
    )
    assert named(answer) == [("get_weather", {"city": "Paris"})]
    first, second = checked.seen()[-2:]
    complaint = second["body"]["messages"][-1]["content"]
    assert "'town'" in complaint or "'city'" in complaint
    assert second["body"]["messages"][-2]["content"].startswith("<tool_call>")
    assert len(second["body"]["messages"]) == len(first["body"]["messages"]) + 2
    after = checked.admin("/tools/stats")["tools"]["get_weather"]
    assert (after["reasked"] - before["reasked"], after["parsed"] - before["parsed"]) == (1, 1)


@pytest.mark.parametrize("stream", [False, True])
def test_what_stays_wrong_is_given_as_it_was_written(checked: Stage, *, stream: bool) -> None:
    answer = ask(checked, STUBBORN, stream=stream, tools=[WEATHER])
    assert not answer["calls"]
    assert answer["finish"] == "stop"
    assert (
        answer["content"].strip()
        == '<tool_call>\n{"name": "get_weather", "arguments": {"town": "Paris"}}\n</tool_call>'
    )


@pytest.mark.parametrize("stream", [False, True])
def test_a_required_call_that_does_not_come_is_asked_for_again(stage: Stage, *, stream: bool) -> None:
    answer = ask(
        stage, '[[answer="I would rather not."]] Paris?', stream=stream, tools=[WEATHER], tool_choice="required"
    )
    assert [name for name, _ in named(answer)] == ["get_weather"]
    assert not answer["content"]
    assert answer["finish"] == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
def test_a_required_call_that_never_comes_leaves_the_text(stage: Stage, *, stream: bool) -> None:
    text = '[[stubborn=yes answer="I would rather not."]] Paris?'
    answer = ask(stage, text, stream=stream, tools=[WEATHER], tool_choice="required")
    assert (answer["content"], answer["calls"], answer["finish"]) == ("I would rather not.", [], "stop")


def test_asking_again_can_be_switched_off(make_stage: MakeStage) -> None:
    stage = make_stage(TOOL_RETRIES="0")
    assert not ask(stage, BAD, stream=False, tools=[WEATHER])["calls"]
    assert len(stage.seen()) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_arguments_are_made_to_fit(checked: Stage, *, stream: bool) -> None:
    text = """[[call=get_weather args='{"city": ["Paris"], "days": "3"}']] Paris?"""
    answer = ask(checked, text, stream=stream, tools=[WEATHER])
    assert named(answer) == [("get_weather", {"city": "Paris", "days": 3})]


def test_the_cost_is_that_of_all_attempts(checked: Stage) -> None:
    once = checked.ask("The weather in Paris?", tools=[WEATHER]).json()["usage"]
    twice = checked.ask(BAD, tools=[WEATHER]).json()["usage"]
    assert twice["prompt_tokens"] > 1.8 * once["prompt_tokens"]
    assert twice["completion_tokens"] > 1.5 * once["completion_tokens"]


def test_an_upstream_that_fails_when_asked_again_is_tried_once_more(stage: Stage) -> None:
    """The complaint quotes the answer, and so brings the fault into the second attempt."""
    text = """[[think="I ponder." answer='{"name": "[[fault=503 times=1 key=again]]"}']] A city: "Paris", 2100000"""
    answer = ask(stage, text, stream=True, response_format=CITY)
    assert json.loads(answer["content"])["population"] == 2100000
    assert answer["finish"] == "stop"
    assert answer["reasoning"].startswith("I ponder.\n\n")


def test_what_stands_behind_a_stop_sequence_counts_for_nothing(checked: Stage) -> None:
    text = f"[[form=one_write]] Paris? [[say]]Hello STOP{BAD_CALL}"
    with checked.stream(text, tools=[WEATHER], stop=["STOP"]) as response:
        chunks = frames(response.read().decode())
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"][0]["finish_reason"]] == ["stop"]
    assert put_together(chunks)["content"].strip() == "Hello"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_became_too_long_is_not_asked_for_again(stage: Stage, *, stream: bool) -> None:
    before = len(stage.seen())
    answer = ask(stage, "Paris?", stream=stream, tools=[WEATHER], tool_choice="required", max_tokens=5)
    assert (answer["finish"], answer["calls"]) == ("length", [])
    assert len(stage.seen()) == before + 1


def test_thinking_within_the_text_is_closed_before_the_model_is_asked_again(stage: Stage) -> None:
    text = '[[think="I ponder." answer="No."]] Paris?'
    answer = ask(stage, text, stream=True, tools=[WEATHER], tool_choice="required", reasoning_format="raw")
    assert answer["content"].count("<think>") == answer["content"].count("</think>") == 2
    assert answer["content"].startswith("<think>I ponder.</think>\n<think>")


@pytest.mark.parametrize("stream", [False, True])
def test_no_prose_beside_a_call_where_json_is_parsed(stage: Stage, *, stream: bool) -> None:
    text = f"Paris? [[say]]Let me look.\n{GOOD_CALL}"
    answer = ask(stage, text, stream=stream, tools=[WEATHER], response_format=CITY)
    assert (answer["content"], len(answer["calls"])) == ("", 1)


def test_json_is_never_behind_thinking(stage: Stage) -> None:
    answer = ask(stage, "A city", stream=False, response_format=CITY, reasoning_format="raw")
    City.model_validate_json(answer["content"])


def test_a_decimal_of_pydantics_is_a_schema(stage: Stage) -> None:
    class Price(BaseModel):
        amount: Decimal

    form = {"type": "json_schema", "json_schema": {"name": "price", "schema": Price.model_json_schema()}}
    assert Price.model_validate_json(ask(stage, "Pay 12", stream=False, response_format=form)["content"])


# Streaming


def test_arguments_arrive_while_they_are_written(stage: Stage) -> None:
    """The first pieces of a long argument are there when the last are still to be written."""
    arguments = json.dumps({"city": "word " * 100})
    text = f"""[[fault=stall after=80 think="I look." call=get_weather args='{arguments}']] Paris?"""
    arrived = b""
    with stage.stream(text, tools=[WEATHER]) as response:
        for data in response.iter_bytes():
            arrived += data
            if arrived.count(b"word") > 40:
                break
        until(lambda: sum(stage.simulator.state.open.values()) == 1)
    assert b'"arguments"' in arrived


def test_a_draft_in_the_thinking_is_no_call(stage: Stage) -> None:
    draft = '<tool_call>{"name": "get_weather", "arguments": {"city": "X"}}</tool_call>'
    answer = ask(stage, f"[[say]]<think>A draft: {draft}</think>\nNo, I know it.", stream=True, tools=[WEATHER])
    assert not answer["calls"]
    assert answer["content"] == "No, I know it."


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_in_thinking_that_never_ended_is_rescued(stage: Stage, *, stream: bool) -> None:
    call = '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>'
    answer = ask(stage, f"[[say]]<think>So I call it. {call}", stream=stream, tools=[WEATHER])
    assert named(answer) == [("get_weather", {"city": "Paris"})]
    assert answer["finish"] == "tool_calls"


def test_the_official_client_streams_calls(openai: OpenAI) -> None:
    with openai.chat.completions.stream(
        model=MODEL, messages=[{"role": "user", "content": "The weather in Paris?"}], tools=TOOLS
    ) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in events
    calls = final.choices[0].message.tool_calls
    assert calls
    (call,) = calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}


# JSON answers


def test_the_official_client_parses_a_class(openai: OpenAI) -> None:
    completion = openai.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": 'A city: "Paris", 2100000'}], response_format=City
    )
    assert completion.choices[0].message.parsed == City(name="Paris", population=2100000)


def test_the_official_client_streams_a_class(openai: OpenAI) -> None:
    with openai.chat.completions.stream(
        model=MODEL, messages=[{"role": "user", "content": 'A city: "Paris", 2100000'}], response_format=City
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == City(name="Paris", population=2100000)


@pytest.mark.parametrize("stream", [False, True])
def test_fences_and_sentences_around_json_go(stage: Stage, *, stream: bool) -> None:
    answer = ask(stage, "[[fence=yes]] Any city", stream=stream, response_format=CITY)
    City.model_validate_json(answer["content"])
    assert answer["reasoning"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_json_object_comes_as_one(stage: Stage, *, stream: bool) -> None:
    answer = ask(stage, "[[fence=yes]] 2 + 2?", stream=stream, response_format={"type": "json_object"})
    assert isinstance(json.loads(answer["content"]), dict)


@pytest.mark.parametrize("stream", [False, True])
def test_json_that_does_not_fit_is_asked_for_again(stage: Stage, *, stream: bool) -> None:
    text = """[[answer='{"name": "Paris"}']] A city: "Paris", 2100000"""
    answer = ask(stage, text, stream=stream, response_format=CITY)
    assert json.loads(answer["content"]) == {"name": "Paris", "population": 2100000}
    assert '"population" is a required property' in stage.seen()[-1]["body"]["messages"][-1]["content"]


def test_json_that_never_fits_is_an_error(stage: Stage) -> None:
    text = '[[stubborn=yes answer="I know no city."]] A city'
    response = stage.ask(text, response_format=CITY)
    assert response.status_code == 502
    error = response.json()["error"]
    assert error["code"] == "structured_output_failed"
    assert error["details"] == {"text": "I know no city."}
    with stage.stream(text, response_format=CITY) as stream:
        body = stream.read().decode()
    assert stream.status_code == 200
    assert frames(body)[-1]["error"]["code"] == "structured_output_failed"
    assert "[DONE]" not in body


def test_a_schema_that_is_none_is_refused(stage: Stage) -> None:
    response = stage.ask(
        "Hi", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 3}}}
    )
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "response_format"


# Servers that can do it themselves


@pytest.fixture
def server(make_stage: MakeStage) -> Stage:
    """A gateway in front of an OpenAI-compatible server."""
    return make_stage(path="/v1/chat/completions")


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_with_tools_gets_them_as_they_are(server: Stage, *, stream: bool) -> None:
    answer = ask(server, "The weather in Paris?", stream=stream, tools=[WEATHER])
    assert named(answer) == [("get_weather", {"city": "Paris"})]
    body = server.seen()[-1]["body"]
    assert body["tools"][0]["function"]["name"] == "get_weather"
    assert body["messages"][0]["role"] == "user"


def test_a_server_without_tools_is_asked_for_them_once(make_stage: MakeStage) -> None:
    options = SimulatorOptions(models=(MODEL,), refuses=("tools", "response_format"))
    server = make_stage(path="/v1/chat/completions", options=options)
    for _ in range(2):
        answer = ask(server, "The weather in Paris?", stream=False, tools=[WEATHER])
        assert named(answer) == [("get_weather", {"city": "Paris"})]
    assert ["tools" in request["body"] for request in server.seen()] == [True, False, False]
    assert City.model_validate_json(ask(server, "A city", stream=True, response_format=CITY)["content"])
    assert ["response_format" in request["body"] for request in server.seen()[3:]] == [True, False]


def test_nothing_native_means_all_is_written(make_stage: MakeStage) -> None:
    server = make_stage(path="/v1/chat/completions", UPSTREAM_NATIVE="none")
    answer = ask(server, "The weather in Paris?", stream=False, tools=[WEATHER], response_format=None)
    assert named(answer) == [("get_weather", {"city": "Paris"})]
    assert "tools" not in server.seen()[-1]["body"]


def test_an_unknown_tool_choice_is_the_clients_mistake(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="nope"):
        openai.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Hi"}],
            tools=TOOLS,
            tool_choice={"type": "function", "function": {"name": "nope"}},
        )
