"""Chat completions over real HTTP: what a client sends, what upstream gets, what comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import KEY, MODEL, MakeStage, Stage
from openai import AuthenticationError, BadRequestError, NotFoundError

from k2think.simulator.app import SimulatorOptions


def frames(body: str) -> list[dict[str, Any]]:
    """The JSON of all data frames but [DONE]."""
    return [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: ") and line != "data: [DONE]"]


def joined(chunks: list[dict[str, Any]], field: str) -> str:
    return "".join(chunk["choices"][0]["delta"].get(field) or "" for chunk in chunks if chunk.get("choices"))


def test_thinking_and_answer_come_apart(stage: Stage) -> None:
    message = stage.answer('[[think="Six times seven." answer="42"]]')
    assert message["content"] == "42"
    assert message["reasoning_content"] == message["reasoning"] == "Six times seven."
    assert message["role"] == "assistant"
    assert message["refusal"] is None


def test_a_stream_has_one_id_a_role_first_a_finish_last_and_done(stage: Stage) -> None:
    with stage.stream('[[think="Six times seven." answer="It is 42."]]') as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        body = response.read().decode()
    chunks = frames(body)
    assert body.endswith("data: [DONE]\n\n")
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert joined(chunks, "reasoning_content") == joined(chunks, "reasoning") == "Six times seven."
    assert joined(chunks, "content") == "It is 42."


@pytest.mark.parametrize("stream", [False, True])
def test_nothink_gives_the_answer_only(stage: Stage, *, stream: bool) -> None:
    fields = {"model": f"{MODEL}-nothink", "stream": stream}
    body = stage.ask('[[think="secret thought" answer="42"]]', **fields).text
    assert "secret thought" not in body
    assert "reasoning_content" not in body
    assert "42" in body


def test_reasoning_format_decides_how_thinking_is_shown(stage: Stage) -> None:
    text = '[[think="R" answer="A"]]'
    assert stage.answer(text, reasoning_format="raw")["content"] == "<think>R</think>\nA"
    hidden = stage.answer(text, reasoning_format="hidden")
    assert hidden["content"] == "A"
    assert "reasoning_content" not in hidden
    assert stage.answer(text, reasoning_format="parsed")["reasoning_content"] == "R"


def test_reasoning_format_has_a_default_in_the_settings(make_stage: MakeStage) -> None:
    raw = make_stage(REASONING_FORMAT="raw")
    assert raw.answer('[[think="R" answer="A"]]')["content"] == "<think>R</think>\nA"


SHAPES = [
    "think_answer", "think_only_tags", "no_opener", "attribute", "details", "answer_unclosed", "fast", "faster",
    "ifm", "ifm_mismatched", "reasoning_content", "reasoning", "reasoning_both", "draft_answer",
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_output_gives_thinking_and_answer(stage: Stage, shape: str) -> None:
    message = stage.answer(f'[[shape={shape} think="First this. Then that." answer="It is 42."]]')
    assert message["content"] == "It is 42."
    assert "First this." in message["reasoning_content"]
    assert "<" not in message["reasoning_content"].replace("<answer>", "").replace("</answer>", "")


@pytest.mark.parametrize("form", [
    "deltas", "snapshots", "json", "sources_first", "event_first", "usage_chunk", "comments", "crlf", "no_space",
    "bare_json", "lines", "split_bytes", "one_write", "gzip",
])  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_every_form_of_answer_is_understood(stage: Stage, form: str, *, stream: bool) -> None:
    text = f'[[form={form} think="Ein paar Gedanken. 你好" answer="Es sind 42. 🙂"]]'
    if stream:
        with stage.stream(text) as response:
            chunks = frames(response.read().decode())
        assert (joined(chunks, "reasoning"), joined(chunks, "content")) == ("Ein paar Gedanken. 你好", "Es sind 42. 🙂")
    else:
        message = stage.answer(text)
        assert (message["reasoning"], message["content"]) == ("Ein paar Gedanken. 你好", "Es sind 42. 🙂")


def test_sampling_reaches_upstream_and_ids_do_not(stage: Stage) -> None:
    stage.ask(
        "sampling?", temperature=0.25, top_p=0.5, max_completion_tokens=77, max_tokens=9, seed=5, presence_penalty=0.1,
        frequency_penalty=0.2, stop=["END"], user="me", metadata={"a": "b"}, store=True, unknown_field=[1],
    )  # fmt: skip
    body = stage.seen()[-1]["body"]
    expected = {
        "temperature": 0.25, "top_p": 0.5, "max_tokens": 77, "seed": 5, "presence_penalty": 0.1,
        "frequency_penalty": 0.2, "stop": ["END"],
    }  # fmt: skip
    assert {key: body[key] for key in expected} == expected
    assert body["stream"] is True
    assert not {"chat_id", "id", "session_id", "background_tasks", "user", "metadata", "unknown_field"} & body.keys()
    headers = {name.lower(): value for name, value in stage.seen()[-1]["headers"].items()}
    assert headers["user-agent"].startswith("k2think-api-proxy/")
    assert headers["accept-encoding"] == "gzip"


def test_earlier_thinking_is_not_sent_back(stage: Stage) -> None:
    stage.http.post(
        "/v1/chat/completions",
        json={
            "model": MODEL,
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
                {"role": "assistant", "content": "<think>hm</think>three", "reasoning_content": "hm"},
                {"role": "user", "content": "four"},
            ],
        },
    )
    assert stage.seen()[-1]["body"]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one\ntwo"},
        {"role": "assistant", "content": "three"},
        {"role": "user", "content": "four"},
    ]


def test_stop_sequences_are_enforced_here_too(stage: Stage) -> None:
    """The stop sequence comes about only when the tags are gone, so upstream cannot have stopped at it."""
    choice = stage.ask("[[say]]<think>R</think>zero one <answer>two</answer> three", stop="one two").json()["choices"][
        0
    ]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("zero ", "stop")


def test_usage_is_upstreams_and_counts_the_thinking(stage: Stage) -> None:
    body = stage.ask("[[think_tokens=60 tokens=40]]").json()
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 40 <= usage["completion_tokens_details"]["reasoning_tokens"] <= 75


@pytest.mark.parametrize("asked", [True, False])
def test_a_stream_tells_usage_only_if_asked(stage: Stage, *, asked: bool) -> None:
    fields = {"stream_options": {"include_usage": True}} if asked else {}
    with stage.stream("usage?", **fields) as response:
        chunks = frames(response.read().decode())
    with_usage = [chunk for chunk in chunks if chunk.get("usage")]
    assert len(with_usage) == int(asked)
    if asked:
        assert with_usage == [chunks[-1]]
        assert chunks[-1]["choices"] == []


@pytest.mark.parametrize("stream", [False, True])
def test_n_answers_come_under_one_id_with_rising_indexes(stage: Stage, *, stream: bool) -> None:
    fields = {"n": 3, "stream": stream, **({"stream_options": {"include_usage": True}} if stream else {})}
    response = stage.ask('[[answer="A"]]', **fields)
    if stream:
        chunks = frames(response.text)
        assert len({chunk["id"] for chunk in chunks}) == 1
        assert sum(1 for chunk in chunks if chunk.get("usage")) == 1
        finished = [
            chunk["choices"][0]["index"]
            for chunk in chunks
            if chunk["choices"] and chunk["choices"][0]["finish_reason"]
        ]
        assert sorted(finished) == [0, 1, 2]
    else:
        body = response.json()
        assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
        assert [choice["message"]["content"] for choice in body["choices"]] == ["A"] * 3
        one = stage.ask('[[answer="A"]]').json()["usage"]
        assert body["usage"]["prompt_tokens"] == one["prompt_tokens"]
        assert body["usage"]["completion_tokens"] == 3 * one["completion_tokens"]


def test_a_length_limit_shows_as_finish_reason(stage: Stage) -> None:
    assert stage.ask("[[tokens=50]]", max_tokens=10).json()["choices"][0]["finish_reason"] == "length"


def test_what_upstream_writes_arrives_while_it_goes_on_writing(stage: Stage) -> None:
    with stage.stream("[[think_tokens=100000 delay=0.005]]") as response:
        lines = (line for line in response.iter_lines() if line.startswith("data: {"))
        for _ in range(20):
            next(lines)
        assert sum(stage.simulator.state.open.values()) == 1


def test_a_missing_opener_is_learned_from_the_first_answer(make_stage: MakeStage) -> None:
    fresh = make_stage()
    text = '[[shape=no_opener think="Some thought." answer="42"]]'
    with fresh.stream(text) as response:
        first = frames(response.read().decode())
    with fresh.stream(text) as response:
        second = frames(response.read().decode())
    assert "42" in joined(first, "content")
    assert (joined(second, "reasoning"), joined(second, "content")) == ("Some thought.", "42")


def test_hidden_thinking_without_opener_does_not_leak_even_the_first_time(make_stage: MakeStage) -> None:
    fresh = make_stage()
    with fresh.stream('[[shape=no_opener think="Some thought." answer="42"]]', reasoning_format="hidden") as response:
        assert joined(frames(response.read().decode()), "content") == "42"


def test_the_official_client_works(stage: Stage) -> None:
    question: Any = {"model": MODEL, "messages": [{"role": "user", "content": "What is 6*7?"}]}
    with stage.openai() as client:
        assert {MODEL, f"{MODEL}-nothink"} <= {model.id for model in client.models.list()}
        completion = client.chat.completions.create(**question)
        assert "42" in completion.choices[0].message.content
        assert completion.usage.completion_tokens_details.reasoning_tokens > 0
        with client.chat.completions.stream(**question) as stream:
            final = stream.get_final_completion()
        assert "42" in (final.choices[0].message.content or "")


def test_the_official_client_sees_typed_errors(stage: Stage) -> None:
    messages: Any = [{"role": "user", "content": "x"}]
    with stage.openai() as client, stage.openai("wrong") as stranger:
        with pytest.raises(NotFoundError) as missing:
            client.chat.completions.create(model="gpt-99", messages=messages)
        assert missing.value.code == "model_not_found"
        with pytest.raises(BadRequestError) as bad:
            client.chat.completions.create(model=MODEL, messages=messages, logprobs=True)
        assert bad.value.param == "logprobs"
        with pytest.raises(AuthenticationError):
            stranger.models.list()


def test_model_names_are_found_in_any_case_by_alias_and_by_upstreams_own_id(make_stage: MakeStage) -> None:
    other = make_stage(
        options=SimulatorOptions(models=("IFM/K2-Think-V2", "other/model")),
        MODEL_ALIASES="gpt-4o=mbzuai-ifm/k2-think-nothink",
    )
    for name, sent in [
        ("mbzuai-ifm/K2-THINK", "IFM/K2-Think-V2"),
        ("ifm/k2-think-v2", "IFM/K2-Think-V2"),
        ("Other/Model-nothink", "other/model"),
        ("gpt-4o", "IFM/K2-Think-V2"),
    ]:
        assert other.ask("hello", model=name).status_code == 200
        assert other.seen()[-1]["body"]["model"] == sent
    assert "reasoning" not in other.answer("hello", model="gpt-4o")
    names = {model["id"] for model in other.http.get("/v1/models").json()["data"]}
    assert {MODEL, f"{MODEL}-nothink", "IFM/K2-Think-V2", "other/model", "gpt-4o"} <= names


def test_one_model_can_be_asked_for_by_name(stage: Stage) -> None:
    assert stage.http.get(f"/v1/models/{MODEL}").json()["id"] == MODEL
    assert stage.http.get("/v1/models/nope").status_code == 404


@pytest.mark.parametrize("shape", ["reasoning_content", "reasoning", "think_answer", "think_only_tags"])
@pytest.mark.parametrize("key", [None, "sk-local"])
def test_an_openai_compatible_server_serves_as_upstream(make_stage: MakeStage, shape: str, key: str | None) -> None:
    other = make_stage(
        tokens=(),
        options=SimulatorOptions(models=("my/k2-think",), openai_key=key),
        path="/v1/chat/completions",
        **({"UPSTREAM_API_KEY": key} if key else {}),
    )
    message = other.answer(f'[[shape={shape} think="R" answer="A"]]')
    assert (message["reasoning_content"], message["content"]) == ("R", "A")
    assert other.seen()[-1]["body"]["model"] == "my/k2-think"


def test_the_key_is_needed_everywhere_but_on_the_open_pages(stage: Stage) -> None:
    anonymous = {"Authorization": ""}
    for path in ("/", "/health", "/docs", "/openapi.json"):
        assert stage.http.get(path, headers=anonymous).status_code == 200
    for path in ("/", "/health"):
        assert (stage.http.head(path).status_code, stage.http.head(path).content) == (200, b"")
    for method, path in [
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/x"),
        ("GET", "/nowhere"),
    ]:
        for value in ("", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY):
            response = stage.http.request(method, path, headers={"Authorization": value})
            assert response.status_code == 401, (method, path, value)
            assert response.json()["error"]["code"] == "invalid_api_key"


def test_every_answer_has_a_request_id_of_its_own(stage: Stage) -> None:
    paths = ["/", "/v1/models", "/nowhere", "/v1/chat/completions"]
    ids = [stage.http.get(path).headers["x-request-id"] for path in paths]
    ids.append(stage.ask("x").headers["x-request-id"])
    assert len(set(ids)) == len(ids)


def test_web_pages_may_call_v1_and_nothing_else(stage: Stage) -> None:
    origin = {"Origin": "https://chat.example.com"}
    preflight = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    response = stage.http.options("/v1/chat/completions", headers={**preflight, "Authorization": ""})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] in {"*", "https://chat.example.com"}
    assert "access-control-allow-origin" in stage.http.get("/v1/models", headers=origin).headers
    assert "access-control-allow-origin" not in stage.http.get("/health", headers=origin).headers
