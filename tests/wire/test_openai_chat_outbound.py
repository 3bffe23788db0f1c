"""Events become OpenAI's chunks and completions: as its schemas say, as its client reads them, every text whole."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from k2think.dialogue.completion import Completion
from k2think.dialogue.events import (
    Event,
    Finish,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from k2think.dialogue.prompt import ToolCall
from k2think.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    NoCredential,
    StreamBroken,
    StructuredOutputFailed,
    UpstreamTimeout,
)
from k2think.sse import Decoder
from k2think.wire.openai_chat.outbound import (
    DONE,
    StreamEncoder,
    error_body,
    error_frame,
    keep_alive,
    render,
    usage_frame,
)

SCHEMAS = Path(__file__).resolve().parents[2].parent / "shared" / "openai-schemas"
ID, CREATED, MODEL = "chatcmpl-1", 1_790_000_000, 'MBZUAI-IFM/K2-Think "%d" ü'

marks = st.sampled_from(["\x1e", "\\u001e", "\\", "a\x1eb"])  # what parts texts that are encoded together
texts = st.text(st.characters(exclude_categories=()), max_size=8) | marks  # half surrogate pairs too
events = st.lists(
    st.builds(TextDelta, texts)
    | st.builds(ReasoningDelta, texts)
    | st.builds(ToolCallStart, st.integers(0, 3), texts, texts)
    | st.builds(ToolCallDelta, st.integers(0, 3), texts)
    | st.builds(Finish, st.sampled_from(("stop", "length", "tool_calls", "content_filter")))
    | st.builds(Usage, st.integers(0, 9), st.integers(0, 9)),
    max_size=8,
)


@functools.cache
def schema(name: str) -> jsonschema_rs.Validator | None:
    """A published schema; None where they are not here."""
    path = SCHEMAS / f"{name}.json"
    return jsonschema_rs.validator_for(json.loads(path.read_bytes())) if path.is_file() else None


def checked(name: str, value: Any) -> Any:
    if (validator := schema(name)) is not None:
        validator.validate(value)
    return value


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="OpenAI's published schemas are not here")
def test_the_schemas_would_find_a_fault() -> None:
    with pytest.raises(jsonschema_rs.ValidationError):
        checked("CreateChatCompletionStreamResponse", {"id": "1", "choices": [{"index": 0, "delta": {}}]})


def encoder(**options: Any) -> StreamEncoder:
    return StreamEncoder(id=ID, created=CREATED, model=MODEL, **options)


def chunks(frames: bytes) -> list[dict[str, Any]]:
    """The chunks in a stream's bytes, each valid and of the one answer."""
    decoder = Decoder()
    found = [json.loads(data) for data in (*decoder.feed(frames), *decoder.close())]
    assert frames.count(b"\n\n") == len(found)
    for chunk in found:
        checked("CreateChatCompletionStreamResponse", chunk)
        ChatCompletionChunk.model_validate(chunk)
        assert (chunk["id"], chunk["created"], chunk["model"]) == (ID, CREATED, MODEL)
    return found


def deltas(frames: bytes) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks(frames)]


ROLE = {"role": "assistant", "content": "", "refusal": None}


@pytest.mark.parametrize(
    ("event", "delta"),
    [
        (TextDelta("Hi"), {"content": "Hi"}),
        (ReasoningDelta("Hm"), {"reasoning_content": "Hm", "reasoning": "Hm"}),
        (
            ToolCallStart(1, "call_1", "weather"),
            {
                "tool_calls": [
                    {"index": 1, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
                ]
            },
        ),
        (ToolCallDelta(1, '{"ci'), {"tool_calls": [{"index": 1, "function": {"arguments": '{"ci'}}]}),
        (Finish("stop"), {}),
    ],
)
def test_the_role_goes_before_whatever_comes_first_and_only_once(event: Event, delta: dict[str, Any]) -> None:
    stream = encoder()
    assert deltas(stream.feed_all([event])) == [ROLE, delta]
    assert deltas(stream.feed_all([event])) == [delta]


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
def test_the_finish_reason_stands_on_the_last_chunk_only(reason: FinishReason) -> None:
    found = chunks(encoder().feed_all([ReasoningDelta("Hm"), TextDelta("Hi"), Finish(reason)]))
    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None, None, None, reason]
    assert found[-1]["choices"][0]["delta"] == {}


def test_every_chunk_bears_the_index_of_its_choice() -> None:
    found = chunks(encoder(index=2).feed_all([TextDelta("Hi"), Finish("stop")]))
    assert [chunk["choices"][0]["index"] for chunk in found] == [2, 2, 2]


