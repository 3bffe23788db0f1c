"""What a message asks the simulator to do: directives, `[[key=value key="two words"]]`, anywhere in the last user turn.

They are taken out of the text before it is answered; several are read as one. Double brackets with anything else in
them are plain text. Keys: see `Script`, one field each. `[[say]]` makes all text behind it (or up to `[[/say]]`) the
model's raw output, verbatim. A turn without directives takes over those of the last turn that had some, if that one
said `stubborn=yes`. Results of tools at the beginning of a turn are not the user's words: nothing is read in them.
Pure: no I/O, no clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from k2think.simulator.callformats import FORMATS
from k2think.simulator.shapes import SHAPES

FORMS = {
    "deltas": "OpenAI chunks (the default on all paths but the guest's)",
    "snapshots": "the whole text so far with each event (the default on the guest's path)",
    "json": "plain JSON although a stream was asked for",
    "sources_first": "an event with `sources` and without `choices` before all others",
    "event_first": "an event with a status before all others",
    "usage_chunk": "a chunk with usage and no choices, asked for or not",
    "comments": "a comment line before each event",
    "crlf": "lines end with CR LF",
    "no_space": "`data:` without its blank",
    "bare_json": "JSON lines without `data:`",
    "lines": "each line is a write of its own, as the real service does it",
    "split_bytes": "one byte at a time around every tag and character beyond ASCII, so that both arrive in pieces",
    "one_write": "all events in one write",
    "gzip": "the stream is compressed",
}

FAULTS = {
    "401": "Open WebUI's own: the token is not good",
    "401_pending": "Open WebUI's own: the user has no permission",
    "401_revoked": "Open WebUI's own: the session has ended",
    "403": "Open WebUI's own: no permission",
    "405_html": "a firewall's page (so for 403_html, 429_html, 502_html, 503_html, ...)",
    "429_retry_after": "429 of the model server with Retry-After (`retry_after=`; 0.6.28 drops the header)",
    "400_model": "Model not found",
    "404_model": "what a model list fetched during an outage leads to: 404 in 0.12.4, null at 200 in 0.6.28",
    "backend_401": "401 of the model server, passed on with its body (so backend_403)",
    "backend_down": "no connection to the model server: 500 in 0.12.4, null at 200 in 0.6.28",
    "null_200": "JSON null at 200",
    "html_200": "the web page at 200",
    "error_in_200": "a stream that begins with an error event",
    "error_mid_stream": "an error event after `after=` deltas, then the end",
    "cut": "the model server breaks off after `after=` deltas: 0.6.28 hangs up, 0.12.4 ends with an error and [DONE]",
    "hangup": "the connection ends after `after=` deltas",
    "no_finish": "no finish_reason, but [DONE]",
    "nodone": "neither finish_reason nor [DONE]",
    "finish_nodone": "finish_reason, but no [DONE]",
    "stall": "silence after `after=` deltas, for `lasting=` seconds or until the client leaves",
    "stall_before_headers": "silence instead of an answer, as long",
    "stall_after_headers": "silence instead of the first event, as long",
    "bad_event": "an event that is no JSON after `after=` deltas",
    "task_accepted": "the answer of a background task",
    "json_on_stream": "the same as form=json",
    "drop": "the connection ends before any byte",
    "empty": "no text at all, finish_reason stop",
    "empty_length": "no text at all, finish_reason length",
}
"""Faults by name. Besides these: `STATUS`, `STATUS_detail`, `STATUS_text` and `STATUS_sse` for any error status: the
model server's error as JSON, with `detail`, as text, and in an event stream; `STATUS_html`: a page from the edge."""

