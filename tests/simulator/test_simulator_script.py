"""Directives and the texts they make, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from k2think.simulator.arithmetic import CannotCalculate, calculate, find_and_calculate, shown
from k2think.simulator.events import Wire, snapshots
from k2think.simulator.model import count_tokens, pieces, write
from k2think.simulator.script import FAULTS, BadDirective, Script, known_fault, read_script
from k2think.simulator.shapes import SHAPES

R, A = "First this. Then that.", "One answer, in words."

TEXTS = {
    "think_answer": f"<think>{R}</think>\n<answer>{A}</answer>",
    "think_only_tags": f"<think>{R}</think>{A}",
    "no_opener": f"{R}</think>{A}",
    "no_opener_answer": f"{R}</think>\n<answer>{A}</answer>",
    "attribute": f'<think duration="12">{R}</think>{A}',
    "details": '<details type="reasoning" done="true" duration="3">\n<summary>Thought for 3 seconds</summary>\n'
    f"> {R}\n</details>\n<answer>{A}</answer>",
    "answer_unclosed": f"<think>{R}</think>\n<answer>{A}",
    "think_unclosed": f"<think>{R}",
    "empty_think": f"<think></think>{A}",
    "blank_think": f"<think>\n\n</think>\n\n{A}",
    "nested_think": "<think>First this. <think>A thought within.</think>Then that.</think>\n" + f"<answer>{A}</answer>",
    "several_thinks": "<think>First this. </think>One answer, <think>Then that.</think>in words.",
    "quoted_in_fence": f"<think>{R}</think>\n<answer>{A}\n```xml\n<think>How a model thinks.</think>\n"
    "<answer>How it answers.</answer>\n```\n</answer>",
    "tags_in_thought": f"<think>{R} I end `<think>` first, and the rest goes between `<answer>` and its end.</think>\n"
    f"<answer>{A}</answer>",
    "draft_answer": f"<think>{R} <answer>A draft.</answer> No, better.</think>\n<answer>{A}</answer>",
    "fast": f"<think_fast>{R}</think_fast>{A}",
    "fast_no_opener": f"{R}</think_fast>{A}",
    "faster": f"<think_faster>{R}</think_faster>{A}",
    "faster_no_opener": f"{R}</think_faster>{A}",
    "ifm": f"<ifm|think>{R}</ifm|think>{A}",
    "ifm_fast": f"<ifm|think_fast>{R}</ifm|think_fast>{A}",
    "ifm_faster": f"<ifm|think_faster>{R}</ifm|think_faster>{A}",
    "ifm_mismatched": f"<ifm|think_fast>{R}</ifm|think>{A}",
    "reasoning_content": A,
    "reasoning": A,
    "reasoning_both": A,
    "thinking": A,
    "reasoning_and_tags": f"\n<answer>{A}</answer>",
    "reasoning_null": f"<think>{R}</think>{A}",
    "reasoning_empty": f"<think>{R}</think>{A}",
    "prose": f"We need to think first. {R} Thus final answer: {A}",
    "plain": A,
}


def user(text: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_writes_the_text_it_is_named_for(shape: str) -> None:
    written = write(Script(think=R, answer=A), shape, {})
    assert written.content == TEXTS[shape]
    assert written.reasoning == (R if written.fields else "")
    assert written.finish_reason == ("length" if shape in {"answer_unclosed", "think_unclosed"} else "stop")


def test_shapes_name_the_fields_that_hold_the_thinking() -> None:
    fields = {shape: write(Script(), shape, {}).fields for shape in SHAPES}
    assert {shape: names for shape, names in fields.items() if names} == {
        "reasoning_content": ("reasoning_content",),
        "reasoning": ("reasoning",),
        "reasoning_both": ("reasoning_content", "reasoning"),
        "thinking": ("thinking",),
        "reasoning_and_tags": ("reasoning_content",),
    }
    blanks = [write(Script(), shape, {}).blank for shape in ("reasoning_null", "reasoning_empty", "plain")]
    assert blanks == [(("reasoning_content", None),), (("reasoning_content", ""),), ()]


def test_directives_are_read_anywhere_in_the_last_user_turn_and_taken_out_of_it() -> None:
    script = read_script(
        [
            *user("[[shape=plain]] earlier"),
            {"role": "assistant", "content": "[[shape=fast]]"},
            *user('What [[shape=ifm delay=0.5]] is [[ think="two words" times=2 form=crlf,comments ]] it?'),
        ]
    )
    assert script.text == "What  is  it?"
    assert (script.shape, script.delay, script.think, script.times) == ("ifm", 0.5, "two words", 2)
    assert script.form == {"crlf", "comments"}


def test_requests_share_a_key_only_if_they_say_so_or_are_the_same() -> None:
    one, other = read_script(user("[[fault=500 times=1]] a")), read_script(user("[[fault=500 times=1]] b"))
    assert one.key != other.key
    assert one.key == read_script(user("[[fault=500 times=1]] a")).key
    assert read_script(user("[[fault=500 times=1 key=k]] a")).key == "k"


@pytest.mark.parametrize("text", ["[[Wiki page]]", "if [[ $a = b ]]; then", "[[]]", "[[1, 2], [3, 4]]", "[[a=b] c=]]"])
def test_other_double_brackets_are_text(text: str) -> None:
    assert read_script(user(text)).text == text


@pytest.mark.parametrize(
    "directive",
    ["shap=plain", "shape=plane", "fault=200", "fault=cute", "form=deltas,nope", "delay=-1", "delay=x", "tokens=1e3"],
)
def test_a_mistyped_directive_is_an_error(directive: str) -> None:
    with pytest.raises(BadDirective):
        read_script(user(f"[[{directive}]]"))


def test_say_makes_the_rest_of_the_text_the_output_verbatim() -> None:
    script = read_script(user("[[finish=length]] hi [[say]]<tool_call>\n[[x=1]]  "))
    assert (script.text, script.said) == ("hi", "<tool_call>\n[[x=1]]  ")
    assert write(script, "think_answer", {}).content == "<tool_call>\n[[x=1]]  "
    ended = read_script(user("[[say]]a[[/say]] and what others added"))
    assert (ended.text, ended.said) == ("and what others added", "a")


def test_parts_that_are_text_count_and_strange_messages_do_no_harm() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "image_url"}, {"type": "text", "text": "[[shape=fast]]"}]
    assert read_script(user(parts)).shape == "fast"
    for messages in (None, 3, [], [None], ["x"], [{"role": "user"}], user(None), user([1, {"text": 2}]), user(4)):
        assert read_script(messages).text == ""


def test_every_listed_fault_and_any_error_status_is_known() -> None:
    assert all(known_fault(name) for name in FAULTS)
    assert all(known_fault(name) for name in ("408", "410", "413", "422", "529", "502_text", "429_sse", "backend_403"))
    assert not any(known_fault(name) for name in ("200", "4040", "429_", "502_xml", ""))


def test_the_answer_without_directives_calculates_echoes_and_says_what_it_is() -> None:
    content = write(read_script(user("What is 6*7?")), "think_answer", {}).content
    thinking, _, answer = content.partition("</think>\n<answer>")
    assert "What is 6*7?" in thinking and "no model" in thinking
    assert answer.startswith("6*7 = 42\n") and "simulator" in answer and answer.endswith("What is 6*7?</answer>")


def test_a_long_question_is_echoed_shortened() -> None:
    content = write(read_script(user("begin" + "x" * 100_000 + "end")), "plain", {}).content
    assert len(content) < 600 and "begin" in content and content.endswith("end")


def test_tokens_and_size_are_the_lengths_asked_for() -> None:
    for count in (0, 1, 17, 1000):
        assert count_tokens(write(Script(tokens=count), "plain", {}).content) == count
        assert len(write(Script(size=count), "plain", {}).content) == count
    assert write(Script(tokens=50, think_tokens=30), "reasoning_content", {}).completion_tokens == 80


def test_pieces_are_the_text_and_may_be_of_any_size() -> None:
    text = "<think>Grüße, 你好 🙂</think>\n\n  <answer>x" + "y" * 50
    assert "".join(pieces(text)) == text
    assert list(pieces(text))[:5] == ["<", "think", ">", "Grüße,", " 你好"]
    assert list(pieces("abcde", 2)) == ["ab", "cd", "e"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_max_tokens_cuts_thinking_and_answer_together(name: str) -> None:
    written = write(Script(think="a b c", answer="d e f"), "reasoning_content", {name: 4})
    assert (written.reasoning, written.content, written.finish_reason) == ("a b c", "d", "length")
    assert written.completion_tokens == 4
    enough = write(Script(think="a b c", answer="d e f"), "reasoning_content", {name: 6})
    assert (enough.content, enough.finish_reason) == ("d e f", "stop")


@pytest.mark.parametrize("stop", ["!", ["?", "!"]])
def test_stop_ends_the_answer_before_it(stop: Any) -> None:
    written = write(Script(answer="Yes! No?"), "plain", {"stop": stop})
    assert (written.content, written.finish_reason) == ("Yes", "stop")


def test_snapshots_fold_the_thinking_and_rewrite_its_end() -> None:
    texts = [event.decode() for event in snapshots(write(Script(think="a\nb", answer="c d"), "think_answer", {}), 0)]
    assert texts[0] == (
        r'{"content":"<details type=\"reasoning\" done=\"false\">\n<summary>Thinking…</summary>\n> a\n</details>"}'
    )
    done = r'{"content":"<details type=\"reasoning\" done=\"true\" duration=\"3\">\n<summary>Thought for 3 seconds'
    done += r"</summary>\n> a\n> b\n</details>\n<answer>c"
    assert texts[2:] == [f'{done}"}}', f'{done} d"}}', f'{done} d</answer>"}}']


def test_split_bytes_cuts_characters_and_tags() -> None:
    writes = Wire(frozenset({"split_bytes"})).feed("<a>ü".encode())
    assert b"".join(writes) == "data: <a>ü\n\n".encode()
    assert b"data: <" in writes and b"a" in writes and b"\xc3" in writes


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("6*7", "42"),
        ("2 + 3 * 4", "14"),
        ("(2+3)*4", "20"),
        ("-2**2", "-4"),
        ("2**-1", "0.5"),
        ("2**3**2", "512"),
        ("7//2 + 7%4", "6"),
        ("10/4", "2.5"),
        ("10/5", "2"),
        ("0.1+0.2", "0.3"),
        ("2^10", "1024"),
        ("3×4÷2", "6"),
        ("--3", "3"),
        (".5 * 4", "2"),
    ],
)
def test_small_arithmetic_is_right(expression: str, value: str) -> None:
    assert shown(calculate(expression)) == value


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9",
        "9**9**9**9**9",
        "(10**400)*(10**400)*(10**400)*(10**400)",
        "1e9",
        "1/0",
        "0**-1",
        "(-8)**0.5",
        "2.0**5000",
        "10**1000/3",
        "(" * 199,
        "-" * 199 + "1",
        "(" * 60 + "1" + ")" * 60,
        "1+",
        "1 2",
        "",
        ")",
        "__import__('os')",
        "1" * 201,
        "1.2.3",
    ],
)
def test_hostile_arithmetic_is_refused_at_once(expression: str) -> None:
    with pytest.raises(CannotCalculate):
        calculate(expression)


def test_arithmetic_is_found_in_a_sentence() -> None:
    assert find_and_calculate("Please tell me what (12 + 30) / 2 is.") == ("(12 + 30) / 2", "21")
    assert find_and_calculate("I was born in 1990, on a Monday - or not.") is None
    assert find_and_calculate("9**9**9, but 1+1 too") == ("1+1", "2")
    assert find_and_calculate("+-" * 100_000) is None
