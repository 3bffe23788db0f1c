"""Calls in a model's text: every form they are written in, and everything that only looks like one."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from splitting import every_split, merged

from k2think.dialogue.events import Event, Finish, FinishReason, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStart
from k2think.dialogue.prompt import Prompt, Tool, Toolbox
from k2think.inband.emulation import Emulation, Means
from k2think.simulator.callformats import FORMATS, Call

SHARED = Path(__file__).parents[4] / "shared" / "tool-calls"

CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}
WEATHER = Tool("get_weather", parameters=CITY)
TOOLS = (
    WEATHER,
    Tool("say_hello"),
    Tool("say_hello_world"),
    Tool("write", parameters={"type": "object", "properties": {"text": {"type": "string"}}}),
)
PARIS = ("get_weather", {"city": "Paris"})
BODY = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
CALL = f"<tool_call>\n{BODY}\n</tool_call>"


class Outcome:
    """What a client has at the end."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.text = "".join(event.text for event in events if isinstance(event, TextDelta))
        self.reasoning = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
        self.finish = [event.reason for event in events if isinstance(event, Finish)]
        starts = [event for event in events if isinstance(event, ToolCallStart)]
        assert [start.index for start in starts] == list(range(len(starts)))
        assert len({start.id for start in starts}) == len(starts)
        self.raw = [
            (
                start.name,
                "".join(e.arguments for e in events if isinstance(e, ToolCallDelta) and e.index == start.index),
            )
            for start in starts
        ]

    @property
    def calls(self) -> list[tuple[str, Any]]:
        return [(name, json.loads(arguments)) for name, arguments in self.raw]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outcome) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


def read(
    pieces: Sequence[str],
    tools: Sequence[Tool] = TOOLS,
    *,
    live: bool = True,
    finish: FinishReason = "stop",
    required: bool = False,
    parallel: bool = True,
    may_ask: bool = False,
) -> Outcome:
    """Read an answer that comes in these pieces, as the engine does."""
    emulation = reading(tools, live=live, required=required, parallel=parallel, may_ask=may_ask)
    events: list[Event] = []
    for piece in pieces:
        events += emulation.feed_all([TextDelta(piece)])
    events += emulation.feed_all([Finish(finish)])
    events += emulation.close()
    return Outcome(merged(events))


def reading(
    tools: Sequence[Tool] = TOOLS,
    *,
    live: bool = True,
    required: bool = False,
    parallel: bool = True,
    may_ask: bool = False,
) -> Emulation:
    prompt = Prompt("model", (), live=live, tools=Toolbox(tuple(tools), required, parallel))
    return Emulation(prompt, "present", Means(live=live, may_ask=may_ask))


