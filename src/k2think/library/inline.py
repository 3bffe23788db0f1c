"""Files that come within a request: data URLs and Base64, in and out.

Piece by piece: each piece holds up everybody else for a moment only, also where this runs in a thread.
"""

from __future__ import annotations

import binascii
from urllib.parse import unquote_to_bytes

from k2think.errors import UnusableFile

PIECE = 1024 * 1024
"""Characters."""

MAX_ESCAPES = 65_536
"""Of the form `%41`; each of them takes its time, and a file with more of them is better sent in Base64."""

_BLANKS = {ord(blank): None for blank in " \t\r\n"}


def decoded(text: str) -> bytes:
    """The content of a data URL (RFC 2397), or of Base64 without one.

    Base64 may be in either alphabet, with or without padding, on however many lines. Raises `UnusableFile`.
    """
    start = len(text) - len(text.lstrip())
    if text[start : start + 5].lower() != "data:":
        return _from_base64(text)
    comma = text.find(",")
    if comma < 0:
        raise _wrong("the data: URL has no comma before its content")
    content = text[comma + 1 :]
    if (escapes := content.count("%")) > MAX_ESCAPES:
        raise _wrong(f"the data: URL has {escapes:,} escapes such as %41, more than {MAX_ESCAPES:,}; use Base64")
    if not text[start:comma].rstrip().lower().endswith(";base64"):
        return unquote_to_bytes(content)
    return _from_base64(unquote_to_bytes(content).decode("latin-1") if escapes else content)


def data_url(media_type: str, content: bytes) -> str:
    """A data URL that holds the content in Base64."""
    size = PIECE // 4 * 3
    pieces = [binascii.b2a_base64(content[at : at + size], newline=False) for at in range(0, len(content), size)]
    return f"data:{media_type};base64,{b''.join(pieces).decode('ascii')}"


def _from_base64(text: str) -> bytes:
    found = bytearray()
    rest, padded = "", False
    try:
        for at in range(0, len(text), PIECE):
            piece = rest + text[at : at + PIECE].translate(_BLANKS).replace("-", "+").replace("_", "/")
            if padded and piece:
                raise _wrong("the content goes on behind the end of its Base64")
            whole = len(piece) // 4 * 4
            found += binascii.a2b_base64(piece[:whole], strict_mode=True)
            rest, padded = piece[whole:], piece[:whole].endswith("=")
        if padded and rest:
            raise _wrong("the content goes on behind the end of its Base64")
        bare = rest.rstrip("=")
        found += binascii.a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)
    except ValueError:
        raise _wrong("the content is not valid Base64") from None
    return bytes(found)


def _wrong(what: str) -> UnusableFile:
    return UnusableFile(f"The file cannot be read: {what}.", code="invalid_value")
