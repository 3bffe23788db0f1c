"""Stop sequences: where the answer ends, what is held back, and what it costs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from splitting import merged, outcomes, run

from k2think.dialogue.events import Event, Finish, FinishReason, ReasoningDelta, TextDelta, ToolCallStart, Usage
from k2think.inband.limits import StopReader

FINISH = Finish("stop")


def expected(text: str, stops: tuple[str, ...], after: list[Event]) -> list[Event]:
    """The definition, written as slowly and plainly as can be: look again after every character."""
    for end in range(1, len(text) + 1):
        endings = [stop for stop in stops if text[:end].endswith(stop)]
        if endings:
            return merged([TextDelta(text[: end - max(map(len, endings))]), FINISH])
    return merged([TextDelta(text), *after])


@pytest.mark.parametrize(
    ("stops", "text", "seen"),
    [
        (("END",), "one END two END", "one "),
        (("\n\n",), "a\nb\n\nc", "a\nb"),
        (("ab", "abc"), "xabc", "x"),
        (("abc", "ab"), "xabc", "x"),
        (("bc", "abcd"), "abcd", "a"),  # complete first, though the other began earlier
        (("ab", "xab"), "-xab-", "-"),  # complete with the same character: the longer
        (("aab",), "aaab", "a"),
        (("abab",), "abaabab", "aba"),
        (("ababac", "babad"), "abababac", "ab"),
        (("aabaaac",), "aabaaabaaac", "aaba"),
        (("é世", "世界"), "café, é世界", "café, "),
        (("\U0001f642!",), "\U0001f642\U0001f642!", "\U0001f642"),
        (("x",), "x", ""),
        (("abc",), "abc", ""),
    ],
)
def test_the_answer_ends_before_the_first_complete_sequence(stops: tuple[str, ...], text: str, seen: str) -> None:
    wanted = merged([TextDelta(seen), FINISH])
    assert all(outcome == wanted for outcome in outcomes(lambda: StopReader(stops), text, [Finish("length")]))
    assert expected(text, stops, []) == wanted


@pytest.mark.parametrize("text", ["", "plain", "ab ab ab", "aab", "EN EN E", "x END-less? EN"])
def test_an_answer_without_a_sequence_comes_out_whole(text: str) -> None:
    wanted = merged([TextDelta(text), FINISH, Usage(1, 2)])
    stops = ("END!", "abc", "aabb")
    assert all(outcome == wanted for outcome in outcomes(lambda: StopReader(stops), text, [FINISH, Usage(1, 2)]))


@settings(deadline=None)  # a busy machine is no fault
@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=4).map(tuple),
    pieces=st.lists(st.text("abc", max_size=8), max_size=8),
)
def test_any_sequences_in_any_text_however_cut(stops: tuple[str, ...], pieces: list[str]) -> None:
    outcome = run(StopReader(stops), [*map(TextDelta, pieces), Finish("length")])
    assert outcome == expected("".join(pieces), stops, [Finish("length")])


@settings(deadline=None)  # a busy machine is no fault
@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4).map(tuple),
    pieces=st.lists(st.text("abc", max_size=5), max_size=8),
)
def test_only_what_may_become_a_sequence_is_held_back(stops: tuple[str, ...], pieces: list[str]) -> None:
    reader = StopReader(stops)
    text, seen = "", ""
    for piece in pieces:
        text += piece
        seen += "".join(event.text for event in reader.feed(TextDelta(piece)) if isinstance(event, TextDelta))
        if reader.done:
            break
        beginnings = [text[place:] for place in range(len(text)) if any(s.startswith(text[place:]) for s in stops)]
        assert text == seen + max(beginnings, key=len, default="")


@pytest.mark.parametrize("event", [FINISH, Usage(1, 2), ReasoningDelta("r"), ToolCallStart(0, "call_1", "f")])
def test_held_text_goes_out_before_any_other_event(event: Event) -> None:
    reader = StopReader(("END",))
    assert reader.feed(TextDelta("x EN")) == (TextDelta("x "),)
    assert list(reader.feed(event)) == [TextDelta("EN"), event]
    assert list(reader.feed(TextDelta("D E"))) == [TextDelta("D ")]
    assert not reader.done


def test_held_text_goes_out_at_the_end() -> None:
    reader = StopReader(("END",))
    assert not reader.feed(TextDelta("EN"))
    assert list(reader.close()) == [TextDelta("EN")]


def test_nothing_comes_after_a_sequence() -> None:
    reader = StopReader(("END",))
    assert not reader.done
    assert list(reader.feed(TextDelta("a END b"))) == [TextDelta("a "), FINISH]
    assert reader.done
    later = [TextDelta("c"), ReasoningDelta("r"), Finish("length"), Usage(1, 2)]
    assert not [out for event in later for out in reader.feed(event)]
    assert not reader.close()


def test_the_thinking_is_not_searched() -> None:
    reader = StopReader(("END",))
    assert reader.feed(ReasoningDelta("an END")) == (ReasoningDelta("an END"),)
    assert not reader.done


@pytest.mark.parametrize(("called", "reason"), [(False, "stop"), (True, "tool_calls")])
def test_an_answer_with_calls_that_is_stopped_still_asks_for_their_results(called: bool, reason: FinishReason) -> None:
    reader = StopReader(("END",))
    if called:
        reader.feed(ToolCallStart(0, "call_1", "f"))
    assert list(reader.feed(TextDelta("END"))) == [Finish(reason)]


def test_a_delta_that_cannot_matter_is_passed_on_as_it_is() -> None:
    reader = StopReader(("END", "\n\n"))
    delta = TextDelta("some words")
    (out,) = reader.feed(delta)
    assert out is delta


def test_empty_sequences_are_none() -> None:
    assert run(StopReader(("", "b")), [TextDelta("ab")]) == [TextDelta("a"), FINISH]
    assert run(StopReader(("",)), [TextDelta("ab")]) == [TextDelta("ab")]


@pytest.mark.parametrize("size", [1, 1000])
def test_a_long_sequence_that_nearly_comes_again_and_again_holds_back_no_more_than_itself(size: int) -> None:
    length = 8_000
    reader = StopReader(("a" * length + "b", "a" * (length // 2) + "c"))
    out = [event for _ in range(4 * length // size) for event in reader.feed(TextDelta("a" * size))]
    assert merged(out) == [TextDelta("a" * 3 * length)]
    assert run(reader, [FINISH]) == [TextDelta("a" * length), FINISH]
