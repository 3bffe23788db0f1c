"""What makes two conversations the same one, for the strategy that keeps them at one token."""

from __future__ import annotations

from k2think.dialogue.prompt import Document, Image, Message, Prompt
from k2think.engine.affinity import affinity_of


def of(*messages: Message, affinity: str | None = None) -> bytes:
    return affinity_of(Prompt("m", messages, affinity=affinity))


def test_a_conversation_is_known_by_its_beginning() -> None:
    first = Message("user", "a")
    assert of(first) == of(first, Message("assistant", "b"), Message("user", "c"))
    assert of(first) != of(Message("user", "b"))
    assert of(first) != of(Message("system", "s"), first)


def test_what_the_client_says_of_it_goes_before() -> None:
    assert of(Message("user", "a"), affinity="x") == of(Message("user", "b"), affinity="x")


def test_one_that_begins_with_a_file_is_known_by_it_and_by_what_follows() -> None:
    one, two = (Message("user", "", attachments=(Document("a", "text/plain", digest, 1),)) for digest in "12")
    images = [Message("user", "", attachments=(Image(url),)) for url in ("data:,1", "data:,2")]
    said, other = Message("user", "a"), Message("user", "b")
    beginnings = [(turn, text) for turn in (one, two, *images) for text in (said, other)]
    assert len({of(*beginning) for beginning in beginnings}) == len(beginnings)
    assert of(one, said) == of(one, said, Message("assistant", "x"), other)
