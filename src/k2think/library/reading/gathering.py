"""Puts the pieces that a reader finds together to one clean text, no longer than is wanted."""

from __future__ import annotations

import re
from collections.abc import Iterable

from k2think.dialogue.prompt import DocumentText
from k2think.library.reading.refusal import without_text

# What no text means: control characters but line ends and tabs, and the halves of characters.
_NOISE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffe\uffff]")
_HALVES = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """With every line end a newline and without control characters; can be encoded as UTF-8."""
    return _HALVES.sub("\ufffd", _NOISE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def gathered(pieces: Iterable[str], limit: int, *, nothing: str = "holds no text") -> DocumentText:
    """The pieces as lines, until there are `limit` characters; what would follow is not asked for.

    Raises `Refusal` where there is no text at all; `nothing` says so of the file.
    """
    lines: list[str] = []
    length = 0
    for piece in pieces:
        line = clean(piece).rstrip()
        if not line and not lines:
            continue
        if length + len(line) > limit:
            lines.append(line[: limit - length])
            return DocumentText("\n".join(lines)[:limit], left_out=-1)
        lines.append(line)
        length += len(line) + 1
    text = "\n".join(lines).rstrip()
    if not text:
        raise without_text(nothing)
    return DocumentText(text)
