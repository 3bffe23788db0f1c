"""The ways in which models of this family have been seen to write their thinking and their answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Output:
    """What the model writes: `content`, and `reasoning` in the fields named by `fields` where the server splits it off.

    `blank` holds fields that stand in the answer without holding anything (null or an empty text).
    `unfinished`: the text stops in its middle, so the answer ends with `length`.
    """

    content: str
    reasoning: str = ""
    fields: tuple[str, ...] = ()
    blank: tuple[tuple[str, str | None], ...] = ()
    unfinished: bool = False


Shape: TypeAlias = Callable[[str, str], Output]


def _inline(template: str, *, unfinished: bool = False) -> Shape:
    """Thinking and answer within one text; `%R` and `%A` stand for them."""
    before, _, rest = template.partition("%R")
    between, _, after = rest.partition("%A")
    if "%A" not in template:
        return lambda thinking, _: Output(f"{before}{thinking}{rest}", unfinished=unfinished)
    return lambda thinking, answer: Output(f"{before}{thinking}{between}{answer}{after}", unfinished=unfinished)


def _fields(*names: str, blank: tuple[tuple[str, str | None], ...] = ()) -> Shape:
    return lambda thinking, answer: Output(answer, thinking, names, blank)


def _details(thinking: str, answer: str) -> Output:
    return Output(f"{details(thinking, done=True)}\n<answer>{answer}</answer>")


def details(thinking: str, *, done: bool) -> str:
    """Thinking as the service's page gets it: folded away, each line a quotation."""
    head = (
        '<details type="reasoning" done="true" duration="3">\n<summary>Thought for 3 seconds</summary>'
        if done
        else '<details type="reasoning" done="false">\n<summary>Thinking…</summary>'
    )
    quoted = "\n".join(line if line.startswith(">") else f"> {line}" for line in thinking.split("\n"))
    return f"{head}\n{quoted}\n</details>"


def _halves(text: str) -> tuple[str, str]:
    middle = text.find(" ", len(text) // 2) + 1 or len(text)
    return text[:middle], text[middle:]


def _nested(thinking: str, answer: str) -> Output:
    first, second = _halves(thinking)
    return Output(f"<think>{first}<think>A thought within.</think>{second}</think>\n<answer>{answer}</answer>")


def _several(thinking: str, answer: str) -> Output:
    (first, second), (begin, end) = _halves(thinking), _halves(answer)
    return Output(f"<think>{first}</think>{begin}<think>{second}</think>{end}")


def _quoted_in_fence(thinking: str, answer: str) -> Output:
    fence = "```xml\n<think>How a model thinks.</think>\n<answer>How it answers.</answer>\n```"
    return Output(f"<think>{thinking}</think>\n<answer>{answer}\n{fence}\n</answer>")


def _tags_in_thought(thinking: str, answer: str) -> Output:
    spoken = "I end `<think>` first, and the rest goes between `<answer>` and its end."
    return Output(f"<think>{thinking} {spoken}</think>\n<answer>{answer}</answer>")


def _draft(thinking: str, answer: str) -> Output:
    return Output(f"<think>{thinking} <answer>A draft.</answer> No, better.</think>\n<answer>{answer}</answer>")


SHAPES: dict[str, Shape] = {
    "think_answer": _inline("<think>%R</think>\n<answer>%A</answer>"),
    "think_only_tags": _inline("<think>%R</think>%A"),
    "no_opener": _inline("%R</think>%A"),
    "no_opener_answer": _inline("%R</think>\n<answer>%A</answer>"),
    "attribute": _inline('<think duration="12">%R</think>%A'),
    "details": _details,
    "answer_unclosed": _inline("<think>%R</think>\n<answer>%A", unfinished=True),
    "think_unclosed": _inline("<think>%R", unfinished=True),
    "empty_think": lambda _, answer: Output(f"<think></think>{answer}"),
    "blank_think": lambda _, answer: Output(f"<think>\n\n</think>\n\n{answer}"),
    "nested_think": _nested,
    "several_thinks": _several,
    "quoted_in_fence": _quoted_in_fence,
    "tags_in_thought": _tags_in_thought,
    "draft_answer": _draft,
    "fast": _inline("<think_fast>%R</think_fast>%A"),
    "fast_no_opener": _inline("%R</think_fast>%A"),
    "faster": _inline("<think_faster>%R</think_faster>%A"),
    "faster_no_opener": _inline("%R</think_faster>%A"),
    "ifm": _inline("<ifm|think>%R</ifm|think>%A"),
    "ifm_fast": _inline("<ifm|think_fast>%R</ifm|think_fast>%A"),
    "ifm_faster": _inline("<ifm|think_faster>%R</ifm|think_faster>%A"),
    "ifm_mismatched": _inline("<ifm|think_fast>%R</ifm|think>%A"),
    "reasoning_content": _fields("reasoning_content"),
    "reasoning": _fields("reasoning"),
    "reasoning_both": _fields("reasoning_content", "reasoning"),
    "thinking": _fields("thinking"),
    "reasoning_and_tags": lambda thinking, answer: Output(
        f"\n<answer>{answer}</answer>", thinking, ("reasoning_content",)
    ),
    "reasoning_null": lambda thinking, answer: Output(
        f"<think>{thinking}</think>{answer}", blank=(("reasoning_content", None),)
    ),
    "reasoning_empty": lambda thinking, answer: Output(
        f"<think>{thinking}</think>{answer}", blank=(("reasoning_content", ""),)
    ),
    "prose": _inline("We need to think first. %R Thus final answer: %A"),
    "plain": lambda _, answer: Output(answer),
}
"""Name -> how thinking and answer become the model's output."""
