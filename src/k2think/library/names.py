"""What a file may be called: names come from strangers, and are shown, logged, put into prompts and sent back."""

from __future__ import annotations

import re
import unicodedata

MAX_NAME_BYTES = 255
"""Of UTF-8: what file systems take."""

MAX_ENDING_BYTES = 32
"""A longer one is no ending, but the name goes on behind a dot."""

NAMELESS = "file"

_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # turn the direction of writing: 'fdp.exe' would read 'exe.pdf'
    "\u2028\u2029"  # begin a line
    "\ufeff\ud800-\udfff]"  # byte order mark, halves of surrogate pairs
)


def safe_name(name: str) -> str:
    """The last part of the path as one line of plain text, at most 255 bytes of UTF-8; `file` if nothing is left."""
    name = _UNSEEN.sub("", name).rstrip("/\\")
    name = unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1]).strip()
    name = _shortened(name)
    return NAMELESS if name in {"", ".", ".."} else name


def _shortened(name: str) -> str:
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    stem, dot, ending = name.rpartition(".")
    if not stem or len(ending.encode()) > MAX_ENDING_BYTES:
        stem, dot, ending = name, "", ""
    room = MAX_NAME_BYTES - len(f"{dot}{ending}".encode())
    return f"{stem.encode()[:room].decode(errors='ignore').rstrip()}{dot}{ending}"
