"""Earlier turns of a conversation, rewritten for a model that has no place of its own for thinking, calls and results.

Writers only: nothing here looks at the model's answer, and nothing describes the tools on offer. The grammar of calls
and results is Hermes', which Qwen's models (K2-Think's base among them) were trained on.
"""

from __future__ import annotations

import msgspec

from k2think.dialogue.events import TextDelta
from k2think.dialogue.prompt import Message, ToolCall
from k2think.inband.reasoning import ReasoningReader

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


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

    Turns that have neither come back as they are; so does a conversation without any.
    """
    if not any(message.calls or message.role == "tool" for message in messages):
        return messages
    out: list[Message] = []
    results: list[str] = []
    names: dict[str, str] = {}  # by call; some clients count anew in each turn, so the latest one is meant
    for message in messages:
        if message.role == "tool":
            name = names.get(message.call_id or "") or message.name or "tool"
            results.append(_tagged("tool_response", name, "content", message.text))
            continue
        if results:
            out.append(Message("user", "\n".join(results)))
            results.clear()
        names.update((call.id, call.name) for call in message.calls)
        out.append(_with_calls(message) if message.calls else message)
    if results:
        out.append(Message("user", "\n".join(results)))
    return tuple(out)


def _with_calls(message: Message) -> Message:
    parts = [message.text] if message.text else []
    parts += map(_call, message.calls)
    return msgspec.structs.replace(message, text="\n".join(parts), calls=())


def _call(call: ToolCall) -> str:
    return _tagged("tool_call", call.name, "arguments", call.arguments if call.arguments.strip() else "{}")


def _tagged(tag: str, name: str, key: str, value: str) -> str:
    body = f'{{"name": {_string(name)}, "{key}": {value if _is_object(value) else _string(value)}}}'
    # What a tool brought must not end its own block; JSON reads `\/` as `/`.
    body = body.replace(f"</{tag}", f"<\\/{tag}")
    return f"<{tag}>\n{body}\n</{tag}>"


def _string(value: str) -> str:
    return msgspec.json.encode(value).decode()


def _is_object(value: str) -> bool:
    try:
        _OBJECT.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
