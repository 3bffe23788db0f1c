"""Earlier turns of a conversation, rewritten for a model that has no place of its own for thinking, calls and results.

Writers only: nothing here looks at the model's answer, and nothing describes the tools on offer. The grammar of calls
and results is Hermes', which Qwen's models (K2-Think's base among them) were trained on.
"""

from __future__ import annotations

import re
from collections import Counter

import msgspec
from msgspec import Struct

from k2think.dialogue.events import TextDelta
from k2think.dialogue.prompt import Message, ToolCall
from k2think.inband.reasoning import ReasoningReader

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
# What a reader could take for a tag: any closing one, the special tokens of chat templates (`<|im_end|>`), and the tags
# that stand around thinking, answers, calls, results and functions; each with blanks, and these as escapes, too.
_TAG_OPENS = re.compile(
    r"<(?=(?:\s|\\[nrt])*+"
    r"(?:\\?/|[|｜]|ifm\||minimax:|antml:|tool|function|invoke|parameter|arg_|args|think|answer|details))",
    re.IGNORECASE,
)


def without_thinking(text: str) -> str:
    """Take thinking out of an assistant's earlier turn, and answer tags off it; other text stays to the character.

    It is read as an answer of the model is, so that both know the same tags; and as a whole, so that text before a lone
    closing tag is known to be thinking.
    """
    if "<" not in text:
        return text
    reader = ReasoningReader("undecided")
    events = [*reader.feed(TextDelta(text)), *reader.close()]
    return "".join([event.text for event in events if isinstance(event, TextDelta)])


def write_calls(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Write calls into the text of the turns that made them, and turn the results behind them into one user turn.

    Results stand in the order of their calls, those of unknown calls last. Where a turn calls one function twice or
    more, these calls and their results tell their ids, so that each result can be told from the others.
    Turns that have neither come back as they are; so does a conversation without any.
    """
    if not any(message.calls or message.role == "tool" for message in messages):
        return messages
    out: list[Message] = []
    run = _Results()
    for message in messages:
        if message.role == "tool":
            run.add(message)
            continue
        out += run.turn()
        if message.calls:
            out.append(_with_calls(message, run.expect(message.calls)))
        else:
            out.append(message)
    return (*out, *run.turn())


def without_tags(json: str) -> str:
    """The same JSON with nothing in it that could be taken for a tag: `<` becomes an escape where one could begin.

    What a client wrote must not end the block it stands in. Other text, such as `a < b` or `<div>`, stays readable.
    """
    return _TAG_OPENS.sub(r"\\u003c", json)


class _Known(Struct, frozen=True):
    name: str
    place: int
    shows_id: bool


class _Results:
    """The results that follow each other. It knows the calls made so far."""

    def __init__(self) -> None:
        self._calls: dict[str, _Known] = {}  # by id; some clients count anew in each turn, so the latest one is meant
        self._first = 0  # the place of the first call that these results can belong to
        self._next = 0
        self._results: list[tuple[int, str]] = []

    def expect(self, calls: tuple[ToolCall, ...]) -> frozenset[str]:
        """A turn makes these calls; gives the names of the functions whose calls must show their ids."""
        names = Counter(call.name for call in calls)
        several = frozenset(name for name, count in names.items() if count > 1)
        for call in calls:
            self._calls[call.id] = _Known(call.name, self._next, call.name in several)
            self._next += 1
        return several

    def add(self, message: Message) -> None:
        """Take the next result."""
        known = self._calls.get(message.call_id or "")
        name = (known.name if known else "") or message.name or "tool"
        shown = message.call_id if known and known.shows_id else None
        ids = f'"id": {_string(shown)}, ' if shown else ""
        body = f'{{"name": {_string(name)}, {ids}"content": {_value(message.text)}}}'
        place = known.place if known and known.place >= self._first else self._next
        self._results.append((place, _tagged("tool_response", body)))

    def turn(self) -> tuple[Message, ...]:
        """Give the turn that holds the results, if there are any. Those that follow belong to later calls."""
        if not self._results:
            return ()
        self._results.sort(key=lambda result: result[0])
        turn = Message("user", "\n".join([text for _, text in self._results]))
        self._results.clear()
        self._first = self._next
        return (turn,)


def _with_calls(message: Message, showing_ids: frozenset[str]) -> Message:
    parts = [message.text] if message.text else []
    parts += [_call(call, shows_id=call.name in showing_ids) for call in message.calls]
    return msgspec.structs.replace(message, text="\n".join(parts), calls=())


def _call(call: ToolCall, *, shows_id: bool) -> str:
    arguments = _value(call.arguments if call.arguments.strip() else "{}")
    shown = f', "id": {_string(call.id)}' if shows_id and call.id else ""
    return _tagged("tool_call", f'{{"name": {_string(call.name)}, "arguments": {arguments}{shown}}}')


def _tagged(tag: str, body: str) -> str:
    return f"<{tag}>\n{without_tags(body)}\n</{tag}>"


def _value(text: str) -> str:
    """The text as JSON: itself if it is an object."""
    return text if _is_object(text) else _string(text)


def _string(value: str) -> str:
    return msgspec.json.encode(value).decode()


def _is_object(value: str) -> bool:
    try:
        _OBJECT.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
