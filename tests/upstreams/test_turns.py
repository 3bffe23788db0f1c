"""Turns with images, as upstreams take them. Those of mere text are looked at with each upstream's payload."""

from __future__ import annotations

from typing import Any

import pytest

from k2think.dialogue.prompt import Document, Image, Message
from k2think.upstreams.turns import fold

PNG = Image("data:image/png;base64,+//+")
SHOWN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,+//+"}}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def user(said: str, *images: Image) -> Message:
    return Message("user", said, attachments=images)


@pytest.mark.parametrize(
    ("messages", "content"),
    [
        ([user("a", PNG)], [text("a"), SHOWN]),
        ([user("", PNG)], [SHOWN]),
        ([user("a", PNG, PNG)], [text("a"), SHOWN, SHOWN]),
        ([user("a"), user("b", PNG)], [text("a\n\nb"), SHOWN]),
        ([user("a", PNG), user("b")], [text("a"), SHOWN, text("b")]),
        ([user("a", PNG), user("b", PNG), user(""), user("c")], [text("a"), SHOWN, text("b"), SHOWN, text("c")]),
        ([user("", PNG), user("", PNG)], [SHOWN, SHOWN]),
    ],
)
def test_images_keep_their_place_between_the_texts(messages: list[Message], content: list[dict[str, Any]]) -> None:
    assert fold(messages) == [{"role": "user", "content": content}]


def test_a_document_has_no_place_in_a_turn() -> None:
    attached = (Document("a.txt", "text/plain", "x", 1),)
    assert fold([Message("user", "a", attachments=attached)]) == [{"role": "user", "content": "a"}]