def one(text: str, tools: Sequence[Tool] = TOOLS, **how: Any) -> Outcome:
    """The outcome of a text, which must not depend on how it is cut: at every place, or, where the same text is read
    once more to be checked, at some.
    """
    splits = [*every_split(text)]
    if not how.get("live", True):
        splits = [*splits[:2], *splits[2 :: max(1, len(text) // 12)]]
    outcomes = [read([piece for piece in pieces if piece], tools, **how) for pieces in splits]
    assert all(outcome == outcomes[0] for outcome in outcomes[1:])
    return outcomes[0]


# Forms


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("form", FORMATS)
def test_every_form_is_read(form: str, *, live: bool) -> None:
    calls = [Call("get_weather", '{"city": "Paris", "days": 3}'), Call("write", '{"text": "A <b> {c} \'d\'"}')]
    outcome = one(f"I look.\n\n{FORMATS[form](calls)}", live=live)
    assert outcome.calls == [("get_weather", {"city": "Paris", "days": 3}), ("write", {"text": "A <b> {c} 'd'"})]
    assert outcome.text.strip() in {"I look.", "I look.\n\nSure."}
    assert outcome.finish == ["tool_calls"]


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"arguments": {"city": "Paris"}, "name": "get_weather"}</tool_call>',
        '<tool_call>{"name": "functions.get_weather", "arguments": {"city": "Paris"}}</tool_call>',
        '<tool_call>\n```json\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n```\n</tool_call>',
        '```json\n<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>\n```',
        '<function_calls><tool_call>{"name": "get_weather", "input": {"city": "Paris"}}</function_call></tool_call>',
        '<tool_calls>[{"name": "get_weather", "arguments": {"city": "Paris"}}]</tool_calls>',
        """{"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "get_weather",
            "arguments": "{\\"city\\": \\"Paris\\"}"}, "id": "call_1", "type": "function"}]}""",
        '{"tool_call": {"name": "get_weather", "arguments": {"city": "Paris"}}}',
        '<tool_call>get_weather\n{"city": "Paris"}\n</tool_call>',
        '<tool_call>get_weather("Paris")</tool_call>',
        '<tool_call>[get_weather(city="Paris")]</tool_call>',
        "<function=get_weather>\n<parameter=city>\nParis\n</function>",
        '<invoke name="get_weather"><parameter name="city">Paris</parameter></invoke>',
        """<minimax:tool_call><invoke name="get_weather"><parameter name="city">Paris</parameter></invoke>
        </minimax:tool_call>""",
        '<function_call><name>get_weather</name><arguments>{"city": "Paris"}</arguments></function_call>',
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</tool_call>",
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}',
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"',
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_',
        "<tool_call><function=get_weather><parameter=city>Paris</param",
        '调用函数: get_weather\narguments: {"city": "Paris"}',
        '调用函数：`get_weather` 参数：```json\n{"city": "Paris"}\n```',
        '~~~json\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n~~~',
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"\n</tool_call>',
        "<function_call><tool>\nget_weather\n</tool><args><city>Paris</city></args></function_call>",
        '<tool_call><function=get_weather>\n{"city": "Paris"}\n</function></tool_call>',
        '<tool_call>get_weather({"city": "Paris"})</tool_call>',
        '[get_weather (city="""Paris""")]',
        """<tool_call>get_weather\n"{\\"city\\": \\"Paris\\"}"</tool_call>""",
        '<tool_call>{"id": 1, "why": "x", "name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>',
    ],
)
def test_odd_forms_are_read(text: str) -> None:
    for live in (True, False):
        outcome = one(text, live=live)
        assert outcome.calls == [PARIS]
        assert outcome.text == ""
        assert outcome.finish == ["tool_calls"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("<tool_call>say_hello</tool_call>", "say_hello"),
        ("<tool_call>say_hello_world\n</tool_call>", "say_hello_world"),
        ('<tool_call>{"name": "say_hello"}</tool_call>', "say_hello"),
        ('<tool_call>{"name": "say_hello_world", "arguments": null}</tool_call>', "say_hello_world"),
        ('{"name": "say_hello", "arguments": ""}', "say_hello"),
        ("[say_hello_world()]", "say_hello_world"),
        ("<function=say_hello>\n</function>", "say_hello"),
        ("<function_call><tool>say_hello</tool></function_call>", "say_hello"),
    ],
)
def test_calls_without_arguments(text: str, name: str) -> None:
    assert one(text).raw == [(name, "{}")]


def test_several_calls_in_prose() -> None:
    outcome = one(f"First.\n{CALL}\n\nThen more.\n\n{CALL.replace('Paris', 'Rome')}\nDone!")
    assert outcome.calls == [PARIS, ("get_weather", {"city": "Rome"})]
    assert outcome.text.split() == ["First.", "Then", "more.", "Done!"]


def test_several_calls_in_one_wrapper() -> None:
    bodies = [BODY] * 2
    for between in ("", "\n", ", "):
        assert one(f"<tool_call>{between.join(bodies)}</tool_call>").calls == [PARIS] * 2
    pythonic = 'get_weather(city="Paris")'
    for between in ("\n", ", "):
        assert one(f"<tool_call>{between.join([pythonic] * 2)}</tool_call>").calls == [PARIS] * 2
        assert one(f"FN_CALL=True\n{between.join([pythonic] * 2)}").calls == [PARIS] * 2


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (f"```json\n{BODY}\n{BODY}\n```", ""),
        (f"```\n{CALL}\n{CALL}\n```\nDone", "Done"),
        (f"- ```json\n{BODY}\n```\n- ```json\n{BODY}\n```", "- -"),
        (f"Here: ```json\n{BODY}\n``` and\n{CALL}", "Here: and"),
        (f'<tool_call>\n{{"name": "get_weather", "arguments": {{"city": "Paris"\n</tool_call>\n{CALL}', ""),
        (f'<tool_call>\n{{"name": "get_weather", "arguments": {{"city": "Paris"\n{CALL}', ""),
        (
            f"""<tool_call>{{"name": "get_weather", "arguments": "{{\\"city\\": \\"Paris\\"}}"}}</tool_call>
            Bye\n{CALL}""",
            "Bye",
        ),
        (f"```json\n{BODY}\nmore\n```\n{CALL}", "more ```"),
    ],
)
def test_what_follows_a_call_is_read_as_well(text: str, rest: str) -> None:
    for live in (True, False):
        outcome = one(text, live=live)
        assert outcome.calls == [PARIS] * 2
        assert outcome.text.split() == rest.split()