def test_a_batch_without_output_gives_no_bytes() -> None:
    stream = encoder()
    assert stream.feed_all([]) == b""
    assert stream.feed_all([Usage(1, 2)]) == b""
    assert deltas(stream.feed_all([TextDelta("Hi")]))[0] == ROLE


def test_usage_is_kept_for_the_usage_frame() -> None:
    stream = encoder()
    assert stream.usage is None
    stream.feed_all([TextDelta("Hi"), Finish("stop"), Usage(3, 4, 1, 2)])
    assert stream.usage == Usage(3, 4, 1, 2)


def test_chunks_carry_a_null_usage_where_usage_is_asked_for_and_none_elsewhere() -> None:
    every: list[Event] = [
        TextDelta("Hi"),
        ReasoningDelta("Hm"),
        ToolCallStart(0, "1", "f"),
        ToolCallDelta(0, "{}"),
        Finish("stop"),
    ]
    asked = chunks(encoder(include_usage=True).feed_all(every))
    assert [chunk.get("usage", "none") for chunk in asked] == [None] * 6
    assert all("usage" not in chunk for chunk in chunks(encoder().feed_all(every)))


def test_the_usage_frame_counts_the_prompt_once_and_sums_the_answers() -> None:
    usages = [Usage(10, 5, 3, 2), Usage(10, 7, 4, 2)]
    (chunk,) = chunks(usage_frame(usages, id=ID, created=CREATED, model=MODEL))
    assert chunk["choices"] == []
    assert chunk["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 12,
        "total_tokens": 22,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 7},
    }


@pytest.mark.parametrize(
    ("prompts", "total"),
    [
        ([], 0),
        ([0], 0),
        ([25], 25),
        ([10, 10, 10], 10),
        ([10, 25], 25),  # the second was asked for again, with 15 tokens
        ([25, 10, 12], 27),
        ([0, 10, 25], 25),  # of the first nobody knows
    ],
)
def test_what_an_answer_read_more_than_the_prompt_is_added(prompts: list[int], total: int) -> None:
    (chunk,) = chunks(usage_frame([Usage(prompt, 1) for prompt in prompts], id=ID, created=CREATED, model=MODEL))
    assert chunk["usage"]["prompt_tokens"] == total
    assert chunk["usage"]["total_tokens"] == total + len(prompts)


@settings(deadline=None)  # a busy machine is no fault
@given(events)
def test_texts_come_out_whole_whatever_they_hold(given_events: list[Event]) -> None:
    found = deltas(encoder().feed_all(given_events))

    def readable(pieces: list[str]) -> str:
        return "".join(json.loads(json.dumps(piece)).encode("utf-8", "replace").decode() for piece in pieces)

    def sent(key: str) -> str:
        return "".join(delta.get(key, "") for delta in found)

    # "replace" writes "?" for half a surrogate pair, the encoder U+FFFD.
    def same(text: str, pieces: list[str]) -> bool:
        return text.replace("\ufffd", "?") == readable(pieces).replace("\ufffd", "?")

    assert same(sent("content"), [e.text for e in given_events if isinstance(e, TextDelta)])
    assert same(sent("reasoning_content"), [e.text for e in given_events if isinstance(e, ReasoningDelta)])
    assert sent("reasoning") == sent("reasoning_content")
    arguments = "".join(c["function"]["arguments"] for d in found for c in d.get("tool_calls", ()))
    assert same(arguments, [e.arguments for e in given_events if isinstance(e, ToolCallDelta)])


@settings(deadline=None)  # a busy machine is no fault
@given(events, st.booleans(), st.booleans())
def test_batches_and_single_events_give_the_same_bytes(
    given_events: list[Event], include_usage: bool, legacy_functions: bool
) -> None:
    options = {"include_usage": include_usage, "legacy_functions": legacy_functions}
    one_by_one = encoder(**options)
    singles = b"".join(one_by_one.feed_all([event]) for event in given_events)
    assert encoder(**options).feed_all(given_events) == singles


OLD_CALL: tuple[Event, ...] = (
    ToolCallStart(0, "call_1", 'wea"ther'),
    ToolCallDelta(0, '{"city":'),
    ToolCallDelta(0, '"Paris"}'),
)


