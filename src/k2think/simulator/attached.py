"""How files and images of a chat reach the model: files as text of a template, images as data URLs."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from k2think.simulator.script import text_of
from k2think.simulator.state import SimulatorState
from k2think.simulator.tokens import user_id
from k2think.simulator.uploads import UploadedFile

_INTRODUCTION = (
    "Here is what the user attached. Use it to answer, and name a source by its id in brackets, such as [1]."
)
_IMAGE_OF_FILE = re.compile(r"(?:/api/v1/files/)?([0-9a-f-]{36})(?:/content)?")


class Attached(NamedTuple):
    """`messages` as the model gets them, and the `sources` that the client is told of."""

    messages: Any
    sources: list[dict[str, Any]]


def attach(body: Mapping[str, Any], state: SimulatorState, account: str) -> Attached:
    """Put the text of this user's files (`files` of `body`) and images into the messages, as the release does it.

    0.12.4: in front of the last user turn's text; 0.6.28: as a system message. Files that are unknown, of somebody
    else or without text are left out without a word. (0.6.28 was once recorded to use a stranger's file: nobody should
    lean on that.) 0.12.4 makes data URLs of images that are named by a file, and drops those it cannot.
    """
    messages = body.get("messages")
    if not isinstance(messages, list):
        return Attached(messages, [])
    old = state.options.release == "0.6.28"
    if not old:
        messages = [_with_images(message, state, account) for message in messages]
    found = _files(body.get("files"), state, account)
    if not found:
        return Attached(messages, [])
    sources = [_source(item, file, text, old=old) for item, file, text in found]
    blocks = [f'<source id="{n}" name="{file.filename}">{text}</source>' for n, (_, file, text) in enumerate(found, 1)]
    template = "\n".join([_INTRODUCTION, "", "<context>", *blocks, "</context>"])
    return Attached(_in_system(messages, template) if old else _in_last_turn(messages, template), sources)


def count_images(messages: Any) -> int:
    """How many images stand in these messages (anything)."""
    return sum(
        isinstance(part, Mapping) and part.get("type") == "image_url"
        for message in (messages if isinstance(messages, list) else ())
        if isinstance(message, Mapping) and isinstance(message.get("content"), list)
        for part in message["content"]
    )


def _files(items: Any, state: SimulatorState, account: str) -> list[tuple[dict[str, Any], UploadedFile, str]]:
    """The items of `files` that can be used, each file once, with the file and its text."""
    now = time.monotonic()
    found: dict[str, tuple[dict[str, Any], UploadedFile, str]] = {}
    for item in items if isinstance(items, list) else ():
        if not isinstance(item, dict) or item.get("type") != "file":
            continue
        file = state.uploads.find(item.get("id"), account)
        text = file.text(now, state.options.release) if file is not None else None
        if file is not None and text is not None:
            # A search finds pieces, which have no blanks at their ends; the whole text has.
            found.setdefault(file.id, (item, file, text if item.get("context") == "full" else text.strip()))
    return list(found.values())


def _source(item: dict[str, Any], file: UploadedFile, text: str, *, old: bool) -> dict[str, Any]:
    """One entry of `sources`."""
    about: dict[str, Any] = {"file_id": file.id, "name": file.filename, "source": file.filename}
    if item.get("context") == "full":
        return {"source": item, "document": [text], "metadata": [about]}
    about |= {
        "created_by": user_id(file.account),
        "hash": file.sha256,
        "start_index": 0,
        "embedding_config": "{'engine': 'simulator', 'model': 'none'}",
    }
    if not old:
        about |= {"content_type": file.content_type, "size": len(file.data), "file_hash": file.sha256}
    return {"source": item, "document": [text], "metadata": [about], "distances": [0.71]}


def _in_system(messages: list[Any], template: str) -> list[Any]:
    first = messages[0] if messages else None
    asked = next((text_of(one) for one in reversed(messages) if _is_users(one)), "")
    template += f"\n\n<user_query>\n{asked}\n</user_query>\n"
    if isinstance(first, Mapping) and first.get("role") == "system":
        return [{**first, "content": f"{template}\n{text_of(first)}"}, *messages[1:]]
    return [{"role": "system", "content": template}, *messages]


def _in_last_turn(messages: list[Any], template: str) -> list[Any]:
    at = next((n for n in reversed(range(len(messages))) if _is_users(messages[n])), None)
    if at is None:
        return messages
    turn = messages[at]
    if isinstance(turn.get("content"), list):
        others = [part for part in turn["content"] if not (isinstance(part, Mapping) and part.get("type") == "text")]
        content: Any = [{"type": "text", "text": f"{template}\n\n{text_of(turn)}"}, *others]
    else:
        content = f"{template}\n\n{text_of(turn)}"
    return [*messages[:at], {**turn, "content": content}, *messages[at + 1 :]]


def _with_images(message: Any, state: SimulatorState, account: str) -> Any:
    """A message whose images that are files here have become data URLs."""
    if not isinstance(message, Mapping) or not isinstance(message.get("content"), list):
        return message
    parts = [_with_image(part, state, account) for part in message["content"]]
    return {**message, "content": [part for part in parts if part is not None]}


def _with_image(part: Any, state: SimulatorState, account: str) -> Any:
    image = part.get("image_url") if isinstance(part, Mapping) else None
    url = image.get("url") if isinstance(image, Mapping) else None
    named = _IMAGE_OF_FILE.fullmatch(url) if isinstance(url, str) else None
    if named is None or not isinstance(image, Mapping):
        return part
    file = state.uploads.find(named.group(1), account)
    if file is None:
        return None
    data = base64.b64encode(file.data).decode()
    return {**part, "image_url": {**image, "url": f"data:{file.content_type};base64,{data}"}}


def _is_users(message: Any) -> bool:
    return isinstance(message, Mapping) and message.get("role") == "user"
