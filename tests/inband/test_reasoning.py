"""Thinking told from answer, in every shape a model writes them, wherever the text was cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from splitting import merged, outcomes, run

from k2think.dialogue.events import (
    Event,
    Finish,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from k2think.inband.held import MAX_SUSPENDED
from k2think.inband.outlet import MAX_BLANKS
from k2think.inband.parts import Observed, Opener
from k2think.inband.reasoning import ReasoningReader

R, T = ReasoningDelta, TextDelta
ALL: tuple[Opener, ...] = ("present", "implied", "undecided")
SHARED = Path(__file__).parent.parent.parent.parent / "shared"


def read(text: str, opener: Opener) -> tuple[list[Event], Observed | None]:
    """The outcome of a text, which must not depend on how it is cut, and what was observed."""
    readers: list[ReasoningReader] = []

    def make() -> ReasoningReader:
        readers.append(ReasoningReader(opener))
        return readers[-1]

    first, *others = outcomes(make, text)
    for other in others:
        assert other == first
    assert len({reader.observed for reader in readers}) == 1
    return first, readers[0].observed


SHOWN = "Use `<think>a</think>`:\n```xml\n<think>\n</think>\n<answer>\n```\nend"
TALKED_ABOUT = "close with `</think>`, \"</think>\" or '</think>'."
FENCED = "say `</think>` and\n```\n<think>a</think>\n```\nr"
DETAILS = (
    '<details type="reasoning" done="true" duration="3">\n<summary>Thought for 3 seconds</summary>\n'
    "> We need\n> \n> to add\n</details>\n"
)


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        # the trained format, and its blanks
        ("<think>R</think>\n<answer>A</answer>", "R", "A"),
        ("<think>\nR r\n\n</think>\n\n<answer>\n\tA\n  a\n</answer>\n", "R r", "A\n  a"),
        (" \n<think> R </think> <answer> A </answer> ", "R", "A"),
        # no answer tags: its own trailing blanks stay
        ("<think>R</think>A", "R", "A"),
        ("<think>R</think>\n\nA\n  a\n", "R", "A\n  a\n"),
        # attributes, efforts, prefixes, and closing tags of another family
        ('<think duration="12">R</think>A', "R", "A"),
        ("<think_fast>R</think_fast>A", "R", "A"),
        ("<think_faster>R</think>A", "R", "A"),
        ("<ifm|think>R</ifm|think>\n<ifm|answer>A</ifm|answer>", "R", "A"),
        ("<ifm|think_fast>R</think_faster>A", "R", "A"),
        ("<think>R</ifm|think><answer>A</ifm|answer>", "R", "A"),
        # Open WebUI's folded thinking
        (DETAILS + "<answer>A</answer>", "We need\n\nto add", "A"),
        (DETAILS + "A", "We need\n\nto add", "A"),
        (
            '<details type="reasoning">\n> a\n> b </details> c\n> > q\n>d\n</details>\nA',
            "a\nb </details> c\n> q\n>d",
            "A",
        ),
        ('<details type="reasoning" done="false">\n<summary>Thinking…</summary>\n> R', "R", ""),
        ('<details type="reasoning">\n<summary>Thinking</details>A', "", "A"),
        (
            '<details type="reasoning">\n> a <summary>b</summary>\n> </think><answer>\n</details>A',
            "a <summary>b</summary>\n</think><answer>",
            "A",
        ),
        ('<details type="reasoning">\n>', ">", ""),
        # cut off by a limit
        ("<think>R</think>\n<answer>A", "R", "A"),
        ("<think>R</think>\n<answer>A\n\n", "R", "A\n\n"),
        ("<think>R </th", "R </th", ""),
        ("<think>R r", "R r", ""),
        ("<think>R\n", "R\n", ""),
        ("<think>R</think>", "R", ""),
        ("<think>R</think>\n<answ", "R", "<answ"),
        ("<think>", "", ""),
        # empty thinking
        ("<think></think>A", "", "A"),
        ("<think>\n\n</think>\n\n<answer>A</answer>", "", "A"),
        # thinking within thinking
        ("<think>a<think>b</think>c</think>d", "a<think>b</think>c", "d"),
        ("<think>a<think>b<think>c</think>d</think>e</think>\nf", "a<think>b<think>c</think>d</think>e", "f"),
        ("<think>a<think>b</think> c <think>d</think> e</think>f", "a<think>b</think> c <think>d</think> e", "f"),
        ("<think>a <think> b</think>\n\nc `</think>`\n", "a <think> b", "c `</think>`\n"),
        ("<think>a <think> b</think>\n<answer>c</answer>", "a <think> b", "c"),
        ("<think>a <think> b</think>c <answer>d</answer>", "a <think> b", "c d"),
        ("<think>a <think> b</think>c <answer>d</answer> e</think>f", "a <think> b</think>c <answer>d</answer> e", "f"),
        ("<think>a <think> b</think>```\n</think>\n```\nc", "a <think> b", "```\n</think>\n```\nc"),
        ("<think>\n<think>R</think>A", "R", "A"),
        # drafts and the words themselves in the thinking
        ("<think>a <answer>draft</answer> b</think><answer>A</answer>", "a <answer>draft</answer> b", "A"),
        ("<think>" + TALKED_ABOUT + "</think>A", TALKED_ABOUT, "A"),
        ("<think>open `<think>` and </thing></think>A", "open `<think>` and </thing>", "A"),
        ('<think>it is "yes"</think>"Yes"', 'it is "yes"', '"Yes"'),
        # tags shown in the answer
        ("<think>R</think>" + SHOWN, "R", SHOWN),
        (
            "<think>R</think>~~~\n</answer>\n```\n</think>\n~~~\nend</answer>",
            "R",
            "~~~\n</answer>\n```\n</think>\n~~~\nend",
        ),
        (
            "<think>R</think><answer>a\n```\n</answer>\n````\nb ``x`</answer>`` c</answer>",
            "R",
            "a\n```\n</answer>\n````\nb ``x`</answer>`` c",
        ),
        (
            "<think>R</think><answer>a\n1. b\n    ```\n    </answer>\n    ```\n</answer>",
            "R",
            "a\n1. b\n    ```\n    </answer>\n    ```",
        ),
        ("<think>R</think><answer>a <think>b</think> c</answer>", "R", "a <think>b</think> c"),
        ('<think>R</think>The "</think>" tag', "R", 'The "</think>" tag'),
        ("<think>R</think>a stray ` here\nb</answer>", "R", "a stray ` here\nb"),
        ("<think>R</think><answer>```\nx\n```</answer> more", "R", "```\nx\n``` more"),
        # closing tags where the model forgot to close its code
        ("<think>R</think><answer>```\ncode\n</answer>\n", "R", "```\ncode"),
        ("<think>R</think><answer>a ` b </answer>", "R", "a ` b"),
        ("<think>R</think><answer>```\n</answer>\nmore\n", "R", "```\n</answer>\nmore\n"),
        ("<think>R</think><answer>```py\nx\n```</answer>", "R", "```py\nx\n```"),
        # several answers, and text around them
        ("<think>R</think><answer>A</answer> and <answer>B</answer>", "R", "A and B"),
        ("<think>R</think><answer>A</answer>\n<answer>B</answer>\n", "R", "AB"),
        ("<think>R</think>Sure: <answer> 42 </answer>\nBye\n", "R", "Sure: 42\nBye\n"),
        ("<think>R</think><answer><answer>A</answer></answer>", "R", "A"),
        ("<think>R</think><answer></answer> A", "R", " A"),
        ("<think>R</think>A </answer>", "R", "A"),
        # stray closing tags
        ("<think>R</think></think>A", "R", "A"),
        ("<think>R</think></answer>A", "R", "A"),
        ("<think>R</think>A </think>B", "R", "A B"),
        ("<think>R</think><answer>A</answer></think>\nB", "R", "A\nB"),
        # what only looks like a tag
        ("<think>R</think>\n<details><summary>s</summary>x</details>", "R", "<details><summary>s</summary>x</details>"),
        ("<think>R</think>a < b <thinker> </", "R", "a < b <thinker> </"),
    ],
)
def test_thinking_and_answer_are_told_apart_if_the_text_says_where_thinking_begins(
    text: str, reasoning: str, content: str
) -> None:
    for opener in ALL:
        assert read(text, opener) == (merged([R(reasoning), T(content)]), "present")


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("<think>a</think>b\n<think>c</think>\n\nd", [R("a"), T("b\n"), R("c"), T("d")]),
        ("<think>a</think> <think>b</think>c", [R("ab"), T("c")]),
        ("<think>a</think>b <think>c</think> d", [R("a"), T("b "), R("c"), T("d")]),
        ("<think>a</think>b <think> c", [R("a"), T("b <think> c")]),
        ("<think>a</think>b <think> c <answer>d</answer>", [R("a"), T("b <think> c d")]),
        ("<think>a</think>b <think>c<think>d</think>e</think>f", [R("a"), T("b "), R("c<think>d</think>e"), T("f")]),
        ("<think>a</think>b\n<think>c", [R("a"), T("b\n"), R("c")]),
        ("<think>a</think><answer>b</answer>\n<think>c</think><answer>d</answer>", [R("a"), T("b"), R("c"), T("d")]),
        (DETAILS + "b\n" + DETAILS + "c", [R("We need\n\nto add"), T("b\n"), R("We need\n\nto add"), T("c")]),
        (DETAILS + DETAILS + "c", [R("We need\n\nto addWe need\n\nto add"), T("c")]),
        ("<think>a</think>b " + DETAILS, [R("a"), T("b " + DETAILS)]),
    ],
)
def test_thinking_may_come_several_times(text: str, outcome: list[Event]) -> None:
    for opener in ALL:
        assert read(text, opener) == (outcome, "present")


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("R</think>A", "R", "A"),
        ("\n R\nr </think>\n\n A\n", "R\nr", "A\n"),
        ("R</think>\n<answer>A</answer>\n", "R", "A"),
        ("R</think_faster>A", "R", "A"),
        ("R</ifm|think>A", "R", "A"),
        ("R <answer>draft</answer> r</think><answer>A</answer>", "R <answer>draft</answer> r", "A"),
        ("R</think>A </think> `</think>`", "R", "A  `</think>`"),
        (FENCED + "</think>A", FENCED, "A"),
        ('R <details type="reasoning"> r</think>A', 'R <details type="reasoning"> r', "A"),
        ("</think>A", "", "A"),
        ("\n</think>\n", "", ""),
    ],
)
def test_thinking_may_begin_before_the_text(text: str, reasoning: str, content: str) -> None:
    for opener in ("implied", "undecided"):
        if "```" not in text or opener == "undecided":  # a live reader of thinking sees no fences
            assert read(text, opener) == (merged([R(reasoning), T(content)]), "implied")
    if text.strip().startswith("R"):
        assert read(text, "present")[1] == "implied"  # too late for this answer, in time for the next one


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("a ` r </think>A\n", "a ` r", "A\n"),
        ("a ` r </think>A ` b\n", "", "a ` r </think>A ` b\n"),
        ("```\nr\n</think>\nA", "```\nr", "A"),
        ("```\nr\n</think>\nA\n<answer>B", "```\nr", "A\nB"),
        ("```\nr\n</think>\nA <think>b</think> c", "```\nr", "A c"),
        ("```\nr\n</think>\n```\nA", "", "```\nr\n</think>\n```\nA"),
        ("```\nr\n</think>\n```", "", "```\nr\n</think>\n```"),
        ("a `r </think> A`", "", "a `r </think> A`"),
        ("a `r </think> A`\n<think>", "", "a `r </think> A`\n"),
        ("a `r </think> A`<think>b</think>c", "b", "a `r </think> A`c"),
    ],
)
def test_without_a_hurry_code_that_never_ended_hides_no_closing_tag(text: str, reasoning: str, content: str) -> None:
    outcome, observed = read(text, "undecided")
    assert "".join(event.text for event in outcome if type(event) is T) == content
    assert "".join(event.text for event in outcome if type(event) is R).startswith(reasoning)
    assert observed == ("implied" if reasoning and "<think>b</think>c" not in text else None)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("A", "A"),
        ("", ""),
        (" \n", " \n"),
        ("\n A\n\n", "\n A\n\n"),
        ("We need to add. Thus final answer: 4", "We need to add. Thus final answer: 4"),
        (
            "Close it with `</think>`\n```\n<think></think>\n```\n",
            "Close it with `</think>`\n```\n<think></think>\n```\n",
        ),
        ("Sure: <answer> A </answer>\n", "Sure: A"),
        ("Use <think> for that.", "Use <think> for that."),
        ("1 < 2", "1 < 2"),
        ("</answer>A", "A"),
    ],
)
def test_a_text_without_thinking_is_answer(text: str, content: str) -> None:
    for opener in ("present", "undecided"):
        assert read(text, opener) == (merged([T(content)]), None)


@pytest.mark.parametrize("text", ["<answer> A </answer>\n", "\n<answer>A", "<ifm|answer>A</answer>"])
def test_an_answer_tag_at_the_head_is_no_thinking(text: str) -> None:
    for opener in ALL:
        assert read(text, opener) == ([T("A")], None)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("foo <think>x</think> bar", [T("foo "), R("x"), T("bar")]),
        ("foo\n<think>x", [T("foo\n"), R("x")]),
        ("foo\n" + DETAILS + "bar", [T("foo\n"), R("We need\n\nto add"), T("bar")]),
        ("foo <answer>a</answer>\n<think>x</think> bar", [T("foo a"), R("x"), T("bar")]),
    ],
)
def test_an_answer_may_stand_before_the_thinking(text: str, outcome: list[Event]) -> None:
    for opener in ("present", "undecided"):
        assert read(text, opener) == (outcome, None)


def test_a_text_that_is_known_to_begin_within_the_thinking_and_never_closes_it_is_thinking() -> None:
    assert read("\n R <answer> r\n", "implied") == ([R("R <answer> r\n")], None)
    assert read(" \n", "implied") == ([], None)
    # an opening tag within it is no proof of anything
    assert read("a <think> b</think>c", "implied") == ([R("a <think> b"), T("c")], None)


@pytest.mark.parametrize("opener", ALL)
def test_thinking_by_its_own_channel_passes_and_makes_text_at_the_head_answer(opener: Opener) -> None:
    events: list[Event] = [R("a"), R(""), T(""), R("b"), T("\nA"), T(" a</think> b "), Finish("stop"), Usage(1, 2)]
    reader = ReasoningReader(opener)
    assert run(reader, events) == [R("ab"), T("\nA a b "), Finish("stop"), Usage(1, 2)]
    assert reader.observed is None


def test_blanks_before_thinking_by_its_own_channel_may_still_stand_before_a_tag() -> None:
    events: list[Event] = [T("\n"), R("a"), T("\n<answer>A</answer>")]
    assert run(ReasoningReader("undecided"), events) == [R("a"), T("A")]


def test_a_torn_tag_before_thinking_by_its_own_channel_is_text() -> None:
    events: list[Event] = [T("\n<thi"), R("a"), T("nk>b")]
    assert run(ReasoningReader("present"), events) == [T("\n<thi"), R("a"), T("nk>b")]


def test_a_tag_at_the_head_counts_also_behind_thinking_by_its_own_channel() -> None:
    reader = ReasoningReader("implied")
    assert run(reader, [R("a"), T("<think>b</think>A")]) == [R("ab"), T("A")]
    assert reader.observed is None


@pytest.mark.parametrize(
    ("opener", "text", "held"),
    [
        ("undecided", "A a", [T("A a")]),
        ("undecided", "`r </think> A", [R("`r"), T("A")]),
        ("present", "A </thi", [T("A </thi")]),
        ("present", "A\n\n", [T("A\n\n")]),
        ("present", "A <think>b", [T("A <think>b")]),
        ("present", "<think>a<think>b</think>c ", [R("a<think>b"), T("c ")]),
        ("present", '"</think>', [T('"')]),
        ("present", "<answer>`a</answer>\n", [T("`a")]),
        ("implied", "\n\n", []),
    ],
)
def test_what_is_held_comes_before_everything_that_is_no_text(opener: Opener, text: str, held: list[Event]) -> None:
    calls: list[Event] = [ToolCallStart(0, "call_1", "f"), ToolCallDelta(0, "{}"), Finish("tool_calls"), Usage(1, 2)]
    for outcome in outcomes(lambda: ReasoningReader(opener), text, calls):
        assert outcome == [*held, *calls]


@pytest.mark.parametrize("head", ["<think>R", "<answer>A", "A"])
def test_a_quotation_mark_counts_also_in_a_delta_that_means_nothing_else(head: str) -> None:
    pieces = ["the", ' "', "</think>", '" tag']
    outcome = run(ReasoningReader("present"), map(T, [head, *pieces]))
    shown = head.rpartition(">")[2] + "".join(pieces)
    assert [event.text for event in outcome if isinstance(event, R | T)] == [shown]


def test_an_answer_that_turns_out_to_have_been_thinking_does_not_stick_to_the_answer() -> None:
    assert read("R\n</think>\nA", "present") == ([T("R\nA")], "implied")


def test_usage_within_the_text_parts_no_tag() -> None:
    events: list[Event] = [T("<thi"), Usage(1, 2), T("nk>R</think>A")]
    assert run(ReasoningReader("present"), events) == [Usage(1, 2), R("R"), T("A")]


@pytest.mark.parametrize("length", [MAX_SUSPENDED - 12, MAX_SUSPENDED])
def test_a_thought_within_a_line_is_recognised_up_to_the_bound(length: int) -> None:
    text = f"a <think>{'b' * length}</think>c"
    within: list[Event] = [T("a "), R("b" * length), T("c")]
    beyond: list[Event] = [T(text.replace("</think>", ""))]
    for step in (1000, 65_536, len(text)):
        pieces: list[Event] = [T(text[place : place + step]) for place in range(0, len(text), step)]
        assert run(ReasoningReader("present"), pieces) == (within if length < MAX_SUSPENDED - 7 else beyond)


def test_beyond_the_bound_the_answer_flows_again() -> None:
    reader = ReasoningReader("present")
    assert merged(reader.feed(T("<think>a<think>b</think>c"))) == [R("a<think>b")]
    assert reader.feed(T("d" * (MAX_SUSPENDED - 20))) == []
    assert merged(reader.feed(T("e" * 20))) == [T("c" + "d" * (MAX_SUSPENDED - 20) + "e" * 20)]
    assert reader.feed(T("fg")) == (T("fg"),)


def test_blanks_without_end_are_text() -> None:
    reader = ReasoningReader("present")
    reader.feed(T("a"))
    assert reader.feed(T(" " * MAX_BLANKS)) == []
    assert merged(reader.feed(T(" "))) == [T(" " * (MAX_BLANKS + 1))]
    assert merged(reader.feed(T(" "))) == [T(" ")]
    assert merged(reader.feed(T("bc"))) == [T("bc")]
    assert reader.feed(T(" ")) == []
    assert merged(reader.close()) == [T(" ")]


def test_the_cases_of_other_projects_parsers() -> None:
    """Compared without surrounding blanks, where the projects differ."""
    cases = SHARED / "reasoning" / "cases.jsonl"
    if not cases.exists():
        pytest.skip("the recorded cases are not beside the project")
    for case in map(json.loads, cases.read_text(encoding="utf-8").splitlines()):
        outcome, _ = read(case["text"], "undecided")
        reasoning = "".join(event.text for event in outcome if type(event) is R)
        content = "".join(event.text for event in outcome if type(event) is T)
        assert {"reasoning": reasoning.strip(), "content": content.strip()} == case["expected"], case["id"]