def test_an_old_function_call_is_streamed_with_its_name_first_and_then_its_arguments() -> None:
    found = chunks(encoder(legacy_functions=True).feed_all([*OLD_CALL, Finish("tool_calls")]))
    assert [chunk["choices"][0]["delta"] for chunk in found] == [
        ROLE,
        {"function_call": {"name": 'wea"ther', "arguments": ""}},
        {"function_call": {"arguments": '{"city":'}},
        {"function_call": {"arguments": '"Paris"}'}},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None] * 4 + ["function_call"]


def test_of_several_calls_an_old_stream_gives_the_first() -> None:
    alone = encoder(legacy_functions=True).feed_all(OLD_CALL)
    more: list[Event] = [ToolCallStart(1, "call_2", "clock"), ToolCallDelta(1, "{}")]
    assert encoder(legacy_functions=True).feed_all([*OLD_CALL, *more]) == alone
    assert encoder(legacy_functions=True).feed_all(more) == b""


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
def test_an_old_answer_without_a_call_is_like_any_other(reason: FinishReason) -> None:
    given_events: list[Event] = [ReasoningDelta("Hm"), TextDelta("Hi"), Finish(reason)]
    assert encoder(legacy_functions=True).feed_all(given_events) == encoder().feed_all(given_events)
    answer = completion("Hi", finish_reason=reason)
    assert whole(answer, legacy_functions=True) == whole(answer)


@settings(deadline=None)  # a busy machine is no fault
@given(texts, st.lists(texts, max_size=4))
def test_old_calls_come_out_whole_whatever_they_hold(name: str, arguments: list[str]) -> None:
    given_events: list[Event] = [ToolCallStart(0, "1", name), *(ToolCallDelta(0, piece) for piece in arguments)]
    calls = [delta["function_call"] for delta in deltas(encoder(legacy_functions=True).feed_all(given_events))[1:]]
    assert calls[0] == {"name": json.loads(_sent(name)), "arguments": ""}
    assert calls[1:] == [{"arguments": json.loads(_sent(piece))} for piece in arguments]


def _sent(text: str) -> bytes:
    """As JSON, with U+FFFD for half a surrogate pair."""
    return json.dumps(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")).encode()


@pytest.mark.parametrize(("text", "shown"), [("a\ud83d", "a\ufffd"), ("\ude00b", "\ufffdb"), ("\ud83d\ude00", "😀")])
def test_half_a_surrogate_pair_is_replaced_and_two_halves_joined(text: str, shown: str) -> None:
    assert deltas(encoder().feed_all([TextDelta("ok"), TextDelta(text)]))[1:] == [{"content": "ok"}, {"content": shown}]
    assert whole(completion(text=text))["choices"][0]["message"]["content"] == shown
    assert json.loads(error_body(InvalidRequest(text)))["error"]["message"] == shown


def test_a_model_s_name_of_any_characters_is_safe_in_the_envelope() -> None:
    frames = StreamEncoder(id="%s", created=1, model='a"%d{}\ud800\n').feed_all([TextDelta("Hi")])
    chunk = json.loads(frames.split(b"\n\n")[0].removeprefix(b"data: "))
    assert (chunk["id"], chunk["model"]) == ("%s", 'a"%d{}\ufffd\n')


def test_keep_alive_is_a_comment_and_done_the_last_data() -> None:
    decoder = Decoder()
    assert decoder.feed(keep_alive() + DONE + keep_alive()) == [b"[DONE]"]
    assert keep_alive().startswith(b":")


def completion(
    text: str = "",
    reasoning: str = "",
    calls: tuple[ToolCall, ...] = (),
    finish_reason: FinishReason | None = "stop",
    usage: Usage = Usage(1, 1),  # noqa: B008
) -> Completion:
    return Completion(text, reasoning, calls, finish_reason, usage)


def whole(*completions: Completion, legacy_functions: bool = False) -> dict[str, Any]:
    body = render(completions, id=ID, created=CREATED, model=MODEL, legacy_functions=legacy_functions)
    value: dict[str, Any] = json.loads(body)
    checked("CreateChatCompletionResponse", value)
    ChatCompletion.model_validate(value)
    return value


def message(value: Completion) -> dict[str, Any]:
    found: dict[str, Any] = whole(value)["choices"][0]["message"]
    return found


def test_a_whole_completion() -> None:
    assert whole(completion("4", "2+2", usage=Usage(10, 5, 3, 2))) == {
        "id": ID,
        "object": "chat.completion",
        "created": CREATED,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "4",
                    "refusal": None,
                    "reasoning_content": "2+2",
                    "reasoning": "2+2",
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
    }


def test_an_answer_without_thinking_or_calls_has_no_fields_for_them() -> None:
    assert message(completion("4")) == {"role": "assistant", "content": "4", "refusal": None}


def test_content_is_null_only_beside_calls() -> None:
    calls = (ToolCall("call_1", "weather", '{"city":"Paris"}'),)
    assert message(completion("")) == {"role": "assistant", "content": "", "refusal": None}
    assert message(completion("", calls=calls, finish_reason="tool_calls")) == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
        ],
    }
    assert message(completion("Let me look.", calls=calls))["content"] == "Let me look."


