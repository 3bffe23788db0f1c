"""What upstreams send, in every form, as events."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from splitting import every_split, merged

from k2think.dialogue.events import Event, Finish, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStart, Usage
from k2think.errors import QuotaExceeded, RequestRefused, TaskAccepted, UpstreamError, UpstreamUnavailable
from k2think.upstreams.frames import MAX_CALLS, FrameReader


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    frame = {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, **more}]}
    frame["choices"][0]["finish_reason"] = finish  # type: ignore[index]
    return json.dumps(frame).encode()


def read(*frames: Any) -> list[Event]:
    reader = FrameReader()
    data = [frame if isinstance(frame, bytes) else json.dumps(frame).encode() for frame in frames]
    return [event for one in data for event in reader.feed(one)] + reader.close()


STOP = chunk({}, "stop")


def test_deltas_become_events_in_their_order() -> None:
    assert read(
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": "R"}),
        chunk({"content": "A"}),
        STOP,
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
        b"[DONE]",
    ) == [ReasoningDelta("R"), TextDelta("A"), Finish("stop"), Usage(1, 2)]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_thinking_is_understood_under_each_of_its_names(field: str) -> None:
    assert read(chunk({field: "R", "content": None}), STOP)[0] == ReasoningDelta("R")


def test_thinking_that_is_sent_under_two_names_is_taken_once() -> None:
    assert read(chunk({"reasoning_content": "R", "reasoning": "R"}), STOP) == [ReasoningDelta("R"), Finish("stop")]


@pytest.mark.parametrize(
    "frame",
    [
        {"sources": [{"source": {"id": "1"}}]},
        {"event": {"type": "status", "data": {}}},
        {"selected_model_id": "x"},
        {"chat_id": "x"},
        {"choices": [], "usage": None},
        {"choices": [{"index": 1, "delta": {"content": "another answer"}}]},
    ],
    ids=lambda frame: next(iter(frame)),
)
def test_frames_without_anything_of_the_answer_are_passed_over(frame: dict[str, Any]) -> None:
    assert read(frame, chunk({"content": "A"}), STOP) == [TextDelta("A"), Finish("stop")]


@pytest.mark.parametrize(
    ("reason", "given"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("eos", "stop"),
        # Without a call: a client would wait for one.
        ("tool_calls", "stop"),
        ("function_call", "stop"),
    ],
)
def test_finish_reasons_are_openais(reason: str, given: str) -> None:
    assert read(chunk({}, reason)) == [Finish(given)]  # type: ignore[arg-type]


def test_usage_tells_thinking_and_cached_tokens_where_upstream_does() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 7,
        "completion_tokens_details": {"reasoning_tokens": 5},
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    assert read(STOP, {"choices": [], "usage": usage})[-1] == Usage(9, 7, reasoning_tokens=5, cached_tokens=4)


def test_a_usage_of_another_form_does_no_harm() -> None:
    assert read(STOP, {"choices": [], "usage": {"prompt_tokens": "many"}}) == [Finish("stop")]


def test_snapshots_give_what_is_new_in_each() -> None:
    details = '<details type="reasoning" done="{}"{}>\n<summary>{}</summary>\n{}\n</details>'
    frames = [
        {"content": details.format("false", "", "Thinking…", "> We need")},
        {"content": details.format("false", "", "Thinking…", "> We need to add\n> two")},
        {"content": details.format("true", ' duration="3"', "Thought for 3 seconds", "> We need to add\n> two")},
        {"content": details.format("true", ' duration="3"', "Thought", "> We need to add\n> two") + "\n<answer>4"},
        {"done": True, "content": details.format("true", "", "T", "> We need to add\n> two") + "\n<answer>4</answer>"},
    ]
    assert read(*frames) == [
        ReasoningDelta("We need"),
        ReasoningDelta(" to add\ntwo"),
        TextDelta("<answer>4"),
        TextDelta("</answer>"),
        Finish("stop"),
    ]


def test_snapshots_of_plain_text_work_too_and_done_ends_them() -> None:
    frames = [{"content": "<think>a"}, {"content": "<think>ab</think>c"}, b"[DONE]"]
    assert read(*frames) == [TextDelta("<think>a"), TextDelta("b</think>c"), Finish("stop")]


def test_a_snapshot_that_takes_something_back_adds_nothing() -> None:
    frames = [{"content": "abc"}, {"content": "ab"}, {"content": "abcd"}, {"done": True, "content": "abcd"}]
    assert read(*frames) == [TextDelta("abc"), TextDelta("d"), Finish("stop")]


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        ({"error": {"message": "boom"}}, UpstreamUnavailable),
        ({"error": "boom"}, UpstreamUnavailable),
        ({"detail": "boom"}, UpstreamUnavailable),
        ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, QuotaExceeded),
        ({"error": {"message": "too long", "code": "context_length_exceeded"}}, RequestRefused),
        ({"status": True, "task_id": "x"}, TaskAccepted),
        ({"status": True, "task_ids": ["x"], "chat_id": "y"}, TaskAccepted),
        (b"null", UpstreamUnavailable),
        (b"{broken", UpstreamUnavailable),
        (chunk({}, "error"), UpstreamUnavailable),
    ],
)
def test_an_error_inside_a_200_is_an_error(frame: Any, kind: type[UpstreamError]) -> None:
    with pytest.raises(UpstreamError) as raised:
        read(frame)
    assert type(raised.value) is kind


@pytest.mark.parametrize("ending", [[], [b"[DONE]"]])
def test_an_end_without_a_finish_reason_is_no_end(ending: list[bytes]) -> None:
    with pytest.raises(UpstreamUnavailable, match="finish_reason"):
        read(chunk({"content": "A"}), *ending)


def test_a_whole_completion_is_read_like_a_stream() -> None:
    body = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "A"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
        "sources": [],
    }
    reader = FrameReader()
    assert reader.feed_whole(json.dumps(body, indent=2).encode()) == [TextDelta("A"), Finish("stop"), Usage(1, 2)]


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"[]", b'{"status":true}', b"<html>"])
def test_a_whole_answer_that_is_no_completion_is_an_error(body: bytes) -> None:
    with pytest.raises(UpstreamUnavailable):
        FrameReader().feed_whole(body)


def test_events_parted_by_a_single_line_end_are_frames_each() -> None:
    assert read(chunk({"content": "A"}) + b"\n" + STOP) == [TextDelta("A"), Finish("stop")]


def test_text_after_the_finish_is_not_part_of_the_answer() -> None:
    assert read(STOP, chunk({"content": "more"})) == [Finish("stop")]


def test_half_an_emoji_is_shown_as_unreadable_and_a_whole_one_stays() -> None:
    half = b'{"choices":[{"delta":{"content":"a\\ud83d b\\ude42 \\ud83d\\ude42"}}]}'
    assert read(half, STOP)[0] == TextDelta("a\ufffd b\ufffd 🙂")


@pytest.mark.parametrize("name", ["error", "detail", "anything", "usage"])
def test_json_nested_without_end_is_a_failure_of_the_upstream_and_not_of_ours(name: str) -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(UpstreamError):
        FrameReader().feed(b'{"%s": %s}' % (name.encode(), deep))


# Calls

CALLS = Finish("tool_calls")


def call(index: int | None = None, id_: str | None = None, name: Any = None, arguments: Any = None) -> dict[str, Any]:
    fields = {"index": index, "id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
    return {key: value for key, value in fields.items() if value is not None}


def calls(*entries: Any, finish: str | None = None) -> bytes:
    return chunk({"content": None, "tool_calls": list(entries)}, finish)


def whole(message: dict[str, Any], finish: str = "tool_calls") -> list[Event]:
    reader = FrameReader()
    body = {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}
    return reader.feed_whole(json.dumps(body).encode()) + reader.close()


@pytest.mark.parametrize("repeated", [{}, {"name": "f"}, {"id_": "c1", "name": "f"}, {"id_": "c1"}, {"id_": "another"}])
def test_a_call_is_the_same_however_its_arguments_are_cut_and_whatever_is_repeated(repeated: dict[str, str]) -> None:
    arguments = '{"city": "Zürich \\ud83d\\ude42 \\"x\\""}'
    for pieces in every_split(arguments):
        frames = [calls(call(0, **repeated, arguments=piece)) for piece in pieces]
        events = read(calls(call(0, "c1", "f", "")), *frames, chunk({}, "tool_calls"))
        assert merged(events) == [ToolCallStart(0, "c1", "f"), ToolCallDelta(0, arguments), CALLS]


def test_thinking_and_text_may_stand_before_calls() -> None:
    events = read(chunk({"reasoning": "R", "content": "T", "tool_calls": [call(0, "c", "f", "{}")]}, "tool_calls"))
    assert events == [ReasoningDelta("R"), TextDelta("T"), ToolCallStart(0, "c", "f"), ToolCallDelta(0, "{}"), CALLS]


def test_pieces_of_several_calls_are_told_apart_by_their_index_and_calls_are_counted_anew() -> None:
    assert read(
        calls(call(3, "c", "f", "{"), call(1, "d", "g", "[")),
        calls(call(1, arguments="]")),
        calls(call(3, arguments="}")),
        chunk({}, "tool_calls"),
    ) == [
        *(ToolCallStart(0, "c", "f"), ToolCallDelta(0, "{"), ToolCallStart(1, "d", "g"), ToolCallDelta(1, "[")),
        *(ToolCallDelta(1, "]"), ToolCallDelta(0, "}"), CALLS),
    ]


def test_calls_that_all_have_index_0_are_told_apart_by_their_ids() -> None:
    frames = (calls(call(0, "c", "f", "{}")), calls(call(0, "d", "f", "{}")))
    assert read(*frames, STOP) == [
        *(ToolCallStart(0, "c", "f"), ToolCallDelta(0, "{}"), ToolCallStart(1, "d", "f"), ToolCallDelta(1, "{}")),
        CALLS,
    ]


def test_the_calls_of_a_whole_answer_are_complete_whatever_their_index() -> None:
    events = whole({"tool_calls": [call(0, None, "f", "{}"), call(0, None, "f", "{}")]})
    starts = [event for event in events if isinstance(event, ToolCallStart)]
    assert [(start.index, start.name) for start in starts] == [(0, "f"), (1, "f")]


def test_an_id_that_comes_late_begins_no_other_call() -> None:
    frames = (calls(call(0, None, "f", "{")), calls(call(0, "c", "f", "}")), calls(call(0, "d", "f")))
    start, *rest = read(*frames, STOP)
    assert isinstance(start, ToolCallStart)
    assert rest == [ToolCallDelta(0, "{"), ToolCallDelta(0, "}"), ToolCallStart(1, "d", "f"), CALLS]


def test_calls_without_an_index_come_in_their_order() -> None:
    both = [
        *(ToolCallStart(0, "c", "f"), ToolCallDelta(0, "{}"), ToolCallStart(1, "d", "g"), ToolCallDelta(1, "{}")),
        CALLS,
    ]
    entries = (call(None, "c", "f", "{}"), call(None, "d", "g", "{}"))
    assert read(calls(*entries, finish="stop")) == both
    assert read(*map(calls, entries), STOP) == both
    assert whole({"content": None, "tool_calls": entries}) == both
    pieces = ("c", "f", "{"), (None, None, "}"), ("d", "g", "{"), ("d", "g", "}")
    assert merged(read(*(calls(call(None, *piece)) for piece in pieces), STOP)) == both


@pytest.mark.parametrize("id_", [None, "", "c"])
def test_every_call_of_an_answer_has_an_id_of_its_own(id_: str | None) -> None:
    entries = [call(None, id_, "f", "{}") for _ in range(3)]
    for events in (whole({"tool_calls": entries}), read(calls(*entries), STOP)):
        ids = [event.id for event in events if isinstance(event, ToolCallStart)]
        assert len(set(ids)) == 3
        assert all(re.fullmatch("call_[0-9a-f]{24}", made) for made in ids[bool(id_) :])
        assert not id_ or ids[0] == id_


@pytest.mark.parametrize("arguments", [None, ""])
def test_a_call_without_arguments_is_a_call(arguments: str | None) -> None:
    assert read(calls(call(0, "c", "f", arguments)), STOP) == [ToolCallStart(0, "c", "f"), CALLS]


@pytest.mark.parametrize("arguments", [{}, {"a": [1, None], "b": 12345678901234567890123, "c": "ü🙂"}, [1]])
def test_arguments_that_are_no_text_become_the_json_they_are(arguments: Any) -> None:
    for events in (
        whole({"tool_calls": [call(0, "c", "f", arguments)]}),
        read(calls(call(0, "c", "f", arguments)), STOP),
    ):
        text = "".join(event.arguments for event in events if isinstance(event, ToolCallDelta))
        assert json.loads(text) == arguments


def test_the_call_of_old_is_read_as_well() -> None:
    frames: list[dict[str, Any]] = [{"name": "f", "arguments": ""}, {"arguments": "{"}, {"name": "f", "arguments": "}"}]
    start, *rest = merged(read(*(chunk({"function_call": frame}) for frame in frames), chunk({}, "function_call")))
    assert isinstance(start, ToolCallStart)
    assert (start.index, start.name, rest) == (0, "f", [ToolCallDelta(0, "{}"), CALLS])
    assert whole({"function_call": {"name": "f", "arguments": "{}"}}, "function_call")[1:] == rest


def test_a_call_that_is_sent_in_both_forms_is_one() -> None:
    both = {"tool_calls": [call(0, "c", "f", "{}")], "function_call": {"name": "f", "arguments": "{}"}}
    assert read(chunk(both), STOP) == [ToolCallStart(0, "c", "f"), ToolCallDelta(0, "{}"), CALLS]


@pytest.mark.parametrize(
    "nothing",
    [
        {"tool_calls": None, "function_call": None},
        {"tool_calls": []},
        {"tool_calls": [None]},
        {"tool_calls": [{}]},
        {"tool_calls": [{"index": 0, "id": "c", "function": None}]},
        {"tool_calls": [{"index": 0, "function": {"name": "", "arguments": ""}}]},
        {"function_call": {"name": None, "arguments": None}},
    ],
)
def test_empty_forms_of_calls_are_no_calls(nothing: dict[str, Any]) -> None:
    assert read(chunk({"content": "A", **nothing}), STOP) == [TextDelta("A"), Finish("stop")]


@pytest.mark.parametrize(
    ("reason", "given"),
    [("stop", CALLS), ("eos", CALLS), ("tool_calls", CALLS), ("function_call", CALLS), ("length", Finish("length"))],
)
def test_an_answer_with_calls_ends_with_calls_unless_it_was_cut(reason: str, given: Finish) -> None:
    assert read(calls(call(0, "c", "f", "{}"), finish=reason))[-1] == given


def test_calls_after_the_finish_are_not_part_of_the_answer() -> None:
    assert read(STOP, calls(call(0, "c", "f", "{}"))) == [Finish("stop")]


@pytest.mark.parametrize(
    "entry",
    [call(0, "c", None, "{}"), call(None, None, None, "{}"), call(0, "c", "f", "{}") | {"function": 5}, "call"],
)
def test_what_cannot_be_read_as_a_call_is_an_error(entry: Any) -> None:
    with pytest.raises(UpstreamUnavailable):
        read(calls(entry), STOP)


@pytest.mark.parametrize("arguments", [b'"\xff"', b'{"a":"\xff"}', b"[" * 100_000 + b"]" * 100_000])
def test_arguments_that_are_no_json_text_are_an_error(arguments: bytes) -> None:
    frame = b'{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":%s}}]}}]}' % arguments
    with pytest.raises(UpstreamUnavailable):
        read(frame, STOP)


def test_half_an_emoji_in_arguments_is_shown_as_unreadable() -> None:
    frame = b'{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":%s}}]}}]}'
    assert read(frame % b'"a\\ud83d"', STOP)[1] == ToolCallDelta(0, "a\ufffd")
    assert read(frame % b'{"a":"\\ud83d"}', STOP)[1] == ToolCallDelta(0, '{"a":"\\ufffd"}')


@pytest.mark.parametrize("numbered", [True, False])
def test_calls_without_end_are_cut_off(numbered: bool) -> None:
    entries = [call(n if numbered else None, None, "f", "{}") for n in range(MAX_CALLS + 9)]
    late = calls(call(MAX_CALLS + 1 if numbered else None, None, None, "more"))
    for events in (read(calls(*entries), late, STOP), read(*map(calls, entries), late, STOP)):
        assert sum(isinstance(event, ToolCallStart) for event in events) == MAX_CALLS
        assert sum(isinstance(event, ToolCallDelta) for event in events) == MAX_CALLS


@given(
    st.lists(st.tuples(st.sampled_from(["f", "g"]), st.lists(st.text(max_size=3), max_size=4)), max_size=4),
    st.sampled_from(["once", "each time"]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_whatever_the_order_in_which_pieces_come_each_call_gets_its_own(
    made: list[tuple[str, list[str]]], named: str, with_ids: bool, random: Any
) -> None:
    def entry(number: int, place: int, piece: str) -> dict[str, Any]:
        first = place == 0
        name = made[number][0] if first or named == "each time" else None
        return call(number, f"c{number}" if with_ids and first else None, name, piece)

    queues = [
        [entry(n, place, piece) for place, piece in enumerate(["", *pieces])] for n, (_, pieces) in enumerate(made)
    ]
    heads = [queue.pop(0) for queue in queues]
    turns = [number for number, queue in enumerate(queues) for _ in queue]
    random.shuffle(turns)
    events = read(*map(calls, heads), *(calls(queues[number].pop(0)) for number in turns), STOP)
    starts = [event for event in events if isinstance(event, ToolCallStart)]
    assert [start.name for start in starts] == [name for name, _ in made]
    assert not with_ids or [start.id for start in starts] == [f"c{n}" for n in range(len(made))]
    for number, (_, pieces) in enumerate(made):
        got = [event.arguments for event in events if isinstance(event, ToolCallDelta) and event.index == number]
        assert "".join(got) == "".join(pieces)


FRAMES = [
    chunk({"content": "one"}),
    chunk({"content": " two"}),
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "R"}),
    chunk({"content": "A", "reasoning": "R"}),
    chunk({"content": "x"}, index=1),
    chunk({"content": "half"}).replace(b"half", rb"\ud83d"),
    chunk({"content": "last"}, "stop"),
    json.dumps({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}).encode(),
    chunk({"content": "paid"})[:-1] + b', "usage": {"prompt_tokens": 1, "completion_tokens": 2}}',
    json.dumps({"sources": []}).encode(),
    json.dumps({"error": {"message": "broken"}}).encode(),
    b"null",
    b"{",
    b"[DONE]",
    b"",
    chunk({"content": "a"}) + b" " + chunk({"content": "b"}),
    chunk({"content": "a"}) + b"\n" + chunk({"content": "b"}),
]


@given(st.lists(st.sampled_from(FRAMES[:2]) | st.sampled_from(FRAMES), max_size=12))
def test_frames_that_come_together_are_read_as_if_they_came_one_by_one(frames: list[bytes]) -> None:
    alone, singles = FrameReader(), list[Event]()
    together, batch = FrameReader(), list[Event]()
    failure: str | None = None
    try:
        for frame in frames:
            singles += alone.feed(frame)
    except UpstreamError as error:
        failure = error.message
    if failure is None:
        together.feed_all(frames, batch)
    else:
        with pytest.raises(UpstreamError) as caught:
            together.feed_all(frames, batch)
        assert caught.value.message == failure
    assert batch == singles
    assert together.finished == alone.finished
