"""What makes two requests belong together, for the strategy that serves a conversation with one token."""

from __future__ import annotations

import hashlib

from k2think.dialogue.prompt import Document, Image, Prompt


def affinity_of(prompt: Prompt) -> bytes:
    """The client's own word for it, else the conversation's beginning: all up to the first text of a user."""
    if prompt.affinity:
        return prompt.affinity.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(digest_size=16)
    for message in prompt.messages:
        digest.update(f"{message.role}\0{message.text}\0".encode("utf-8", "surrogatepass"))
        for one in message.attachments:
            if isinstance(one, Document):
                digest.update(one.digest.encode())
            elif isinstance(one, Image):
                digest.update(one.url.encode())
        if message.role == "user" and message.text:
            break
    return digest.digest()
