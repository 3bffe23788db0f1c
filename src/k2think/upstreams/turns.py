"""A conversation folded into what K2-Think's chat template keeps. Pure.

The template knows one system text at the beginning, then users and assistants; it drops other roles and later system
texts without a word, and two users in a row or an assistant at the end break the prompt it writes.
"""

from __future__ import annotations

from collections.abc import Sequence

from k2think.dialogue.prompt import Message

BLOCK = "\n\n"
"""Between texts that become one turn."""


def fold(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Give the turns as upstreams take them: one system text first, then user and assistant in turn, a user last."""
    system = [message.text for message in messages if message.role == "system" and message.text]
    folded: list[dict[str, str]] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if folded and folded[-1]["role"] == role:
            folded[-1]["content"] = BLOCK.join(filter(None, (folded[-1]["content"], message.text)))
        else:
            folded.append({"role": role, "content": message.text})
    if not folded:
        return [{"role": "user", "content": BLOCK.join(system)}]
    if folded[-1]["role"] == "assistant":
        folded.append({"role": "user", "content": "Continue."})
    if system:
        folded.insert(0, {"role": "system", "content": BLOCK.join(system)})
    return folded
