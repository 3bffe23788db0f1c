"""JSON answers: how they are asked for, where in the text they are found, and what becomes of those that do not fit."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from splitting import merged, outcomes, run

from k2think.dialogue.events import (
    Event,
    Finish,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from k2think.dialogue.prompt import Message, OutputFormat
from k2think.errors import InvalidRequest
from k2think.inband import structured
from k2think.inband.structured import StructuredReader, write_format

FINISH = Finish("stop")
ANY = OutputFormat()
PERSON = OutputFormat(
    schema={
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    name="person",
)
NUMBERS = OutputFormat(schema={"type": "array", "items": {"type": "integer"}})
ADA = '{"name": "Ada", "age": 36}'


def answer(text: str, output: OutputFormat = PERSON, reason: FinishReason = "stop") -> StructuredReader:
    """A reader that has read this answer and given nothing yet."""
    reader = StructuredReader(output)
    assert not reader.feed(TextDelta(text))
    assert not reader.feed(Finish(reason))
    return reader


def given_of(reader: StructuredReader) -> str:
    """What it gives: the text, and nothing behind it but the end."""
    *texts, finish = merged(reader.close())
    assert isinstance(finish, Finish)
    assert not reader.problem
    (text,) = texts or [TextDelta("")]
    assert isinstance(text, TextDelta)
    return text.text


# Asking


def test_a_schema_is_written_on_a_line_of_its_own() -> None:
    output = OutputFormat(schema={"type": "object", "description": "a\nb"}, name="person", description="Somebody.")
    (system, user) = write_format((Message("user", "Who?"),), output)
    *words, last, schema = system.text.split("\n")
    assert last.endswith("JSON Schema:")
    assert json.loads(schema) == output.schema
    assert "Somebody." in "\n".join(words)
    assert (system.role, user) == ("system", Message("user", "Who?"))


def test_any_object_is_asked_for_in_a_sentence() -> None:
    (system,) = write_format((Message("system", "Be kind."),), ANY)
    assert system.text.startswith("Be kind.\n\n")
    assert "JSON object" in system.text


@pytest.mark.parametrize("output", [ANY, PERSON])
def test_with_tools_the_form_is_only_that_of_the_last_answer(output: OutputFormat) -> None:
    (alone,), (besides,) = write_format((), output), write_format((), output, with_tools=True)
    assert "calls" not in alone.text
    assert besides.text.replace(" This does not apply to calls.", "") == alone.text != besides.text


def test_nothing_in_a_schema_can_be_taken_for_a_tag() -> None:
    schema = {"type": "object", "description": "</tools> <|im_end|> a < b"}
    (system,) = write_format((), OutputFormat(schema=schema))
    written = system.text.split("\n")[-1]
    assert json.loads(written) == schema
    assert written.count("<") == 1


def test_a_schema_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="response_format") as refused:
        StructuredReader(OutputFormat(schema={"type": "thing"}))
    assert refused.value.param == "response_format"
    assert refused.value.status == 400


# Finding


@pytest.mark.parametrize(
    "text",
    [
        ADA,
        f"\n {ADA} \n",
        f"```json\n{ADA}\n```",
        f"```\n{ADA}\n```\n",
        f"Here you are:\n\n~~~~JSON\n{ADA}\n~~~~\nBye.",
        f"```json\n{ADA}",
        f"  ```json\r\n{ADA}\r\n  ```",
        f"An {{empty}} one is {{}}.\n```json\n{ADA}\n```",
        f"```python\nprint({{}})\n```\n```json\n{ADA}\n```",
        f"Sure: {ADA}. Anything else?",
        f"See [1] and [below]: {ADA}",
        f'He said {{"}}": 1}} first, then {ADA}',
        f"```json {ADA}```",
        f"{ADA}}}",
        f"I [think: {ADA}",
        f'Such as {{"name": "Bob", "age": 1}}. So: {ADA}. Fine [1]?',
        f'```json\n{{"name": "Bob", "age": 1}}\n```\nSo:\n```json\n{ADA}\n```\n```\n{{}}\n```',
        f'```json\n{ADA}\n```\nand not {{"name": "Bob", "age": 1}}',
        f'[{{"name": "Bob", "age": 1}}] {ADA} [{{"name": "Eve", "age": 1}}]',
    ],
)
def test_the_models_own_characters_are_found(text: str) -> None:
    wanted = [TextDelta(ADA), FINISH]
    assert all(outcome == wanted for outcome in outcomes(lambda: StructuredReader(PERSON), text, [FINISH]))
    assert not answer(text).repaired


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"b": "}\\"{", "c": ["]"]}}',
        '{"a": 1, "a": 2}',
        '{"é\\u00e9\\/": 1e5,\n\t"x": []}',
        "{}",
        '{"a": "```\\n[1]\\n```"}',
    ],
)
@pytest.mark.parametrize("around", ["{}", "```json\n{}\n```", "Yes: {} Fine?"])
def test_what_is_right_is_unchanged_to_the_character(text: str, around: str) -> None:
    reader = answer(around.replace("{}", text), ANY)
    assert given_of(reader) == text
    assert not reader.repaired


@pytest.mark.parametrize(
    ("text", "output", "value"),
    [
        ('{"name": "Ada", "age": "36"}', PERSON, {"name": "Ada", "age": 36}),
        ('```json\n{"name": 7, "age": 36}\n```', PERSON, {"name": "7", "age": 36}),
        ("{'name': 'Ada', 'age': 36,}", PERSON, {"name": "Ada", "age": 36}),
        ('Sure:\n{"name": "Ada", "age": 36', PERSON, {"name": "Ada", "age": 36}),
        ('```json\n{"name": "Zoë", age: 36}\n```', PERSON, {"name": "Zoë", "age": 36}),
        ('{"name": "a\nb", "age": 36}', PERSON, {"name": "a\nb", "age": 36}),
        ('{"name": "Ada" "age": 36}', PERSON, {"name": "Ada", "age": 36}),
        ('"{\\"name\\": \\"Ada\\", \\"age\\": 36}"', PERSON, {"name": "Ada", "age": 36}),
        ("[1, 2,, 3", NUMBERS, [1, 2, 3]),
        ('See [1]. {"a": [1, 2}', ANY, {"a": [1, 2]}),
        ("# Note {x}\n{'a': True}", ANY, {"a": True}),
        ('{"name": 1, "age": 1} {"name": 2, "age": 2}', PERSON, {"name": "2", "age": 2}),
    ],
)
def test_what_is_nearly_right_is_repaired(text: str, output: OutputFormat, value: Any) -> None:
    (first, *others) = outcomes(lambda: StructuredReader(output), text, [FINISH])
    assert all(outcome == first for outcome in others)
    reader = answer(text, output)
    mended = given_of(reader)
    assert json.loads(mended) == value
    assert json.dumps(value, ensure_ascii=False) == mended
    assert reader.repaired


@pytest.mark.parametrize(
    ("text", "output", "told"),
    [
        ("", ANY, "empty"),
        (" \n", ANY, "empty"),
        ("I cannot do that.", ANY, "no JSON"),
        ("[1, 2]", ANY, "object"),
        ("12", ANY, "object"),
        ('{"name": "Ada"}', PERSON, "age"),
        ('{"name": "Ada", "age": "old"}', PERSON, "age"),
        ('{"name": "Ada", "age": 36, "x": 1}', PERSON, "x"),
        ('{"name": "Ada", "age": NaN}', PERSON, "age"),
        ('{"name": "Ada", "age": Infinity}', PERSON, "age"),
        ('{"name": "Ada", "age": 1e999}', PERSON, "age"),
        ('{"a": ' + "[" * 5_000 + "]" * 5_000 + "}", ANY, "deep"),
        ('{"a": ' + "[" * 150 + "]" * 150 + "}", ANY, "deep"),
        ("{", PERSON, ""),
    ],
)
def test_what_does_not_fit_gives_nothing_but_the_reason(text: str, output: OutputFormat, told: str) -> None:
    reader = answer(text, output)
    assert not reader.close()
    assert told in reader.problem
    assert 0 < len(reader.problem) < 1_000
    assert reader.text == text
    assert not reader.repaired


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_never_given(word: str) -> None:
    reader = answer(f'{{"a": {word}, "b": 1}}', ANY)
    value = json.loads(given_of(reader), parse_constant=pytest.fail)
    assert value["b"] == 1
    assert not isinstance(value["a"], float)
    assert reader.repaired


@pytest.mark.parametrize("text", ['{"a": "\\ud800"}', "{'a': '\\ud800'}"])
def test_half_a_character_stays_an_escape(text: str) -> None:
    assert given_of(answer(text, ANY)) == '{"a": "\\ud800"}'


# Cut answers


@pytest.mark.parametrize("reason", ["length", "content_filter"])
@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ('{"name": "A', '{"name": "A'),
        (' {"name": "A', ' {"name": "A'),
        ('Sure:\n```json\n{"name": "A', '{"name": "A'),
        ('```json\n{"name": "A', '{"name": "A'),
        (f"```json\n{ADA}\n```\nThis is", ADA),
        ('See [it]: {"name": "A', '{"name": "A'),
        ("Sure: [1, 2", "[1, 2"),
        ("I was about to", "I was about to"),
        ("", ""),
    ],
)
def test_a_cut_answer_is_given_as_it_is(text: str, seen: str, reason: FinishReason) -> None:
    wanted = merged([TextDelta(seen), Finish(reason)])
    assert all(outcome == wanted for outcome in outcomes(lambda: StructuredReader(PERSON), text, [Finish(reason)]))
    reader = answer(text, PERSON, reason)
    assert given_of(reader) == seen
    assert reader.cut


@pytest.mark.parametrize("text", [ADA, "{'name': 'Ada', 'age': 36}", "Nothing."])
def test_a_whole_answer_is_not_cut(text: str) -> None:
    reader = answer(text)
    reader.close()
    assert not reader.cut


def test_calls_of_a_cut_answer_are_not_cut_json() -> None:
    reader = StructuredReader(PERSON)
    run(reader, [TextDelta("{"), ToolCallStart(0, "call_1", "f"), Finish("length")])
    assert not reader.cut


# Other events


def test_other_events_pass_and_the_end_comes_last() -> None:
    reader = StructuredReader(PERSON)
    assert reader.feed(ReasoningDelta("Hm.")) == (ReasoningDelta("Hm."),)
    assert reader.feed(Usage(1, 2)) == (Usage(1, 2),)
    assert not reader.feed(TextDelta(ADA[:5]))
    assert not reader.feed(FINISH)
    assert not reader.feed(TextDelta(ADA[5:]))
    assert list(reader.close()) == [TextDelta(ADA), FINISH]


def test_of_an_answer_with_calls_the_text_is_dropped() -> None:
    """Clients read any text of an answer as JSON."""
    call: list[Event] = [ToolCallStart(0, "call_1", "f"), ToolCallDelta(0, "{}")]
    more: list[Event] = [ToolCallStart(1, "call_2", "f"), ToolCallDelta(1, "{}")]
    events = [TextDelta("Let me "), TextDelta("look."), *call, TextDelta(" So."), *more, Finish("tool_calls")]
    reader = StructuredReader(PERSON)
    assert run(reader, events) == [*call, *more, Finish("tool_calls")]
    assert not reader.problem
    assert run(StructuredReader(PERSON), [*call, Finish("tool_calls")]) == [*call, Finish("tool_calls")]


def test_an_answer_without_end_is_held_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structured, "MAX_TEXT", 100)
    reader = StructuredReader(ANY)
    for _ in range(30):
        reader.feed(TextDelta('{"a":1}'))
    assert not reader.close()
    assert "longer than 100" in reader.problem
    assert len(reader.text) == 100


# Anything


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=5), JSON, max_size=4)


@settings(deadline=None)  # a busy machine is no fault
@given(
    value=OBJECTS,
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 2]),
    around=st.sampled_from([("", ""), ("```json\n", "\n```"), ("Sure!\n\n", "\n\nBye."), ("Text\n```\n", "")]),
)
def test_any_object_is_found_to_the_character(
    value: dict[str, Any], ascii_only: bool, indent: int | None, around: tuple[str, str]
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert given_of(answer(text.join(around), ANY)) == text


@settings(deadline=None)  # a busy machine is no fault
@given(
    pieces=st.lists(
        st.sampled_from(
            ["{", "}", "[", "]", '"', "'", ":", ",", "\\", "```", "\n", " ", "a", '"name"', "1", "NaN", "~~~"]
        ),
        max_size=30,
    ),
    output=st.sampled_from([ANY, PERSON, NUMBERS]),
)
def test_whatever_comes_either_fits_or_is_a_problem(pieces: list[str], output: OutputFormat) -> None:
    whole = run(StructuredReader(output), [TextDelta("".join(pieces)), FINISH])
    reader = StructuredReader(output)
    assert run(reader, [*map(TextDelta, pieces), FINISH]) == whole
    if reader.problem:
        assert whole == []
    else:
        text, finish = whole
        assert finish == FINISH
        assert isinstance(text, TextDelta)
        assert isinstance(json.loads(text.text), list if output is NUMBERS else dict)
        assert given_of(answer(text.text, output)) == text.text


HOSTILE = [
    "{", "[", "`", "```\n", "```", "~~~\n", '"', "\\", "[]", "[1] ", '{"', '{"a":', '{"a"', '{"a":1},', "{a ", "[ ",
    '{"\\"', "```\n{\n", "```\n{}\n```\n", "\n", " ", "{'", '[{"a":[1,',
]  # fmt: skip


def seconds_for(text: str, reason: FinishReason) -> float:
    reader = answer(text, ANY, reason)
    began = time.process_time()
    reader.close()
    return time.process_time() - began


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_is_linear(piece: str) -> None:
    """A million characters take a moment; quadratic work on them would take hours."""
    text = piece * (1_000_000 // len(piece))
    assert seconds_for(text, "stop") < 15
    assert seconds_for(text, "length") < 15


@pytest.mark.parametrize("piece", [*HOSTILE, 'a"', "{*/]", "{]", '{"a"“"]"', "”"])
def test_repairs_have_a_bound(piece: str) -> None:
    """What begins as JSON is worth some work, but no more than that: 10 000 of these can take a minute."""
    for length in (2_000, 10_000, 100_000):
        assert seconds_for('{"b": 1, ' + piece * (length // len(piece)), "stop") < 15