def test_values_that_tags_cannot_hold_as_json() -> None:
    value = 'line 1\n  line 2\n<div class="x"> & </div>'
    text = f"<tool_call><function=write><parameter=text>\n{value}\n</parameter></function></tool_call>"
    assert one(text).calls == [("write", {"text": value})]


# What is none


@pytest.mark.parametrize(
    "text",
    [
        "The format is a <tool_call> tag, or maybe <tool_call",
        'In code it is `<tool_call>{"name": "get_weather", "arguments": {}}</tool_call>` or so.',
        f"```python\nx = [get_weather(city='a') for c in l]\n{CALL}\n```\nDone <b>x</b>",
        "```\n$ get_weather\n```",
        '```json\n{"status": "ok", "items": [1, 2]}\n```\nThat is all.',
        '{"name": "get_weather", "version": "1.0.0"}',
        '{"name": "my-app", "arguments": {"a": 1}}',
        "{'name': 'test', 'arguments': {}}",
        '{"arguments": {"x": 1}}',
        '{"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}',
        '{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}',
        '[{"role": "user", "content": "get_weather"}]',
        "[say_hello()](https://example.com) and [say_hello(): greets you]",
        "<function=write> is the tag, <invoke name='write'/> works, see <function=write>...</function>",
        "The tag: <tool_call>get_weather</tool_call> means",
        '{"type": "function", "function": {"name": "say_hello"}}',
        '{"tool_choice": {"type": "function", "function": {"name": "write"}}}',
        '{"name": "write", "parameters": {"title": "x", "type": "object"}}',
        '{,"name": "say_hello", "arguments": {}}',
        "[get_weather](https://example.com) and [special delivery] and [ ] [x] [1]",
        "[get_weather(city) is it] or [get_weather(x for x in y)]",
        'get_weather(city="Paris") would call it.',
        '<tool_call>\n{"name": "nope", "arguments": {}}\n</tool_call>',
        '<function=nope><parameter=a>1</parameter></function> <invoke name="nope">',
        "FN_CALL=False\nget_weather(city='Paris')",
        "FN_CALL=True\nnothing",
        '调用函数：nope 参数：{"a": 1}',
        "调用函数 get_weather",
        "In math, f(x) = x < 3 ? [1, 2] : [g(x=1)] is fine, and `a<b>c` is not a tag.",
        "The tags <tool and </think are not closed here. {{x}} ${y} [[z]]",
        'for { fmt.Println("hello") }',
        "   \n\n  blanks  \n ",
        "<tool_call>\n<tool_call>\n<tool_call>\n<tool_call>\n<tool_call>\nx",
        "It ends with {",
        "It ends with <",
        "It ends with ```",
        '{"id": "abc\\" d", "x": 1}',
    ],
)
def test_text_that_is_no_call_stays_to_the_byte(text: str) -> None:
    for live in (True, False):
        outcome = one(text, live=live)
        assert outcome.raw == []
        assert outcome.text == text
        assert outcome.finish == ["stop"]


@given(st.text(alphabet="<>{}[]()\"'`=:,/ \nabtool_cfuninvkesyhgw|调用函数：FN_CALL", max_size=80), st.integers(1, 79))
def test_nothing_of_a_text_is_lost(text: str, place: int) -> None:
    outcome = read([text])
    if not outcome.raw:
        assert outcome.text == text
    assert read([piece for piece in (text[:place], text[place:]) if piece]) == outcome


WITHOUT_JSON = {"toolify", "qwen3", "glm", "ifm_xml", "ifm_typed", "invoke", "tool_calls_invoke"}


@given(
    st.text(max_size=60),
    st.integers(-(10**20), 10**20),
    st.sampled_from(
        sorted(set(FORMATS) - {"toolify", "qwen3", "glm", "ifm_xml", "ifm_typed", "invoke", "tool_calls_invoke"})
    ),
    st.integers(1, 9),
    st.booleans(),
)
def test_any_text_can_be_an_argument(text: str, number: int, form: str, size: int, live: bool) -> None:
    arguments = {"text": text, "more": [number, {"text": text}]}
    written = FORMATS[form]([Call("write", json.dumps(arguments, ensure_ascii=False))])
    pieces = [written[place : place + size] for place in range(0, len(written), size)]
    if form == "toolify_json" and "]]>" in text:
        return
    assert read(pieces, live=live).calls == [("write", arguments)]


