"""Which places of a Markdown answer stand in code, and which lines of folded thinking are quoted."""

from __future__ import annotations

import pytest
from splitting import every_split

from k2think.inband.details import Unquoter
from k2think.inband.quoting import CodeTracker


def read(pieces: list[str], *, watch_after: int = -1) -> CodeTracker:
    tracker = CodeTracker()
    for number, piece in enumerate(pieces):
        tracker.feed(piece)
        if number == watch_after:
            assert tracker.quoted()
            tracker.watch()
    return tracker


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", False),
        ("plain", False),
        # spans
        ("a `b", True),
        ("a `b` c", False),
        ("a ``b` c", True),
        ("a ``b` c``", False),
        ("`` `a` ``", False),
        ("a ` b\nc", False),
        ("a ~~~ b", False),
        # fences
        ("```\na", True),
        ("```python\na\n", True),
        ("a\n   ```\nb `c", True),
        ("- a\n      ```\n", True),
        ("```\na\n```\nb", False),
        ("```\na\n``` \t\nb", False),
        ("```\na\n```", False),  # nothing but a tag would follow
        ("```\na\n```b\nc", True),
        ("```\na\n``` b\nc", True),
        ("```\na\n```\n```\n", True),
        ("````\na\n```\nb", True),
        ("````\na\n`````\nb", False),
        ("```\na\n~~~\nb", True),
        ("~~~ `x`\na\n```\n", True),
        ("~~~\na\n~~~~\n", False),
        ("~~\na", False),
        # three backticks that are no fence
        ("a ```\nb", False),
        ("```a`` b\nc", False),
        ("```a``` b\nc", False),
        ("```a", True),
        ("```a```", False),
    ],
)
def test_code_is_recognised_wherever_the_text_is_cut(text: str, quoted: bool) -> None:
    for pieces in every_split(text):
        assert read(pieces).quoted() is quoted
        assert read(["", *(piece for given in pieces for piece in (given, ""))]).quoted() is quoted


@pytest.mark.parametrize(
    ("text", "line_start"), [("", True), ("a", False), ("a\n", True), ("a\n  ", True), ("a\n  b", False), ("`", False)]
)
def test_the_start_of_a_line_is_recognised(text: str, line_start: bool) -> None:
    for pieces in every_split(text):
        assert read(pieces).line_start() is line_start


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ("`a", "b", "open"),
        ("`a", "b` c", "closed"),
        ("`a", "b\nc `d` e", "stray"),
        ("`a", "`` b ` c\n", "closed"),
        ("```\na\n", "b\n``` c\n", "open"),
        ("```\na\n", "b\n```\nc `d\n", "closed"),
        ("```a", "\nb", "open"),
        ("```a", "\n```\n", "closed"),
    ],
)
def test_it_shows_later_whether_it_was_code(before: str, after: str, verdict: str) -> None:
    for pieces in every_split(after):
        tracker = read([before, *pieces], watch_after=0)
        tracker.quoted()
        assert tracker.verdict == verdict


@pytest.mark.parametrize("before", ["a", "a\n```\nb", "`a"])
def test_where_it_is_settled_words_change_nothing(before: str) -> None:
    tracker = read([before])
    assert tracker.settled()
    wanted = tracker.quoted()
    for words in ("b", " ", "c d"):
        tracker.feed(words)
        assert tracker.settled()
        assert tracker.quoted() is wanted


@pytest.mark.parametrize("before", ["", "a\n", "a`", "a\n  ", "```\n```"])
def test_where_a_mark_or_a_line_start_is_open_it_is_not_settled(before: str) -> None:
    assert not read([before]).settled()


@pytest.mark.parametrize(
    ("text", "unquoted", "quoted"),
    [
        ("> a\n> b", "a\nb", True),
        ("\n> a\n> \n>\n>> b\n> > c\nd > e\n", "\na\n\n>\n>> b\n> c\nd > e\n", False),
        (">", ">", True),
        ("a > b", "a > b", False),
        ("> a\n", "a\n", False),
        ("", "", False),
    ],
)
def test_folded_lines_lose_one_mark_each(text: str, unquoted: str, quoted: bool) -> None:
    for pieces in every_split(text):
        unquoter = Unquoter()
        assert "".join([*map(unquoter.feed, pieces), unquoter.close()]) == unquoted
        assert unquoter.quoted is quoted


def test_a_mark_that_had_to_go_out_is_not_taken_again() -> None:
    unquoter = Unquoter()
    assert unquoter.feed("a\n>") == "a\n"
    assert unquoter.close() == ">"
    assert unquoter.feed("> b") == "> b"
