"""JSON with the mistakes that models make, mended while it comes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from splitting import every_split

from k2think.inband.toolcalls.arguments import ArgumentsReader
from k2think.inband.toolcalls.lenient import MAX_DEPTH, LenientJson

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def read(pieces: list[str]) -> tuple[str, str, bool, bool]:
    """What came out, what was left, whether it was mended, whether it is stuck."""
    reader = LenientJson()
    out: list[str] = []
    rest = ""
    for piece in pieces:
        place = 0 if reader.done or reader.stuck else reader.feed(piece)
        rest += piece[place:]
        out.append(reader.take())
    if not reader.stuck:
        reader.close()
    out.append(reader.take())
    return "".join(out), rest, reader.mended, reader.stuck


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'a': 'It\\'s', 'b': True, 'c': None,}", {"a": "It's", "b": True, "c": None}),
        ("{'text': 'It's fine', 'q': 'say \"x\"'}", {"text": "It's fine", "q": 'say "x"'}),
        ('{"a": "He said "hi" to me", "n": 3,}', {"a": 'He said "hi" to me', "n": 3}),
        ('{a: 1, b_2: "x"}', {"a": 1, "b_2": "x"}),
        ('{"a": "x"\n "b": 2}', {"a": "x", "b": 2}),
        ('{"a": "x" "b": 2}', {"a": "x", "b": 2}),
        ('{"g": "\\U0001F600"}', {"g": "😀"}),
        ('{"a": [1, 2}', {"a": [1, 2]}),
        ('{"a": {"b": 1', {"a": {"b": 1}}),
        ('{"a": "cut', {"a": "cut"}),
        ('{"a": "cut\\', {"a": "cut"}),
        ('{"a"', {"a": None}),
        ('{"a": ', {"a": None}),
        ('{"a": tru', {"a": None}),
        ('{"a": 12', {"a": 12}),
        ('{"a": 1, ', {"a": 1}),
        (
            '{"a": 1,, "b": .5, "c": +3, "d": 1_000, "e": 1., "f": 007}',
            {"a": 1, "b": 0.5, "c": 3, "d": 1000, "e": 1.0, "f": 7},
        ),
        ('{"path": "C:\\Users\\new", "re": "\\d+"}', {"path": "C:\\Users\new", "re": "\\d+"}),
        ('{"t": "line\nnext\ttab\x01"}', {"t": "line\nnext\ttab\x01"}),
        ('{"t": "\\x41\\u0042\\u00zz"}', {"t": "AB\\u00zz"}),
        ('{"a": NaN, "b": undefined}', {"a": None, "b": None}),
        ("[1, 'x', {},]", [1, "x", {}]),
        ("{ }", {}),
    ],
)
def test_mistakes_are_mended(text: str, value: Any) -> None:
    outcomes = [read(pieces) for pieces in every_split(text)]
    assert json.loads(outcomes[0][0]) == value
    assert all(outcome == outcomes[0] for outcome in outcomes)


@pytest.mark.parametrize("text", ['"x"', "1", "x", '{"a": b c}', '{"a": }', "{'a' 'b'}", "(", '{{"a": 1}}'])
def test_where_no_rule_helps_it_is_stuck(text: str) -> None:
    outcomes = [read(pieces) for pieces in every_split(text)]
    assert outcomes[0][3]
    assert all(outcome == outcomes[0] for outcome in outcomes)


def test_what_follows_is_not_touched() -> None:
    for pieces in every_split('{"a": 1} and {"b": 2}'):
        assert read(pieces) == ('{"a": 1}', ' and {"b": 2}', False, False)


def test_depth_is_bounded() -> None:
    assert read(["[" * (MAX_DEPTH + 1)])[3]
    assert not read(["[" * MAX_DEPTH])[3]


@given(
    values.filter(lambda value: isinstance(value, dict | list)),
    st.integers(1, 7),
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_correct_json_passes_character_for_character(
    value: Any, size: int, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    pieces = [text[place : place + size] for place in range(0, len(text), size)]
    assert read(pieces) == (text, "", False, False)


@given(st.text(alphabet="{}[]\"':,\\ \nabtru1.-eNul", max_size=40), st.integers(1, 40))
def test_whatever_comes_what_goes_out_is_json(text: str, place: int) -> None:
    out, rest, mended, stuck = read([text])
    assert read([text[:place], text[place:]]) == (out, rest, mended, stuck)
    if not stuck and out:
        json.loads(out)


def test_time_is_linear() -> None:
    """As many characters as would take minutes otherwise."""
    reader = LenientJson()
    reader.feed('{"a": "')
    for _ in range(100_000):
        reader.feed("xy'")
        reader.take()
    assert not reader.stuck


# Arguments: the same, also within strings


def arguments(pieces: list[str]) -> tuple[str, str, bool]:
    """The object, or what came instead of one, and whether its end was read."""
    reader = ArgumentsReader()
    out: list[str] = []
    for piece in pieces:
        if not reader.done:
            reader.feed(piece)
            out.append(reader.take())
    done = reader.done
    if not done:
        reader.close()
    out.append(reader.take())
    return "".join(out), "" if reader.is_object else reader.text, done


@given(st.dictionaries(st.text(), values, max_size=4), st.integers(0, 3), st.integers(1, 9), st.booleans())
def test_an_object_comes_out_of_its_strings(value: dict[str, Any], wrappings: int, size: int, ascii_only: bool) -> None:
    plain = text = json.dumps(value, ensure_ascii=ascii_only)
    for _ in range(wrappings):
        text = json.dumps(text, ensure_ascii=ascii_only)
    text += ", "
    found, other, done = arguments([text[place : place + size] for place in range(0, len(text), size)])
    assert json.loads(found) == value
    assert (other, done) == ("", True)
    if not wrappings:
        assert found == plain


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"{"city": "Paris"}"}', '{"city": "Paris"}'),
        ('\'{"city": "Paris"}\'}', '{"city": "Paris"}'),
        ('"{\\"city\\": \\"O\\\\"Hara\\"}"', '{"city": "O\\"Hara"}'),
        ('  {"city": "Paris"}', '{"city": "Paris"}'),
    ],
)
def test_escapes_that_are_missing_are_understood(text: str, found: str) -> None:
    assert all(arguments(pieces)[0] == found for pieces in every_split(text))


@pytest.mark.parametrize(
    ("text", "other"), [("null}", "null"), ('"Paris"}', "Paris"), ('""', ""), ("[1, 2]", "[1, 2]"), ("3, ", "3")]
)
def test_what_is_no_object_comes_as_text(text: str, other: str) -> None:
    assert all(arguments(pieces) == ("", other, True) for pieces in every_split(text))
