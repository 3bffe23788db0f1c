"""Files and images in a chat request: where they are, and where in the conversation they stand."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from k2think.dialogue.prompt import Attachment, Message
from k2think.errors import InvalidRequest
from k2think.wire.openai_chat.inbound import to_question
from k2think.wire.openai_chat.schema import decode

CONTENT = bytes(range(256))
BASE64 = base64.b64encode(CONTENT).decode()
AT = "messages[0].content[0]"


def turns(*parts: dict[str, Any], name: str | None = None) -> tuple[Message, ...]:
    body = {"model": "m", "messages": [{"role": "user", "content": list(parts), "name": name}]}
    return to_question(decode(json.dumps(body).encode()), default_reasoning="parsed").prompt.messages


def attached(part: dict[str, Any]) -> Attachment:
    (turn,) = turns(part)
    (one,) = turn.attachments
    assert isinstance(one, Attachment)
    return one


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


def file(**fields: str) -> dict[str, Any]:
    return {"type": "file", "file": fields}


@pytest.mark.parametrize(
    ("url", "found"),
    [
        (f"data:image/png;base64,{BASE64}", {"content": f"data:image/png;base64,{BASE64}"}),
        (" DATA:,x", {"content": " DATA:,x"}),
        ("https://example.com/a.png?b=c ", {"url": "https://example.com/a.png?b=c"}),
        ("HTTP://example.com/a.png", {"url": "HTTP://example.com/a.png"}),
        (" file-0123", {"file_id": "file-0123"}),
    ],
)
def test_an_image_may_be_in_a_url_behind_one_or_left_here_before(url: str, found: dict[str, Any]) -> None:
    assert attached(image(url)) == Attachment(f"{AT}.image_url.url", image=True, **found)
    assert attached({"type": "image_url", "image_url": url}) == Attachment(f"{AT}.image_url", image=True, **found)


@pytest.mark.parametrize(
    ("fields", "found", "field"),
    [
        ({"file_id": "file-0123"}, {"file_id": "file-0123"}, "file_id"),
        ({"file_id": "file-0123", "filename": "a.txt"}, {"file_id": "file-0123", "name": "a.txt"}, "file_id"),
        ({"file_id": "https://example.com/a.pdf"}, {"url": "https://example.com/a.pdf"}, "file_id"),
        ({"file_id": f"data:;base64,{BASE64}"}, {"content": f"data:;base64,{BASE64}"}, "file_id"),
        ({"file_data": BASE64, "filename": "a.pdf"}, {"content": BASE64, "name": "a.pdf"}, "file_data"),
        ({"file_data": f"data:;base64,{BASE64}"}, {"content": f"data:;base64,{BASE64}"}, "file_data"),
        ({"file_data": ""}, {"content": ""}, "file_data"),
        ({"file_data": "https://example.com/a.pdf"}, {"url": "https://example.com/a.pdf"}, "file_data"),
    ],
)
def test_a_file_comes_by_its_id_or_with_its_content(fields: dict[str, str], found: dict[str, Any], field: str) -> None:
    assert attached(file(**fields)) == Attachment(f"{AT}.file.{field}", **found)


@pytest.mark.parametrize(
    ("part", "param", "code"),
    [
        (image(""), "image_url.url", "invalid_value"),
        (image("ftp://example.com/a.png"), "image_url.url", "invalid_value"),
        (image(BASE64), "image_url.url", "invalid_value"),
        ({"type": "image_url"}, "image_url", "missing_required_parameter"),
        ({"type": "image_url", "image_url": {}}, "image_url.url", "missing_required_parameter"),
        ({"type": "image_url", "image_url": 1}, "image_url", "invalid_type"),
        (file(), "file", "missing_required_parameter"),
        (file(filename="a.txt"), "file", "missing_required_parameter"),
        (file(file_id="file-1", file_data=BASE64), "file", "invalid_value"),
        ({"type": "file"}, "file", "missing_required_parameter"),
    ],
)
def test_what_says_nothing_usable_is_refused_by_its_field(part: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        turns(part)
    assert (caught.value.param, caught.value.code) == (f"{AT}.{param}", code)
    assert BASE64 not in caught.value.message


def test_what_is_attached_keeps_its_place_between_the_texts() -> None:
    one, two = file(file_id="file-1"), image("file-2")
    first = Attachment("messages[0].content[2].file.file_id", file_id="file-1")
    second = Attachment("messages[0].content[3].image_url.url", image=True, file_id="file-2")
    assert turns(text("a"), text("b"), one, two, text("c"), text("d"), name="n") == (
        Message("user", "a\nb", name="n", attachments=(first, second)),
        Message("user", "c\nd", name="n"),
    )
    assert [(turn.text, len(turn.attachments)) for turn in turns(one, text("a"), two)] == [("", 1), ("a", 1)]