# Streaming


def test_name_and_arguments_leave_as_soon_as_they_are_sure() -> None:
    emulation = reading()
    seen = [
        merged(emulation.feed_all([TextDelta(piece)])) for piece in ("Hm. <tool", '_call>{"name": "get_w', 'eather"')
    ]
    assert seen == [[TextDelta("Hm.")], [], []]
    (start, first) = emulation.feed_all([TextDelta(', "arguments": {"city": "P')])
    assert isinstance(start, ToolCallStart)
    assert start.name == "get_weather"
    assert first == ToolCallDelta(0, '{"city": "P')
    assert list(emulation.feed_all([TextDelta("aris")])) == [ToolCallDelta(0, "aris")]


def test_a_call_that_waits_to_be_checked_comes_whole() -> None:
    emulation = reading(live=False)
    for piece in CALL[:-15]:
        assert not [event for event in emulation.feed_all([TextDelta(piece)]) if not isinstance(event, TextDelta)]
    events = [*emulation.feed_all([TextDelta(CALL[-15:])]), *emulation.close()]
    assert [type(event) for event in events[:2]] == [ToolCallStart, ToolCallDelta]


def test_text_is_held_only_while_it_may_open_a_call() -> None:
    emulation = reading()
    for text in (
        "Is a < b? ",
        "<tools>",
        '{"nam',
        'x": 1}',
        "[get_weather]",
        "```python\n",
        "[say_x",
        " `x` <tool_call> y",
    ):
        given = "".join(e.text for e in emulation.feed_all([TextDelta(text + "\n.")]) if isinstance(e, TextDelta))
        assert given.endswith(".")


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        ('<tool_call>{"name": "write", "arguments": {"text": "half', [("write", '{"text": "half')]),
        ("<function=write><parameter=text>half", [("write", "")]),
    ],
)
def test_a_call_that_became_too_long_is_not_completed(text: str, raw: list[tuple[str, str]]) -> None:
    outcome = one(text, live=True, finish="length")
    assert outcome.raw == raw
    assert outcome.finish == ["length"]
    held = one(text, live=False, finish="length")
    assert (held.raw, held.text, held.finish) == ([], text, ["length"])


def test_at_most_one_call_and_then_nothing() -> None:
    emulation = reading(parallel=False)
    events = [*emulation.feed_all([TextDelta(f"{CALL}\n{CALL}\nMore.")])]
    assert emulation.satisfied
    outcome = Outcome([*events, *emulation.close()])
    assert (outcome.calls, outcome.text, outcome.finish) == ([PARIS], "", ["tool_calls"])


def test_a_model_that_plays_the_tool_is_cut_off() -> None:
    outcome = one(f'{CALL}\n<tool_response>\n{{"name": "get_weather", "content": "Sunny"}}\n</tool_response>\nSunny!')
    assert (outcome.calls, outcome.text, outcome.finish) == ([PARIS], "", ["tool_calls"])


def test_text_waits_where_a_call_is_required() -> None:
    emulation = reading(required=True)
    assert not emulation.feed_all([TextDelta("Let me look.\n")])
    assert merged(emulation.feed_all([TextDelta(CALL)]))[0] == TextDelta("Let me look.")
    assert one("I would rather not. ", required=True).text == "I would rather not. "


# Thinking


def test_calls_in_thinking_are_drafts() -> None:
    assert one(f"<think>{CALL}</think>No.").raw == []
    assert one(f"<think>{CALL}</think>").raw == []


@pytest.mark.parametrize("live", [True, False])
def test_the_last_calls_of_thinking_that_never_ended_are_rescued(*, live: bool) -> None:
    draft = CALL.replace("Paris", "X")
    outcome = one(f"<think>Perhaps {draft}? No:\n{CALL}\n{CALL.replace('Paris', 'Rome')}\n", live=live)
    assert outcome.calls == [PARIS, ("get_weather", {"city": "Rome"})]
    assert outcome.finish == ["tool_calls"]
    assert "Perhaps" in outcome.reasoning


def test_thinking_by_its_own_channel_is_rescued_as_well() -> None:
    for after, calls in (([], [PARIS]), ([TextDelta("No.")], [])):
        emulation = reading()
        events = [*emulation.feed_all([ReasoningDelta(CALL), *after, Finish("stop")]), *emulation.close()]
        assert Outcome(events).calls == calls


# Checking


WRONG = '<tool_call>{"name": "get_weather", "arguments": {"town": "Paris"}}</tool_call>'


