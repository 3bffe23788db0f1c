"""How an attempt's answer is read where nobody reads along; what is read is for the readers' own tests."""

from __future__ import annotations

import pytest

from k2think.dialogue.completion import Collector
from k2think.dialogue.events import Event, Finish, TextDelta, Usage
from k2think.dialogue.prompt import Message, Prompt, Sampling
from k2think.inband import emulation
from k2think.inband.emulation import Emulation

ANSWER: list[Event] = [*map(TextDelta, ["<think>", "R", " r", "</think>", "<answer>", "A a", " a", "</answer>"])]
ENDED: list[Event] = [*ANSWER, Finish("stop"), Usage(9, 6, 2)]


def question(*, live: bool = False, stop: tuple[str, ...] = ()) -> Prompt:
    return Prompt(model="m", messages=(Message("user", "Q"),), live=live, sampling=Sampling(stop=stop))


@pytest.mark.parametrize("at_most", [1, 2, 3, 5, 8, 10, 4096])
@pytest.mark.parametrize("together", [1, 3, 10])
def test_a_whole_answer_is_the_same_however_much_of_it_is_read_at_once(
    monkeypatch: pytest.MonkeyPatch, at_most: int, together: int
) -> None:
    monkeypatch.setattr(emulation, "MAX_UNREAD", at_most)
    reading = Emulation(question(), "present")
    collector = Collector()
    unread = 0
    for place in range(0, len(ENDED), together):
        batch = ENDED[place : place + together]
        unread += len(batch)
        given = reading.feed_all(batch)
        if unread < at_most:
            assert not given  # it waits
        else:
            unread = 0
        collector.feed_all(given)
    collector.feed_all(reading.close())
    completion = collector.completion()
    assert (completion.reasoning, completion.text, completion.finish_reason) == ("R r", "A a a", "stop")
    assert completion.usage == Usage(9, 6, 2)
    assert reading.observed == "present"


def test_a_stream_is_read_as_it_comes() -> None:
    reading = Emulation(question(live=True), "present")
    assert [len(reading.feed_all([event])) for event in ANSWER] == [0, 1, 1, 0, 0, 1, 1, 0]


def test_an_answer_that_a_word_may_end_is_read_as_it_comes() -> None:
    reading = Emulation(question(stop=("a a",)), "present")
    satisfied = []
    for event in ANSWER:
        reading.feed_all([event])
        satisfied.append(reading.satisfied)
    assert satisfied == [False] * 6 + [True, True]
