"""A conversation folded into what K2-Think's chat template keeps. Pure.

The template knows one system text at the beginning, then users and assistants; it drops other roles and later system
texts without a word, and two users in a row or an assistant at the end break the prompt it writes.

Calls and their results are still turns of their own only where the upstream takes them as such; those go as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from k2think.dialogue.prompt import Message, ToolCall

BLOCK = "\n\n"
"""Between texts that become one turn."""


def fold(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Give the turns as upstreams take them: one system text first, then user and assistant in turn, a user last.

    A turn with calls, and a result that names its call, stand between them in OpenAI's form; nothing is put together
    across them, and a result may be the last.
    """
    system = [message.text for message in messages if message.role == "system" and message.text]
    folded: list[dict[str, Any]] = []
    mergeable = False  # whether the last turn may take more text
    for message in messages:
        if message.role == "system":
            continue
        if (kept := _kept(message)) is not None:
            folded.append(kept)
            mergeable = False
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if mergeable and folded[-1]["role"] == role:
            folded[-1]["content"] = BLOCK.join(filter(None, (folded[-1]["content"], message.text)))
        else:
            folded.append({"role": role, "content": message.text})
            mergeable = True
    if not folded:
        return [{"role": "user", "content": BLOCK.join(system)}]
    if folded[-1]["role"] == "assistant":
        folded.append({"role": "user", "content": "Continue."})
    if system:
        folded.insert(0, {"role": "system", "content": BLOCK.join(system)})
    return folded


def _kept(message: Message) -> dict[str, Any] | None:
    """A turn with calls or a call's result as OpenAI writes it; None for a turn of mere text."""
    if message.calls:
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _arguments(call)}}
            for call in message.calls
        ]
        return {"role": "assistant", "content": message.text or None, "tool_calls": calls}
    if message.role == "tool" and message.call_id is not None:
        return {"role": "tool", "tool_call_id": message.call_id, "content": message.text}
    return None


def _arguments(call: ToolCall) -> str:
    """Servers parse the arguments of earlier calls, and an empty text is no JSON."""
    return call.arguments if call.arguments.strip() else "{}"
