"""What holds for every text, however strange: one outcome for all cuts, nothing lost or invented, little held."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from splitting import every_split, merged, run

from k2think.dialogue.events import Event, Finish, ReasoningDelta, TextDelta, Usage
from k2think.dialogue.machine import Chain
from k2think.inband import outlet, parts
from k2think.inband.outlet import MAX_BLANKS
from k2think.inband.parts import Opener, Parter
from k2think.inband.reasoning import ReasoningReader
from k2think.inband.scanner import MAX_ATTRIBUTES, Tag
from k2think.inband.usage import UsageMeter

OPENERS: tuple[Opener, ...] = ("present", "implied", "undecided")
OPENER = st.sampled_from(OPENERS)
TAGS = [
    "<think>",
    "</think>",
    "<think_fast>",
    "</think_faster>",
    "<ifm|think>",
    '<think duration="12">',
    "<answer>",
    "</answer>",
    "<ifm|answer>",
    "</ifm|answer>",
]
WORDS = ["a", "b", "word", " ", "  ", "\n", "\n\n", "`", "``", "```", "~~~", '"', "'", "> "]
FOLDED = ['<details type="reasoning" done="true">', "</details>", "<summary>", "</summary>", "<details>"]
TORN = ["<", ">", "</", "<thi", "nk>", "<ans", "wer>", "<details ", ' type="reasoning">']

texts = st.lists(st.sampled_from(TAGS + WORDS), max_size=30).map("".join)
blanks = st.sampled_from(["", "\n", " \n\n", " " * 70])
words = st.lists(st.sampled_from(["a", "b ", "c\n", 'd "', "e '", "f`", "~~~g", " ", "h" + " " * 70]), max_size=3).map(
    "".join
)
strange_texts = st.lists(st.sampled_from(TAGS + WORDS + FOLDED + TORN), max_size=30).map("".join)


def pieces_of(text: str, places: Sequence[int]) -> list[TextDelta]:
    cuts = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [TextDelta(text[start:end]) for start, end in pairwise(cuts)]


def bare(text: str) -> str:
    """A text without its tags and blanks. No tag of `TAGS` can come about by taking another one out."""
    return re.sub("|".join(map(re.escape, TAGS)) + r"|\s", "", text)


def words_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta | ReasoningDelta))


@settings(deadline=None, max_examples=300)
@given(
    text=strange_texts,
    opener=OPENER,
    places=st.lists(st.integers(0, 250), max_size=12),
    reads=st.lists(st.integers(1, 9), max_size=6),
)
def test_the_outcome_does_not_depend_on_what_one_read_brings(
    text: str, opener: Opener, places: list[int], reads: list[int]
) -> None:
    """Also the usage does not, which is behind the reader in every chain."""
    pieces: list[Event] = [*pieces_of(text, places), Finish("stop"), Usage(1, 0)]
    one_by_one = Chain(ReasoningReader(opener), UsageMeter(lambda: 1))
    together = Chain(ReasoningReader(opener), UsageMeter(lambda: 1))
    out: list[Event] = []
    rest = iter(pieces)
    for count in [*reads, len(pieces)]:
        out += together.feed_all(list(islice(rest, count)))
    assert merged([*out, *together.close()]) == run(one_by_one, pieces)


@settings(deadline=None, max_examples=300)
@given(text=strange_texts, opener=OPENER, places=st.lists(st.integers(0, 250), max_size=6))
@example(text="`</think>`\n<think>a <think>", opener="undecided", places=[])
def test_the_outcome_of_any_text_does_not_depend_on_its_cuts(text: str, opener: Opener, places: list[int]) -> None:
    whole = run(ReasoningReader(opener), [TextDelta(text)])
    assert run(ReasoningReader(opener), map(TextDelta, text)) == whole
    assert run(ReasoningReader(opener), pieces_of(text, places)) == whole


@settings(deadline=None, max_examples=300)
@given(text=strange_texts, opener=OPENER, places=st.lists(st.integers(0, 250), max_size=6), bound=st.integers(0, 40))
def test_the_bounds_of_what_is_held_do_not_depend_on_cuts_either(
    text: str, opener: Opener, places: list[int], bound: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "MAX_SUSPENDED", bound)
        patch.setattr(parts, "MAX_UNDECIDED", 2 * bound)
        patch.setattr(outlet, "MAX_BLANKS", bound // 8)
        whole = run(ReasoningReader(opener), [TextDelta(text)])
        assert run(ReasoningReader(opener), map(TextDelta, text)) == whole
        assert run(ReasoningReader(opener), pieces_of(text, places)) == whole


@settings(deadline=None, max_examples=300)
@given(text=texts, opener=OPENER, bound=st.sampled_from([25, 60, 1000]))
def test_nothing_is_lost_and_nothing_invented(text: str, opener: Opener, bound: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "MAX_SUSPENDED", bound)
        out = run(ReasoningReader(opener), [TextDelta(text)])
    assert bare(words_of(out)) == bare(text)
    # Also of tags and blanks nothing comes that was not there, and in no other order.
    rest = iter(text)
    assert all(character in rest for character in words_of(out))


@settings(deadline=None)
@given(text=st.text("ab <>\n/`~'\"|_", max_size=40), places=st.lists(st.integers(0, 40), max_size=4))
def test_a_text_without_tags_is_the_answer_to_the_letter(text: str, places: list[int]) -> None:
    openers: tuple[Opener, ...] = ("present", "undecided")
    for opener in openers:
        assert run(ReasoningReader(opener), pieces_of(text, places)) == merged([TextDelta(text)])


@settings(deadline=None)
@given(thinking=st.text("ab\n `~", max_size=20), answer=st.text("ab\n ~.", max_size=20), wrapped=st.booleans())
def test_thinking_and_answer_come_back_as_they_were_written(thinking: str, answer: str, wrapped: bool) -> None:
    text = f"<think>\n{thinking}\n</think>\n" + (f"<answer>{answer}</answer>\n" if wrapped else answer)
    blanks = " \t\r\n"
    wanted: list[Event] = [
        ReasoningDelta(thinking.strip(blanks)),
        TextDelta(answer.strip(blanks) if wrapped else answer.lstrip(blanks)),
    ]
    for opener in OPENERS:
        assert run(ReasoningReader(opener), [TextDelta(text)]) == merged(wanted)


@settings(deadline=None, max_examples=1000)
@example(lead="", parts=("", "a", "", 'b "'), rest=['"', "c"], opener="present", native=False)
@example(lead="", parts=("", "a", "", "b"), rest=["~~~", "\n", "<think>"], opener="present", native=False)
@example(lead="", parts=("", "a", "", "b"), rest=["</think>", "c"], opener="present", native=False)
@example(lead="", parts=("", "a" + " " * MAX_BLANKS + " ", "", "b"), rest=[], opener="present", native=False)
@example(lead="", parts=("", "a", "", "b" + " " * MAX_BLANKS + " "), rest=["c"], opener="present", native=False)
@given(
    lead=st.sampled_from(["", "A ", "<think>"]),
    parts=st.tuples(blanks, words, blanks, words),
    rest=st.lists(st.sampled_from(TAGS + WORDS), max_size=6),
    opener=OPENER,
    native=st.booleans(),
)
def test_an_answer_that_comes_whole_is_read_as_letter_by_letter(
    lead: str, parts: tuple[str, str, str, str], rest: list[str], opener: Opener, native: bool
) -> None:
    before, thinking, between, answer = parts
    text = f"{before}<think>{thinking}</think>{between}<answer>{answer}</answer>"
    begin: list[Event] = [ReasoningDelta("N")] if native else []
    outcomes = []
    for pieces in ([*lead, text, *rest], "".join([lead, text, *rest])):
        reader = ReasoningReader(opener)
        outcomes.append((run(reader, [*begin, *map(TextDelta, pieces)]), reader.observed))
    assert outcomes[0] == outcomes[1]


HELD = re.compile(rf"\s*((</answer>\s*)?[`\"']?<[^<>]{{0,{MAX_ATTRIBUTES + 20}}}>?|>)?")


@pytest.mark.parametrize(
    "text",
    [
        "<think>R r.\n\nR </think>\n<answer>A a\n```py\nif a < b:\n    c\n```\nthe `<think>` tag\n</answer>\n",
        "<think>R \"</think>\" 'r' <answer>draft</answer>, <details a\n</thing> x</think>A a </answer",
        'R r\n</think_fast> A <b>, "</think>" a',
        '<details type="reasoning" done="true">\n<summary>Thought</summary>\n> R r\n> <answer>\n</details>\nA <a a\n\n',
        "A a ``` </think> a\n~~~\n<answer> <think>\n~~~\n\n<think>R <answer>",
    ],
)
@pytest.mark.parametrize("opener", ["present", "implied"])
def test_never_more_is_held_than_blanks_and_what_may_be_a_tag(opener: Opener, text: str) -> None:
    for place in range(len(text) + 1):
        for pieces in ([text[:place]], list(text[:place])):
            reader = ReasoningReader(opener)
            given_at_once = words_of([event for piece in pieces for event in reader.feed(TextDelta(piece))])
            held = words_of(reader.close())
            assert HELD.fullmatch(held), (text[:place], given_at_once)


@pytest.mark.parametrize(
    "unit",
    [
        "<",
        "<think>",
        "</think>",
        "a<think>",
        "a <think>b</think>",
        "<think>a<think>b</think>c",
        "<think>a<think>b</think>c ",
        "`<think>",
        "`</think>\n",
        "```\n</answer>\n",
        "<answer>",
        "a <think> <answer> ",
        '<details type="reasoning">\n> a\n',
        "\n<think>a<think>`b </think> c`\n",
    ],
)
@pytest.mark.parametrize("head", ["", "a ", "a <think>", "<think>", "<think>a<think>b</think>c ", "`</think>"])
def test_no_token_is_read_more_than_three_times(monkeypatch: pytest.MonkeyPatch, head: str, unit: str) -> None:
    taken = 0
    take = Parter.take

    def counting(self: Parter, token: str | Tag) -> None:
        nonlocal taken
        taken += 1
        take(self, token)

    monkeypatch.setattr(Parter, "take", counting)
    monkeypatch.setattr(parts, "MAX_SUSPENDED", 200)
    text = head + unit * 100
    for opener in OPENERS:
        for pieces in ([text], list(text)):
            taken = 0
            run(ReasoningReader(opener), map(TextDelta, pieces))
            assert taken <= 3 * len(text)
            if pieces == [text]:
                assert taken <= 3 * 2 * (head + unit).count("<") * 101


def test_ordinary_text_is_passed_on_as_it_came() -> None:
    for head, kind in (("<think>R", ReasoningDelta), ("A", TextDelta)):
        reader = ReasoningReader("present")
        reader.feed(TextDelta(head))
        for piece in (" word", "word.", "x"):
            assert list(reader.feed(TextDelta(piece))) == [kind(piece)]


def test_every_split_gives_the_same_kinds_in_the_same_order() -> None:
    text = "<think>a</think>b\n<think_fast>c</think>\n<answer>d</answer> e"
    kinds = {
        tuple(type(event) for event in run(ReasoningReader(), map(TextDelta, pieces))) for pieces in every_split(text)
    }
    assert kinds == {(ReasoningDelta, TextDelta, ReasoningDelta, TextDelta)}