def test_what_cannot_be_used_is_a_reason_to_ask_again() -> None:
    emulation = reading(live=False, may_ask=True)
    events = [*emulation.feed_all([TextDelta(f"Hm. {WRONG}"), Finish("stop")]), *emulation.close()]
    assert Outcome(events).raw == []
    assert '"city" is a required property' in emulation.problem
    *_, said, complaint = emulation.asked_again().messages
    assert (said.role, said.text) == ("assistant", f"Hm. {WRONG}")
    assert "Answer again" in complaint.text
    assert emulation.outcomes() == [("get_weather", "reasked")]


def test_what_cannot_be_used_in_the_end_is_text() -> None:
    outcome = one(f"Hm.\n{WRONG}\nSo.", live=False)
    assert (outcome.text, outcome.raw, outcome.finish) == (f"Hm.\n{WRONG}\nSo.", [], ["stop"])


def test_what_has_left_is_never_text_as_well() -> None:
    outcome = one(WRONG, live=True, may_ask=True)
    assert (outcome.raw, outcome.text) == ([("get_weather", '{"town": "Paris"}')], "")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ('{"city": "Paris", "days": "3"}', {"city": "Paris", "days": 3}),
        ("{'city': 'Paris', 'days': None}", {"city": "Paris"}),
        ('{"city": ["Paris"]}', {"city": "Paris"}),
        ('{"city": "Paris" "days": 3}', {"city": "Paris", "days": 3}),
        ('"Paris"', {"city": "Paris"}),
    ],
)
def test_what_can_be_mended_is(arguments: str, found: dict[str, Any]) -> None:
    emulation = reading(live=False)
    text = f'<tool_call>\n{{"name": "get_weather", "arguments": {arguments}}}\n</tool_call>'
    events = [*emulation.feed_all([TextDelta(text), Finish("stop")]), *emulation.close()]
    assert Outcome(events).calls == [("get_weather", found)]
    assert emulation.outcomes() == [("get_weather", "repaired")]


# Bounds


HOSTILE = """< { [ ` {" [" [get_weather( <tool_call> {"name": {"arguments": 调用函数： {"tool_calls":[ {"id":"
<function=write><parameter=text>"""


@pytest.mark.parametrize("unit", [*HOSTILE.split(), "```\n", "{ ", "FN_CALL=True\n", CALL])
def test_hostile_texts_take_linear_time(unit: str) -> None:
    """Steps of the reader are counted, not seconds: twice the text may take about twice the steps."""
    counts = [_lines_run(unit * (size // len(unit))) for size in (1_000, 2_000)]
    assert counts[1] < 2.6 * counts[0]


def _lines_run(text: str) -> int:
    count = 0

    def trace(_frame: Any, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        read([text], (WEATHER, *TOOLS[3:]))
    finally:
        sys.settrace(before)
    return count


# Other projects' cases


def cases(name: str) -> list[Any]:
    path = SHARED / f"{name}.jsonl"
    if not path.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason="the shared cases are not here"))]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [pytest.param(row, id=row["id"]) for row in rows]


@pytest.mark.parametrize("case", [case for name in ("formats", "broken", "parsers", "bfcl") for case in cases(name)])
def test_public_cases(case: dict[str, Any]) -> None:
    functions = [tool["function"] for tool in case["tools"]]
    tools = [Tool(function["name"], "", function.get("parameters") or {}) for function in functions]
    text, expected = case["text"], case["expected"]
    outcome = read([text], tools)
    assert [name for name, _ in outcome.calls] == [call["name"] for call in expected["tool_calls"]]
    for call, (_, arguments) in zip(expected["tool_calls"], outcome.calls, strict=True):
        assert isinstance(arguments, dict)
        assert call["arguments"] in (None, arguments)
    for check in expected.get("arg_checks", ()):
        value = outcome.calls[check["call"]][1]
        for key in check["path"]:
            value = value[key]
        assert value == check["value"]
    if "content" in expected:
        assert outcome.text.strip() == (expected["content"] or "").strip()
    if expected.get("reasoning") is not None:
        assert outcome.reasoning == expected["reasoning"]
    assert outcome.finish == ["tool_calls" if expected["tool_calls"] else "stop"]
    places = sorted(random.Random(text).sample(range(1, len(text)), min(9, len(text) - 1)))
    pieces = [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]
    for other in (list(text), pieces):
        assert read(other, tools) == outcome
    assert read(pieces, tools, live=False).calls == outcome.calls
