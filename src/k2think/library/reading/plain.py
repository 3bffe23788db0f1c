"""Reads what simply is text, in whichever encoding. Any bytes give some text: broken ones U+FFFD."""

from __future__ import annotations

import codecs
from typing import BinaryIO

from k2think.dialogue.prompt import DocumentText
from k2think.library.reading.encodings import encoding_of
from k2think.library.reading.gathering import clean
from k2think.library.reading.refusal import without_text

LONGEST_CHARACTER = 4
"""Bytes."""
COUNTED = 32 * 1024 * 1024
"""Bytes of what is left out up to which its characters are counted."""
AT_ONCE = 1024 * 1024


def decoded(data: bytes) -> str:
    """All of it as text."""
    return data.decode(encoding_of(data), "replace")


def read(file: BinaryIO, limit: int) -> DocumentText:
    """The first `limit` characters, and how many follow. Raises `Refusal` where there are none."""
    wanted = limit * LONGEST_CHARACTER
    data = file.read(wanted)
    following = file.read(AT_ONCE) if len(data) == wanted else b""
    encoding = encoding_of(data, cut=bool(following))
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    text = clean(decoder.decode(data, final=not following))
    if not text.strip():
        raise without_text()
    left_out = max(0, len(text) - limit)
    counted = 0
    while following and counted < COUNTED:
        more = decoder.decode(following)
        left_out += len(more) - more.count("\r\n")
        counted += len(following)
        following = file.read(AT_ONCE)
    return DocumentText(text[:limit], left_out=-1 if following else left_out)
