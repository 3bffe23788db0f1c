"""The three ways of showing the thinking."""

from __future__ import annotations

import pytest
from splitting import every_split, run

from k2think.dialogue.events import Event, Finish, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStart, Usage
from k2think.dialogue.machine import Chain
from k2think.dialogue.prompt import ReasoningFormat
from k2think.inband.presentation import present

FINISH = Finish("stop")
USAGE = Usage(1, 2)


def shown(reasoning: ReasoningFormat, *events: Event) -> list[Event]:
    chain = Chain(*present(reasoning))
    out: list[Event] = []
    for event in events:
        out += chain.feed(event)
    return [*out, *chain.close()]


def test_parsed_thinking_needs_no_machine() -> None:
    assert present("parsed") == ()
    events = (ReasoningDelta("r"), TextDelta("a"), FINISH, USAGE)
    assert shown("parsed", *events) == list(events)


def test_hidden_thinking_is_left_out_and_all_else_stays() -> None:
    call = ToolCallStart(0, "call_1", "f")
    assert shown(
        "hidden", ReasoningDelta("r"), TextDelta("a"), ReasoningDelta("s"), call, ToolCallDelta(0, "{}"), FINISH, USAGE
    ) == [TextDelta("a"), call, ToolCallDelta(0, "{}"), FINISH, USAGE]


@pytest.mark.parametrize("thinking", list(every_split("a < b\n")))
@pytest.mark.parametrize("answer", list(every_split("Yes.")))
def test_raw_thinking_stands_in_tags_before_the_answer_however_it_is_cut(
    thinking: list[str], answer: list[str]
) -> None:
    (machine,) = present("raw")
    events: list[Event] = [*map(ReasoningDelta, thinking), *map(TextDelta, answer), FINISH, USAGE]
    assert run(machine, events) == [TextDelta("<think>a < b\n</think>\nYes."), FINISH, USAGE]


def test_raw_tags_are_written_while_the_thinking_goes_on() -> None:
    """Nothing is held back: the opener leaves with the first piece, the closer with the answer's first."""
    (machine,) = present("raw")
    assert machine.feed(ReasoningDelta("a")) == (TextDelta("<think>a"),)
    assert machine.feed(ReasoningDelta("b")) == (TextDelta("b"),)
    assert machine.feed(TextDelta("c")) == (TextDelta("</think>\nc"),)
    assert machine.feed(TextDelta("d")) == (TextDelta("d"),)


@pytest.mark.parametrize("event", [FINISH, USAGE, ToolCallStart(0, "call_1", "f")])
def test_raw_thinking_is_closed_before_any_event_that_is_no_thinking(event: Event) -> None:
    assert shown("raw", ReasoningDelta("r"), event) == [TextDelta("<think>r"), TextDelta("</think>\n"), event]


def test_raw_thinking_that_breaks_off_is_closed_at_the_end() -> None:
    assert shown("raw", ReasoningDelta("r")) == [TextDelta("<think>r"), TextDelta("</think>\n")]


def test_raw_thinking_that_was_closed_is_not_closed_again() -> None:
    assert shown("raw", ReasoningDelta("r"), FINISH) == [TextDelta("<think>r"), TextDelta("</think>\n"), FINISH]


def test_each_block_of_raw_thinking_gets_its_own_tags() -> None:
    (machine,) = present("raw")
    events: list[Event] = [ReasoningDelta("r"), TextDelta("a"), ReasoningDelta("s"), TextDelta("b")]
    assert run(machine, events) == [TextDelta("<think>r</think>\na<think>s</think>\nb")]


def test_an_answer_without_thinking_has_no_tags() -> None:
    assert shown("raw", ReasoningDelta(""), TextDelta("a"), FINISH) == [TextDelta("a"), FINISH]


def test_an_empty_piece_of_the_answer_does_not_cut_the_raw_thinking_in_two() -> None:
    (machine,) = present("raw")
    events: list[Event] = [ReasoningDelta("r"), TextDelta(""), ReasoningDelta("s"), TextDelta("a")]
    assert run(machine, events) == [TextDelta("<think>rs</think>\na")]