_STATUS_FAULT = re.compile(r"[45]\d\d(_detail|_text|_html|_sse)?|backend_[45]\d\d")
_DIRECTIVE = re.compile(
    r"\[\[\s*([a-z_]+=(?:\"[^\"]*\"|'[^']*'|[^\s\]\"']+)(?:\s+[a-z_]+=(?:\"[^\"]*\"|'[^']*'|[^\s\]\"']+))*)\s*\]\]"
)
_PAIR = re.compile(r"([a-z_]+)=(?:\"([^\"]*)\"|'([^']*)'|([^\s\]\"']+))")
_SAY = "[[say]]"
_SAID = "[[/say]]"
_RESULT = re.compile(r"\s*<tool_response>")
_RESULT_END = "</tool_response>"
_BLOCK = "\n\n"

ANSWER_AGAIN = "Answer again"
"""What a complaint of an answer says."""


class BadDirective(Exception):
    """A directive with an unknown key or an impossible value: told at once, for a test that mistypes one must fail."""


@dataclass(frozen=True)
class Script:
    """What to do. `text` is the last user turn without directives, `said` the raw output if it is given."""

    text: str = ""
    said: str | None = None
    images: int = 0
    """Images that the model sees; counted, not told by a directive."""
    shape: str = ""
    fault: str = ""
    fault_for: str = ""
    """The fault happens to this account (e-mail) only."""
    times: int = 0
    """The fault happens to the first so many requests with the same `key`; 0: to all."""
    key: str = ""
    """What such requests share; if not given, the whole text of the turn."""
    form: frozenset[str] = frozenset()
    """Names of FORMS, with commas between them."""
    first: float | None = None
    """Seconds before the headers."""
    delay: float | None = None
    """Seconds between deltas."""
    after: int = 5
    """Deltas before a fault in mid-stream."""
    lasting: float | None = None
    """Seconds of a stall, after which the answer goes on; not given: for ever."""
    retry_after: str = "7"
    """Value of that header."""
    think: str | None = None
    """The thinking."""
    answer: str | None = None
    """The answer."""
    tokens: int | None = None
    """Length of the answer in tokens: so many deltas, if `chunk` is not given."""
    size: int | None = None
    """Length of the answer in characters."""
    think_tokens: int | None = None
    """Length of the thinking in tokens."""
    chunk: int = 0
    """Characters per delta; 0: one token."""
    finish: str = ""
    """The finish_reason."""
    call: str = ""
    """Name of a tool to call with exactly the JSON text `args`: in the text if the prompt's text holds tools or
    `format` is given, else natively (OpenAI's `tool_calls`). Without it the model decides (see `toolplay`)."""
    args: str = "{}"
    calls: int = 1
    """How many calls, if there is one; 0: none, whatever the prompt demands."""
    format: str = ""
    """How calls are written in the text (names: `callformats.FORMATS`); not given: `hermes`."""
    fence: bool = False
    """An answer that must be JSON stands in a code fence, behind a sentence."""
    stubborn: bool = False
    """These directives go on counting in later turns of the conversation, until a turn has its own."""


def read_script(messages: Any) -> Script:
    """The script in the last user turn of `messages` (as they came in; anything). Raises BadDirective."""
    turns = _user_turns(messages)
    turn = next(turns, "")
    script = _read(turn)
    if script is not None:
        return script
    text = plain_text(turn)
    earlier = next(filter(None, map(_earlier, turns)), None)
    return replace(earlier, text=text) if earlier and earlier.stubborn else Script(text=text, key=turn)


def last_user_text(messages: Any) -> str:
    """The text of the last user turn; parts that are text are joined by line ends."""
    return next(_user_turns(messages), "")


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message; parts that are text are joined by line ends."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else ()
    return "\n".join(part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str))


def split_results(text: str) -> tuple[list[str], str]:
    """What stands in the blocks of tools' results that a turn begins with, and the user's own words behind them."""
    results: list[str] = []
    at = 0
    while opener := _RESULT.match(text, at):
        end = text.find(_RESULT_END, opener.end())
        if end < 0:
            break
        results.append(text[opener.end() : end].strip())
        at = end + len(_RESULT_END)
    return results, text[at:].strip() if results else text


