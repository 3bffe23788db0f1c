"""What an answer cost, said by the upstream or estimated."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from splitting import every_split, merged, run

from k2think.dialogue.events import Event, Finish, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStart, Usage
from k2think.dialogue.machine import Chain
from k2think.dialogue.prompt import Message, Prompt, ReasoningFormat, ToolCall
from k2think.inband.presentation import present
from k2think.inband.tokens import estimate_tokens
from k2think.inband.usage import UsageMeter, estimate_prompt

THINKING = "The user asks for a short greeting, so a friendly word or two will do; nothing has to be looked up. " * 3
ANSWER = "Hello! It is good to hear from you. What can I do for you today? " * 2
FINISH = Finish("stop")


def meter(prompt_tokens: int = 7) -> UsageMeter:
    return UsageMeter(lambda: prompt_tokens)


def usage(*events: Event) -> Usage:
    *_, last = run(meter(), events)
    assert isinstance(last, Usage)
    return last


EVENTS = st.one_of(
    st.builds(TextDelta, st.text(max_size=20)),
    st.builds(ReasoningDelta, st.text(max_size=20)),
    st.builds(ToolCallStart, st.just(0), st.just("call_1"), st.text(max_size=9)),
    st.builds(ToolCallDelta, st.just(0), st.text(max_size=20)),
    st.just(FINISH),
    st.builds(Usage, st.integers(0, 99), st.integers(0, 99), st.integers(-1, 200), st.integers(0, 99)),
)


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(EVENTS, max_size=12))
def test_every_event_passes_at_once_and_one_usage_comes_at_the_end(events: list[Event]) -> None:
    machine = meter()
    for event in events:
        assert list(machine.feed(event)) == ([] if isinstance(event, Usage) else [event])
    (last,) = machine.close()
    assert isinstance(last, Usage)
    assert 0 <= last.reasoning_tokens <= last.completion_tokens
    assert last.prompt_tokens > 0


def test_what_the_upstream_said_stands() -> None:
    said = Usage(11, 22, 3, 4)
    assert usage(ReasoningDelta(THINKING), TextDelta(ANSWER), FINISH, said) == said


def test_the_last_word_of_the_upstream_stands() -> None:
    assert usage(Usage(1, 1), TextDelta(ANSWER), Usage(11, 22, 3), FINISH) == Usage(11, 22, 3)


@pytest.mark.parametrize("zero", [Usage(0, 0), Usage(0, 0, 0)])
def test_zeros_are_no_word_of_the_upstream(zero: Usage) -> None:
    estimated = Usage(7, estimate_tokens(ANSWER), 0)
    assert usage(TextDelta(ANSWER), FINISH, zero) == estimated
    assert usage(TextDelta(ANSWER), Usage(11, 22, 3), FINISH, zero) == Usage(11, 22, 3)


def test_what_the_upstream_left_out_is_estimated() -> None:
    assert usage(TextDelta(ANSWER), FINISH, Usage(11, 0)) == Usage(11, estimate_tokens(ANSWER), 0)
    assert usage(TextDelta(ANSWER), FINISH, Usage(0, 22)) == Usage(7, 22, 0)


def test_thinking_is_part_of_the_completion() -> None:
    thinking, answer = estimate_tokens(THINKING), estimate_tokens(ANSWER)
    assert usage(ReasoningDelta(THINKING), TextDelta(ANSWER), FINISH) == Usage(7, thinking + answer, thinking)


def test_the_upstreams_completion_is_split_as_thinking_and_answer_are() -> None:
    assert usage(ReasoningDelta(ANSWER), TextDelta(ANSWER * 3), FINISH, Usage(11, 1000)).reasoning_tokens in range(
        240, 261
    )
    assert usage(ReasoningDelta(ANSWER), FINISH, Usage(11, 1000)) == Usage(11, 1000, 1000)
    assert usage(FINISH, Usage(11, 1000)) == Usage(11, 1000, 0)


def test_thinking_is_never_more_than_the_completion() -> None:
    assert usage(TextDelta("Hello"), FINISH, Usage(11, 22, 33)) == Usage(11, 22, 22)


def test_calls_are_part_of_the_completion() -> None:
    arguments = '{"city": "Zürich", "days": 3}'
    call: list[Event] = [ToolCallStart(0, "call_1", "weather"), *(ToolCallDelta(0, piece) for piece in arguments)]
    tokens = usage(*call, Finish("tool_calls")).completion_tokens
    assert tokens > estimate_tokens(arguments) + estimate_tokens("weather")
    assert usage(TextDelta(ANSWER), *call, FINISH).completion_tokens == pytest.approx(
        tokens + estimate_tokens(ANSWER), abs=2
    )


def test_nothing_at_all_still_has_a_usage() -> None:
    assert usage() == Usage(7, 0, 0)


@pytest.mark.parametrize(("events", "times"), [((), 1), ((Usage(11, 22),), 0), ((Usage(0, 22),), 1)])
def test_the_prompt_is_counted_only_if_the_upstream_did_not(events: tuple[Event, ...], times: int) -> None:
    asked: list[int] = []

    def prompt_tokens() -> int:
        asked.append(1)
        return 7

    run(UsageMeter(prompt_tokens), [TextDelta("a"), *events, FINISH])
    assert len(asked) == times


def test_the_cost_does_not_depend_on_how_the_text_was_cut() -> None:
    wanted = usage(ReasoningDelta(THINKING), TextDelta(ANSWER), FINISH)
    for pieces in every_split(ANSWER):
        assert usage(ReasoningDelta(THINKING), *map(TextDelta, pieces), FINISH) == wanted
    for pieces in every_split(THINKING):
        assert usage(*map(ReasoningDelta, pieces), TextDelta(ANSWER), FINISH) == wanted


@pytest.mark.parametrize("reasoning", ["parsed", "raw", "hidden"])
def test_thinking_costs_the_same_however_it_is_shown(reasoning: ReasoningFormat) -> None:
    chain = Chain(meter(), *present(reasoning))
    out = [*chain.feed_all([ReasoningDelta(THINKING), TextDelta(ANSWER), FINISH]), *chain.close()]
    assert merged(out)[-1] == usage(ReasoningDelta(THINKING), TextDelta(ANSWER), FINISH)
    assert merged(out)[-2] == FINISH


def test_a_prompt_costs_its_turns_and_what_stands_around_them() -> None:
    empty = estimate_prompt(Prompt("m", ()))
    one = estimate_prompt(Prompt("m", (Message("user", ANSWER),)))
    two = estimate_prompt(Prompt("m", (Message("user", ANSWER), Message("assistant", ANSWER))))
    assert 0 < empty < 10
    assert estimate_tokens(ANSWER) < one < estimate_tokens(ANSWER) + 10
    assert two - one == one - empty


def test_calls_of_earlier_turns_are_part_of_the_prompt() -> None:
    call = ToolCall("call_1", "weather", '{"city": "Zürich"}')
    without = estimate_prompt(Prompt("m", (Message("assistant", ""),)))
    with_call = estimate_prompt(Prompt("m", (Message("assistant", "", calls=(call,)),)))
    assert with_call - without > estimate_tokens(call.name) + estimate_tokens(call.arguments)