def test_only_the_first_call_fits_into_the_old_form() -> None:
    calls = (ToolCall("call_1", "weather", '{"city":"Paris"}'), ToolCall("call_2", "clock", "{}"))
    answer = completion("Let me look.", "Hm", calls=calls, finish_reason="tool_calls")
    (choice,) = whole(answer, legacy_functions=True)["choices"]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"] == {
        "role": "assistant",
        "content": "Let me look.",
        "refusal": None,
        "reasoning_content": "Hm",
        "reasoning": "Hm",
        "function_call": {"name": "weather", "arguments": '{"city":"Paris"}'},
    }


def test_an_old_call_that_was_cut_short_says_so() -> None:
    answer = completion(calls=(ToolCall("call_1", "weather", "{"),), finish_reason="length")
    assert whole(answer, legacy_functions=True)["choices"][0]["finish_reason"] == "length"


def test_several_answers_are_choices_with_their_indexes_and_one_usage() -> None:
    value = whole(
        completion("a", usage=Usage(10, 5, 3)), completion("b", finish_reason="length", usage=Usage(10, 7, -1))
    )
    choices = value["choices"]
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in choices] == [
        (0, "a", "stop"),
        (1, "b", "length"),
    ]
    usage = value["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (10, 12, 22)
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 3}


def test_reasoning_tokens_are_not_made_up() -> None:
    assert "completion_tokens_details" not in whole(completion("a", usage=Usage(1, 2)))["usage"]
    assert whole(completion("a", usage=Usage(1, 2, 0)))["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0


def test_an_answer_that_was_cut_off_is_not_rendered() -> None:
    with pytest.raises(StreamBroken):
        render([completion("a", finish_reason=None)], id=ID, created=CREATED, model=MODEL)


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(st.builds(completion, texts, texts, st.just(()) | st.builds(lambda t: (ToolCall(t, t, t),), texts))))
def test_any_completions_are_rendered_validly(completions: Sequence[Completion]) -> None:
    assert len(whole(*completions)["choices"]) == len(completions)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            InvalidRequest("Wrong.", param="n", code="invalid_value"),
            {"message": "Wrong.", "type": "invalid_request_error", "param": "n", "code": "invalid_value"},
        ),
        (
            InvalidRequest("Wrong."),
            {"message": "Wrong.", "type": "invalid_request_error", "param": None, "code": None},
        ),
        (NoCredential("None."), {"message": "None.", "type": "server_error", "param": None, "code": "no_usable_token"}),
        (
            UpstreamTimeout("Silence."),
            {"message": "Silence.", "type": "upstream_error", "param": None, "code": "upstream_timeout"},
        ),
    ],
)
def test_errors_are_openai_s_object(error: GatewayError, expected: dict[str, Any]) -> None:
    assert checked("ErrorResponse", json.loads(error_body(error))) == {"error": expected}


def test_details_stand_in_the_error_only_where_there_are_some() -> None:
    error = StructuredOutputFailed("No JSON.", text='{"a":\ud800')
    assert error.status == 502
    assert checked("ErrorResponse", json.loads(error_body(error))) == {
        "error": {
            "message": "No JSON.",
            "type": "upstream_error",
            "param": None,
            "code": "structured_output_failed",
            "details": {"text": '{"a":\ufffd'},
        }
    }
    assert "details" not in json.loads(error_body(GatewayError("Broken.")))["error"]


def test_a_long_answer_is_cut_in_the_details_of_an_error() -> None:
    assert StructuredOutputFailed("No JSON.", text="x" * 99_999 + "yz").details == {"text": "x" * 99_999 + "y"}


def test_an_error_frame_is_the_object_as_one_event() -> None:
    error = ModelNotFound("line\nbreak")
    assert Decoder().feed(error_frame(error)) == [error_body(error)]


def test_clients_are_told_not_to_repeat_what_was_repeated_already() -> None:
    assert StructuredOutputFailed("No JSON.", text="x").headers == {"x-should-retry": "false"}