def split_turn(text: str) -> list[str]:
    """A user turn, and complaints of an answer as turns of their own.

    They stand within it, as last paragraphs, where the answer was empty: then no turn of the assistant lies between.
    """
    complaints: list[str] = []
    end = len(text)
    while (at := text.rfind(_BLOCK, 0, end)) > 0 and text.find(ANSWER_AGAIN, at, end) >= 0:
        complaints.append(text[at + len(_BLOCK) : end])
        end = at
    return [text[:end], *reversed(complaints)]


def plain_text(turn: str) -> str:
    """The user's words in a turn: without directives, raw output and results."""
    return _DIRECTIVE.sub("", _without_say(split_results(turn)[1])[0]).strip()


def known_fault(name: str) -> bool:
    """Whether there is such a fault."""
    return name in FAULTS or _STATUS_FAULT.fullmatch(name) is not None


def _user_turns(messages: Any) -> Iterator[str]:
    """The texts of the user turns, the last one first."""
    for message in reversed(messages) if isinstance(messages, Sequence) else ():
        if isinstance(message, Mapping) and message.get("role") == "user":
            yield from reversed(split_turn(text_of(message)))


def _without_say(text: str) -> tuple[str, str | None]:
    if _SAY not in text:
        return text, None
    text, _, rest = text.partition(_SAY)
    said, _, after = rest.partition(_SAID)
    return text + after, said


def _earlier(turn: str) -> Script | None:
    """The script of an earlier turn, None if it has none. What is wrong in it was told when it was the last."""
    try:
        return _read(turn)
    except BadDirective:
        return None


def _read(turn: str) -> Script | None:
    """The script of one turn, None if nothing in it is one."""
    text, said = _without_say(split_results(turn)[1])
    values: dict[str, str] = {}
    for found in _DIRECTIVE.finditer(text):
        for key, *quoted in _PAIR.findall(found.group(1)):
            values[key] = next((value for value in quoted if value), "")
    if said is None and not values:
        return None
    return replace(Script(text=plain_text(turn), said=said, key=turn), **_typed(values))


def _typed(values: Mapping[str, str]) -> dict[str, Any]:
    typed: dict[str, Any] = {}
    for key, value in values.items():
        try:
            typed[key] = _READERS[key](value)
        except KeyError:
            raise BadDirective(f"Unknown key '{key}'. Known: {', '.join(sorted(_READERS))}.") from None
        except ValueError:
            raise BadDirective(f"'{value}' is no value of '{key}'.") from None
    return typed


def _one_of(known: Mapping[str, Any]) -> Any:
    def read(value: str) -> str:
        if value not in known:
            raise ValueError
        return value

    return read


def _fault(value: str) -> str:
    if not known_fault(value):
        raise ValueError
    return value


def _form(value: str) -> frozenset[str]:
    return frozenset(_one_of(FORMS)(name) for name in value.split(","))


def _yes(value: str) -> bool:
    if value not in {"yes", "no"}:
        raise ValueError
    return value == "yes"


def _calls(value: str) -> int:
    count = int(value)
    if not 0 <= count <= 100:
        raise ValueError
    return count


def _seconds(value: str) -> float:
    seconds = float(value)
    if not 0 <= seconds <= 86400:
        raise ValueError
    return seconds


def _count(value: str) -> int:
    count = int(value)
    if not 0 <= count <= 10_000_000:
        raise ValueError
    return count


_READERS: dict[str, Any] = {
    "shape": _one_of(SHAPES),
    "fault": _fault,
    "fault_for": str.lower,
    "times": _count,
    "key": str,
    "form": _form,
    "first": _seconds,
    "delay": _seconds,
    "after": _count,
    "lasting": _seconds,
    "retry_after": str,
    "think": str,
    "answer": str,
    "tokens": _count,
    "size": _count,
    "think_tokens": _count,
    "chunk": _count,
    "finish": str,
    "call": str,
    "args": str,
    "calls": _calls,
    "format": _one_of(FORMATS),
    "fence": _yes,
    "stubborn": _yes,
}
