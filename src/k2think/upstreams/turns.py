"""A conversation folded into what K2-Think's chat template keeps. Pure.

The template knows one system text at the beginning, then users and assistants; it drops other roles and later system
texts without a word, and two users in a row or an assistant at the end break the prompt it writes.

Calls and their results are still turns of their own only where the upstream takes them as such; those go as they are.
A turn with images is a list of parts, in OpenAI's form too. Documents have no place in a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from k2think.dialogue.prompt import Image, Message, ToolCall

BLOCK = "\n\n"
"""Between texts that become one turn."""

Content: TypeAlias = str | list[dict[str, Any]]


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
        content = _with_images(message) if message.attachments else message.text
        if mergeable and folded[-1]["role"] == role:
            folded[-1]["content"] = _joined(folded[-1]["content"], content)
        else:
            folded.append({"role": role, "content": content})
            mergeable = True
    if not folded:
        return [{"role": "user", "content": BLOCK.join(system)}]
    if folded[-1]["role"] == "assistant":
        folded.append({"role": "user", "content": "Continue."})
    if system:
        folded.insert(0, {"role": "system", "content": BLOCK.join(system)})
    return folded


def _with_images(message: Message) -> Content:
    """The text, and the images behind it."""
    images = [
        {"type": "image_url", "image_url": {"url": image.url}}
        for image in message.attachments
        if isinstance(image, Image)
    ]
    return [*_parts(message.text), *images] if images else message.text


def _joined(one: Content, other: Content) -> Content:
    if isinstance(one, str) and isinstance(other, str):
        return BLOCK.join(filter(None, (one, other)))
    before, behind = _parts(one), _parts(other)
    if before and behind and before[-1]["type"] == behind[0]["type"] == "text":
        text = BLOCK.join((before.pop()["text"], behind.pop(0)["text"]))
        before.append({"type": "text", "text": text})
    return [*before, *behind]


def _parts(content: Content) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return list(content)


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
