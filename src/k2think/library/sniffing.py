"""Tells what kind of file it is by its bytes. What a client calls a file decides only which kind of text it is."""

from __future__ import annotations

import io
import re
import struct
from typing import BinaryIO

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
OLE = "application/x-ole-storage"
"""Old Office files, and new ones with a password."""

HEAD = 64 * 1024
"""Bytes from which a kind is told."""
DIRECTORY = 1024 * 1024
"""Bytes of a ZIP file's list of contents that are looked at."""
COMMENT = 65_535
"""The longest comment behind that list."""

BINARY = "application/octet-stream"
_ZIP = "application/zip"

# At the very beginning, and unlike any text.
_CERTAIN = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", OLE),
    (b"\x1f\x8b", "application/gzip"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
    (b"\xfd7zXZ\x00", "application/x-xz"),
    (b"\x28\xb5\x2f\xfd", "application/zstd"),
    (b"\x7fELF", "application/x-executable"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"{\\rtf", "application/rtf"),
    (b"%!PS-", "application/postscript"),
)
# A text may begin with these letters.
_LIKELY = (
    (b"MZ", "application/vnd.microsoft.portable-executable"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"BZh", "application/x-bzip2"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_BRANDS = {
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"mif1": "image/heic",
    b"msf1": "image/heic",
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"qt  ": "video/quicktime",
    b"M4A ": "audio/mp4",
}
_OFFICE = ((b"word/", DOCX), (b"xl/", XLSX), (b"ppt/", PPTX))
_TEXTS = {
    "markdown": "text/markdown",
    "md": "text/markdown",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "ndjson": "application/x-ndjson",
    "html": "text/html",
    "htm": "text/html",
    "xhtml": "text/html",
    "xml": "application/xml",
    "svg": "image/svg+xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "toml": "application/toml",
    "css": "text/css",
    "js": "text/javascript",
}
# Endings of plain texts whose content may begin like a web page without being one.
_PLAIN = frozenset(("txt", "text", "log", "py", "php", "ts", "tsx", "jsx", "vue", "rst", "tex", "erb", "j2", "eml"))
# Nothing is given back once it fitted (`?>`, `*+`): ten thousand comments must not cost more than their length.
_WEB_PAGE = re.compile(rb"(?><!--.*?-->\s*)*+<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_DRAWING = re.compile(rb"(?><\?xml[^>]*>\s*|<!--.*?-->\s*|<!doctype\s+svg[^>]*>\s*)*+<svg\b", re.IGNORECASE | re.DOTALL)
_CONTROLS = bytes(each for each in range(32) if each not in b"\t\n\r\f\b\x1b") + b"\x7f"
_WIDE = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def ending(name: str) -> str:
    """What follows the last dot of a file's name, in small letters; "" where there is none."""
    _, dot, after = name.rpartition(".")
    return after.lower() if dot and len(after) <= 16 else ""


def media_type_of(file: BinaryIO, name: str = "") -> str:
    """The media type of a seekable file, `application/octet-stream` where it is no kind that we know.

    Any text that nothing more is known of is `text/plain`, and so is an empty file. Reads 2 MB at most and leaves the
    file at its start.
    """
    file.seek(0)
    head = file.read(HEAD)
    try:
        return _certain(head) or _archive(file, head) or _text(head, name) or _likely(head) or BINARY
    finally:
        file.seek(0)


def _certain(head: bytes) -> str | None:
    for magic, kind in _CERTAIN:
        if head.startswith(magic):
            return kind
    if head.lstrip()[:5] == b"%PDF-":
        return "application/pdf"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video/mp4")
    if head.startswith(b"RIFF"):
        return _RIFF.get(head[8:12])
    return None


def _likely(head: bytes) -> str | None:
    for magic, kind in _LIKELY:
        if head.startswith(magic):
            return kind
    # Readers take a PDF with something in front of it, and so do we, unless that makes it something else.
    return "application/pdf" if b"%PDF-" in head[:1024] else None


def _text(head: bytes, name: str) -> str | None:
    if not head.startswith(_WIDE):
        controls = len(head) - len(head.translate(None, _CONTROLS))
        if controls * 50 > len(head):
            return None
    after = ending(name)
    if known := _TEXTS.get(after):
        return known
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if after in _PLAIN:
        return "text/plain"
    if _WEB_PAGE.match(start):
        return "text/html"
    return "image/svg+xml" if _DRAWING.match(start) else "text/plain"


def _archive(file: BinaryIO, head: bytes) -> str | None:
    if not head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return None
    # OpenDocument and EPUB files say what they are in their first member, which is not compressed.
    if said := re.match(rb"PK\x03\x04.{22}\x08\x00..mimetype([a-z.+/-]{1,100})(?:PK|\x00)", head, re.DOTALL):
        return said[1].decode("ascii")
    names = _members(file)
    if names is None:  # cut off: what it would have been
        names = re.findall(rb"(?:word|xl|ppt)/|\[Content_Types\]", head)
    if any(member.startswith(b"[Content_Types]") for member in names):
        for folder, kind in _OFFICE:
            if any(member.startswith(folder) for member in names):
                return kind
    return _ZIP


def _members(file: BinaryIO) -> list[bytes] | None:
    """The names in a ZIP file's list of contents, as many as stand in its first part; None where there is no list."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - COMMENT - 22))
    tail = file.read(COMMENT + 22)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        return None
    length, start = struct.unpack_from("<II", tail, at + 12)
    file.seek(min(start, size))
    listed = file.read(min(length, DIRECTORY))
    names, at = [], 0
    while listed.startswith(b"PK\x01\x02", at) and len(listed) >= at + 46:
        name, extra, comment = struct.unpack_from("<HHH", listed, at + 28)
        names.append(listed[at + 46 : at + 46 + name])
        at += 46 + name + extra + comment
    return names or None
