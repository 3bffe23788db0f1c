"""Puts what a model cannot be given as a file into the conversation: the texts of documents, and words for images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from k2think.dialogue.prompt import Document, DocumentText, Message

_CLOSER = "</file>"


def write_documents(
    messages: tuple[Message, ...], texts: Mapping[str, DocumentText], budget: int
) -> tuple[Message, ...]:
    """Replace documents by their texts, which stand behind the text of their turn.

    `texts`: by the document's digest; a document that is not among them stays attached. All texts together have at most
    `budget` characters: where they have more, the longest are cut, and each says how much of it is left out. A document
    that is attached again later is only named there.
    """
    shares = _shares({digest: len(found.text) for digest, found in texts.items()}, budget)
    shown: set[str] = set()
    return tuple([_with_texts(message, texts, shares, shown) for message in messages])


def name_documents(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Say what is attached in each turn that has no text, for a service that looks for what fits the text."""
    return tuple([message if message.text else _with_names(message) for message in messages])


def describe_image(image: Document, width: int, height: int, text: str) -> str:
    """Say in words what is known of an image that the model cannot see. `text`: what is written in it."""
    what = f"{image.media_type.removeprefix('image/').upper()}, {width} × {height} pixels, {image.size} bytes"
    described = f"[Image{_called(image.name)}: {what}. It was attached here, but you cannot see it.]"
    return f"{described}\n[Text found in the image:]\n{text}\n[End of that text.]" if text else described


def _with_texts(
    message: Message, texts: Mapping[str, DocumentText], shares: Mapping[str, int], shown: set[str]
) -> Message:
    if not any(isinstance(one, Document) and one.digest in texts for one in message.attachments):
        return message
    blocks = [message.text] if message.text else []
    rest = []
    for one in message.attachments:
        if not isinstance(one, Document) or one.digest not in texts:
            rest.append(one)
        elif one.digest in shown:
            blocks.append(f"[The file{_called(one.name)} is attached here again; its text stands above.]")
        else:
            shown.add(one.digest)
            blocks.append(_block(one.name, texts[one.digest], shares[one.digest]))
    return msgspec.structs.replace(message, text="\n\n".join(blocks), attachments=tuple(rest))


def _block(name: str, found: DocumentText, share: int) -> str:
    # The name of the tag in a file about XML must not end the file's block.
    text = found.text[:share].replace(_CLOSER, "<\\/file>")
    lines = [f"<file name={_quoted(name)}>" if name else "<file>", text]
    if left_out := _left_out(found, share):
        lines.append(f"[Left out here, because the file is too long: {left_out}.]")
    return "\n".join([*lines, _CLOSER])


def _with_names(message: Message) -> Message:
    documents = [one for one in message.attachments if isinstance(one, Document)]
    lines = [f"[The file{_called(document.name)} is attached.]" for document in documents]
    return msgspec.structs.replace(message, text="\n".join(lines)) if lines else message


def _left_out(found: DocumentText, share: int) -> str:
    cut = max(0, len(found.text) - share)
    if found.left_out < 0:
        return f"at least {cut} more characters" if cut else "the rest"
    count = cut + found.left_out
    return f"{count} more characters" if count else ""


def _shares(lengths: Mapping[str, int], budget: int) -> dict[str, int]:
    """How much of each may be shown: the short ones as a whole, the long ones the same of what they leave."""
    shares: dict[str, int] = {}
    for place, (key, length) in enumerate(_shortest_first(lengths)):
        shares[key] = min(length, budget // (len(lengths) - place))
        budget -= shares[key]
    return shares


def _shortest_first(lengths: Mapping[str, int]) -> Iterable[tuple[str, int]]:
    return sorted(lengths.items(), key=lambda entry: entry[1])


def _called(name: str) -> str:
    return f" {_quoted(name)}" if name else ""


def _quoted(name: str) -> str:
    return msgspec.json.encode(name).decode()
