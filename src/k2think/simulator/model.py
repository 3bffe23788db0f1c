"""The model that is none: it thinks, calls tools, answers small arithmetic, echoes, and says what it is. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from k2think.simulator.arithmetic import find_and_calculate
from k2think.simulator.callformats import Call
from k2think.simulator.script import Script
from k2think.simulator.shapes import SHAPES, Output
from k2think.simulator.toolplay import Part, play, written_calls

_TOKEN = re.compile(r"</?|>|\s*[^\s<>]{1,16}|\s+")
_FILLER = "The simulator writes on, word by word, to give a stream of the length that was asked for. "
_MAX_ECHO = 400
_FOLDED = frozenset({"think_answer", "details"})


class Written(Struct, frozen=True):
    """One answer: what is written, where it is cut, and what it costs."""

    content: str
    reasoning: str
    fields: tuple[str, ...]
    blank: tuple[tuple[str, str | None], ...]
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    thinking: str
    """The thinking as such, where snapshots fold it away; else empty."""
    answer: str
    calls: tuple[Call, ...] = ()
    """Calls of tools in a field of their own."""


def write(
    script: Script, shape: str, body: Mapping[str, Any], hidden_prompt_tokens: int = 0, *, native: bool = False
) -> Written:
    """What the model makes of a request: `body` as OpenAI's, `shape` used where the script names none.

    `native`: the server takes `tools` and `response_format` themselves, not only what the prompt says of them.
    """
    part = play(script, body, native=native)
    thinking, answer = _thinking(script, part), _answer(script, part)
    calls = _native_calls(script, part)
    output = SHAPES[script.shape or shape](thinking, answer)
    if script.said is not None:
        output = Output(script.said, output.reasoning, output.fields, output.blank)
    if script.fault in {"empty", "empty_length"}:
        output = Output("", unfinished=script.fault == "empty_length")
    content, stopped = _stopped(output.content, body.get("stop"))
    reasoning, content, spent, exhausted = _limited(output.reasoning, content, _limit(body))
    if script.finish:
        finish = script.finish
    elif exhausted or (output.unfinished and not stopped):
        finish = "length"
    else:
        finish = "tool_calls" if calls else "stop"
    folded = (script.shape or shape) in _FOLDED and content == output.content and script.said is None
    return Written(
        content=content,
        reasoning=reasoning,
        fields=output.fields,
        blank=output.blank,
        finish_reason=finish,
        prompt_tokens=hidden_prompt_tokens + prompt_tokens(body.get("messages")),
        completion_tokens=spent,
        thinking=thinking if folded else "",
        answer=answer,
        calls=calls,
    )


def pieces(text: str, chunk: int = 0) -> Iterator[str]:
    """`text` in the pieces in which it is sent: tokens, or `chunk` characters each."""
    if chunk:
        return (text[start : start + chunk] for start in range(0, len(text), chunk))
    return (found.group() for found in _TOKEN.finditer(text))


def count_tokens(text: str) -> int:
    """About what a tokenizer would count."""
    return sum(1 for _ in _TOKEN.finditer(text))


def prompt_tokens(messages: Any) -> int:
    """About what a prompt of these messages costs."""
    total = 3
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, Mapping) else None
        parts = content if isinstance(content, list) else [{"text": content}]
        texts = (part.get("text") for part in parts if isinstance(part, Mapping))
        total += 4 + sum(count_tokens(text) for text in texts if isinstance(text, str))
    return total


def _thinking(script: Script, part: Part) -> str:
    if script.think is not None:
        return script.think
    if script.think_tokens is not None:
        return _tokens_of_filler(script.think_tokens)
    thoughts = [
        f'The user says: "{_shortened(script.text)}".',
        "I am the K2-Think simulator, so there is no model behind me.",
        "I can calculate a little and repeat what I was told.",
        *([part.thought] if part.thought else []),
    ]
    return f"\n{' '.join(thoughts)}\n"


def _native_calls(script: Script, part: Part) -> tuple[Call, ...]:
    """The calls beside the text: scripted ones always, others only where the text is not scripted."""
    if not part.native:
        return ()
    scripted = _scripted(script) is not None or script.said is not None or script.fault in {"empty", "empty_length"}
    return part.calls if script.call or not scripted else ()


def _answer(script: Script, part: Part) -> str:
    scripted, calls = _scripted(script), written_calls(script, part)
    if calls and (script.call or scripted is None):
        return f"{scripted}\n{calls}" if scripted else calls
    # A scripted call's own text is not said again when the results have come.
    if scripted is not None and not (script.call and part.prose is not None):
        return scripted
    if part.calls and not script.call:
        return ""
    return _talk(script) if part.prose is None else part.prose


def _scripted(script: Script) -> str | None:
    """The answer that a directive gives, if one does."""
    if script.answer is not None:
        return script.answer
    if script.tokens is not None:
        return _tokens_of_filler(script.tokens)
    if script.size is not None:
        return (_FILLER * (script.size // len(_FILLER) + 1))[: script.size]
    return None


def _talk(script: Script) -> str:
    found = find_and_calculate(script.text)
    calculated = f"{found[0]} = {found[1]}\n\n" if found else ""
    seen = f" I see images: {script.images}." if script.images else ""
    behind = f"This is the K2-Think simulator: no model is behind it.{seen}"
    return f"{calculated}{behind} You said: {_shortened(script.text)}"


def _tokens_of_filler(count: int) -> str:
    words = list(pieces(_FILLER))[:-1]
    text = "".join(words[index % len(words)] if index % len(words) else " The" for index in range(count))
    return text[1:]


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_ECHO else f"{text[:300]} … {text[-80:]}"


def _stopped(text: str, stop: Any) -> tuple[str, bool]:
    stops = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    found = [at for word in stops if isinstance(word, str) and word and (at := text.find(word)) >= 0]
    return (text[: min(found)], True) if found else (text, False)


def _limit(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _limited(reasoning: str, content: str, limit: int | None) -> tuple[str, str, int, bool]:
    """Both texts within `limit` tokens, how many were spent, and whether the limit cut anything off."""
    spent, exhausted, kept = 0, False, []
    for text in (reasoning, content):
        end = 0
        for found in _TOKEN.finditer(text):
            if limit is not None and spent == limit:
                exhausted = True
                break
            spent += 1
            end = found.end()
        kept.append(text[:end])
    return kept[0], kept[1], spent, exhausted
