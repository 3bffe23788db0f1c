"""What upstreams send, in every form, as events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k2think.dialogue.events import Event, Finish, ReasoningDelta, TextDelta, Usage
from k2think.errors import QuotaExceeded, RequestRefused, TaskAccepted, UpstreamError, UpstreamUnavailable
from k2think.upstreams.frames import FrameReader


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
    [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"), ("eos", "stop")],
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
