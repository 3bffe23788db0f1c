"""Where the tags are, wherever the text was cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from splitting import every_split

from k2think.inband.scanner import MAX_ATTRIBUTES, Kind, Tag, TagScanner

Token = str | Tag


def scan(pieces: list[str]) -> list[Token]:
    """The tokens of a text, neighbouring pieces of text put together."""
    scanner = TagScanner()
    out: list[Token] = []
    for token in [token for piece in pieces for token in scanner.feed(piece)] + scanner.close():
        if isinstance(token, str) and out and isinstance(out[-1], str):
            out[-1] += token
        else:
            out.append(token)
    assert "" not in out
    return out


def in_all_ways(text: str) -> list[Token]:
    """The tokens of a text, which must not depend on how it is cut."""
    first, *others = map(scan, every_split(text))
    assert all(other == first for other in others)
    assert "".join(token if isinstance(token, str) else token.text for token in first) == text
    return first


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        ("<think>", "think_open"),
        ("<think_fast>", "think_open"),
        ("<think_faster>", "think_open"),
        ("<ifm|think>", "think_open"),
        ("<ifm|think_fast>", "think_open"),
        ("<ifm|think_faster>", "think_open"),
        ('<think duration="12">', "think_open"),
        ("<think\ndone>", "think_open"),
        ("</think>", "think_close"),
        ("</think_fast>", "think_close"),
        ("</ifm|think_faster>", "think_close"),
        ("</think >", "think_close"),
        ("<answer>", "answer_open"),
        ("<ifm|answer>", "answer_open"),
        ('<answer final="yes">', "answer_open"),
        ("</answer>", "answer_close"),
        ("</ifm|answer\n>", "answer_close"),
        ('<details type="reasoning" done="true" duration="3">', "details_open"),
        ("<details open type='reasoning'>", "details_open"),
        ("<details type=reasoning>", "details_open"),
        ("</details>", "details_close"),
        ("<summary>", "summary_open"),
        ("</summary>", "summary_close"),
    ],
)
def test_a_tag_of_the_known_families_is_found_between_texts(tag: str, kind: Kind) -> None:
    assert in_all_ways(f"a{tag} b") == ["a", Tag(kind, tag), " b"]
    assert in_all_ways(tag + tag) == [Tag(kind, tag), Tag(kind, tag)]
    assert in_all_ways("<" + tag) == ["<", Tag(kind, tag)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "1 < 2 > 0",
        "<thinker>",
        "<think_slow>",
        "<thinking>a</thinking>",
        "<Think>",
        "< think>",
        "</ think>",
        "</think x>",
        "<think/>",
        "<think />",
        "<ifm|details>",
        "<details>",
        '<details type="tool_calls">',
        '<details data-type="reasoning">',
        '<details type="reasoning2">',
        "<answers>",
        "<think",
        "</think",
        "<think a",
        "<<<<",
        "a <",
        "<think <b>",
        f"<think {'a' * MAX_ATTRIBUTES}>",
        f"</think{' ' * 9}>",
    ],
)
def test_what_only_resembles_a_tag_is_text(text: str) -> None:
    assert in_all_ways(text) == ([text] if text else [])


def test_attributes_may_be_as_long_as_the_bound() -> None:
    tag = f"<think {'a' * (MAX_ATTRIBUTES - 1)}>"
    assert in_all_ways(f"x{tag}y") == ["x", Tag("think_open", tag), "y"]


@pytest.mark.parametrize(
    "text",
    [
        'the "</think>" tag',
        "the `<think>` tag",
        "'<answer>'",
        "see (`</answer>`), and so on",
        "**`<think>`**/`</think>`",
        "使用`</think>`标签",
        "``</think>``: \"</think>\", '</think>'",
    ],
)
def test_a_tag_between_its_own_quotation_marks_is_talked_about(text: str) -> None:
    assert in_all_ways(text) == [text]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('it is "yes"', '"Yes"'),
        ("it is `x`", "`x`"),
        ('"Really?"', '"Yes."'),
        ('open "', "close"),
        ('open "', "'"),
        ('open "', ""),
        ("f(x)'", "'x'"),
    ],
)
def test_quotation_marks_that_belong_to_the_words_do_not_hide_a_tag(before: str, after: str) -> None:
    assert in_all_ways(f"{before}</think>{after}") == [
        before,
        Tag("think_close", "</think>"),
        *([after] if after else []),
    ]


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("a", ""),
        ("a<", "<"),
        ("a</th", "</th"),
        ("a<b", ""),
        ("<<think", "<think"),
        ("<think ", "<think "),
        ("<think>", ""),
        ('"<think>', "<think>"),
        ('x"<think>', ""),
        ("<details open", "<details open"),
        ("<details open>", ""),
        ("</think  ", "</think  "),
        ("</think x", ""),
        ("a <think <", "<"),
        (f"<think {'a' * (MAX_ATTRIBUTES - 1)}", f"<think {'a' * (MAX_ATTRIBUTES - 1)}"),
        (f"<think {'a' * MAX_ATTRIBUTES}", ""),
    ],
)
def test_held_back_is_only_what_may_still_become_a_tag(text: str, held: str) -> None:
    for pieces in every_split(text):
        scanner = TagScanner()
        out = [token for piece in pieces for token in scanner.feed(piece)]
        assert scanner.held == held
        assert "".join(token if isinstance(token, str) else token.text for token in out) == text.removesuffix(held)


PIECES = [
    "<",
    ">",
    "/",
    "</",
    "think",
    "_fast",
    "ifm|",
    "answer",
    "details",
    ' type="reasoning"',
    "summary",
    "`",
    '"',
    " ",
    "a",
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=24), st.lists(st.integers(0, 80), max_size=4))
def test_the_tokens_of_any_text_do_not_depend_on_its_cuts(parts: list[str], places: list[int]) -> None:
    text = "".join(parts)
    cuts = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    assert scan([text[a:b] for a, b in pairwise(cuts)]) == scan([text]) == scan(list(text))
