"""Tells what kind of image it is and how large, from its header; no pixel is decoded."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

from msgspec import Struct

from k2think.errors import UnusableFile
from k2think.library.sniffing import media_type_of

LARGEST = 20 * 1024 * 1024
"""Bytes."""
MOST_PIXELS = 50_000_000

MOST_SEGMENTS = 1000
"""Parts of a JPEG before the one that tells its size; the longest profile and preview need a few hundred."""


class Picture(Struct, frozen=True):
    """`width` and `height` in pixels."""

    media_type: str
    width: int
    height: int


def look_at(data: bytes) -> Picture:
    """Raises `UnusableFile`, `image_too_large` or `invalid_image`, the latter also where its end is missing."""
    if len(data) > LARGEST:
        raise UnusableFile(
            f"The image has {len(data):,} bytes; at most {LARGEST:,} are accepted. Make it smaller.",
            code="image_too_large",
        )
    kind = media_type_of(io.BytesIO(data))
    if kind not in _SIZES:
        raise _invalid("It is no PNG, JPEG, GIF or WEBP.")
    try:
        width, height = _SIZES[kind](data)
    except (ValueError, struct.error) as error:  # the latter where the data ends too early
        raise _invalid("It is damaged.") from error
    if width * height > MOST_PIXELS:
        raise UnusableFile(
            f"The image has {width:,} × {height:,} pixels; at most {MOST_PIXELS:,} are accepted. Make it smaller.",
            code="image_too_large",
        )
    if not width * height or not _is_whole(data, kind):
        raise _invalid("It is incomplete.")
    return Picture(kind, width, height)


def _png_size(data: bytes) -> tuple[int, int]:
    if data[8:16] != b"\x00\x00\x00\rIHDR":
        raise ValueError(data[8:16])
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    for _ in range(MOST_SEGMENTS):
        start, marker, length = struct.unpack_from(">BBH", data, at)
        if start != 0xFF or marker in _NO_SEGMENTS:
            break
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 1 if marker == 0xFF else 2 + length  # a marker may have any number of FF in front
    raise ValueError(at)


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _webp_size(data: bytes) -> tuple[int, int]:
    chunk, body = data[12:16], data[20:30]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L" and body[:1] == b"\x2f":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError(chunk)


_SIZES: dict[str, Callable[[bytes], tuple[int, int]]] = {
    "image/png": _png_size,
    "image/jpeg": _jpeg_size,
    "image/gif": _gif_size,
    "image/webp": _webp_size,
}
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of the segment that holds the size, one for each way to code a JPEG."""
_NO_SEGMENTS = frozenset((0x00, 0x01, *range(0xD0, 0xDB)))
"""Markers without a length, and those where the pixels begin (DA) or the image ends (D9)."""


def _is_whole(data: bytes, kind: str) -> bool:
    if kind == "image/webp":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    if kind == "image/gif":
        return data.rstrip(b"\x00").endswith(b";")
    # Cameras and editors leave things behind the end; a preview within a photo has an end of its own before that.
    end = b"IEND\xaeB`\x82" if kind == "image/png" else b"\xff\xd9"
    return data.rfind(end) >= len(data) // 2


def _invalid(why: str) -> UnusableFile:
    return UnusableFile(f"The image cannot be read. {why} Send a whole PNG, JPEG, GIF or WEBP.", code="invalid_image")
