"""What kind of image it is and how large."""

from __future__ import annotations

import contextlib
import io
import sys
import zlib

import pytest
from hostile_files import HOSTILE, STRANGE, vast_png
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image
from samples import image

from k2think.errors import UnusableFile
from k2think.library.images import LARGEST, Picture, look_at


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_an_image_is_known(kind: str) -> None:
    assert look_at(image(kind, (41, 32))) == Picture(f"image/{kind.lower()}", 41, 32)
    assert look_at(image(kind, (41, 32)) + b"\x00" * 10).width == 41


@pytest.mark.parametrize("options", [{"lossless": True}, {"exif": b"Exif\x00\x00"}])
def test_every_form_of_webp_is_known(options: dict[str, object]) -> None:
    out = io.BytesIO()
    Image.new("RGBA", (301, 202), (1, 2, 3, 4)).save(out, "WEBP", **options)
    assert look_at(out.getvalue()) == Picture("image/webp", 301, 202)


@pytest.mark.parametrize("options", [{"progressive": True}, {"exif": b"Exif\x00\x00" + b"x" * 60_000}])
def test_every_form_of_jpeg_is_known(options: dict[str, object]) -> None:
    out = io.BytesIO()
    Image.new("L", (301, 202)).save(out, "JPEG", **options)
    for fill in (b"", b"\xff" * 9):
        assert look_at(b"\xff\xd8" + fill + out.getvalue()[2:]) == Picture("image/jpeg", 301, 202)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (vast_png(), "image_too_large"),
        (vast_png(7072, 7072), "image_too_large"),
        (b"\x89PNG" + b"\x00" * LARGEST, "image_too_large"),
        (vast_png(0, 10), "invalid_image"),
        (vast_png().replace(b"IHDR", b"IDAT"), "invalid_image"),
        (image("BMP"), "invalid_image"),
        (image("TIFF"), "invalid_image"),
        (b"", "invalid_image"),
        *(((HOSTILE | STRANGE)[name]()[1], "invalid_image")
          for name in (
              "png-truncated", "jpeg-truncated", "gif-truncated", "webp-truncated", "png-only-magic", "html-as-png",
              "svg-as-png", "gif-then-zip", "exe-as-pdf",
          )),
    ],
)  # fmt: skip
def test_an_image_that_cannot_be_used_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(UnusableFile) as caught:
        look_at(data)
    assert caught.value.code == code


def test_the_most_pixels_are_taken() -> None:
    assert look_at(vast_png(7071, 7071)).width == 7071


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_no_cut_and_no_broken_byte_is_more_than_refused(kind: str) -> None:
    whole = image(kind)
    for at in range(len(whole)):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
            with contextlib.suppress(UnusableFile):
                look_at(data)


BLANK = 50_000
ATTACKS = {
    "jpeg": b"\xff\xd8" + b"\xff\xe5\x00\x02" * BLANK + image("JPEG")[2:],
    "jpeg-of-fill": b"\xff\xd8" + b"\xff" * BLANK + image("JPEG")[2:],
    "png": vast_png(9, 9)[:33] + (bytes(4) + b"prVt" + zlib.crc32(b"prVt").to_bytes(4)) * BLANK + vast_png(9, 9)[33:],
}
"""Images of many parts without content."""


@pytest.mark.parametrize("name", ATTACKS)
def test_many_empty_parts_are_not_gone_through(name: str) -> None:
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        with contextlib.suppress(UnusableFile):
            look_at(ATTACKS[name])
    finally:
        sys.setprofile(None)
    assert calls < BLANK / 10


@given(some.sampled_from([b"\xff\xd8\xff", b"GIF89a", vast_png()[:16], b"RIFF\0\0\0\0WEBPVP8"]), some.binary())
def test_any_bytes_are_a_picture_or_refused(start: bytes, rest: bytes) -> None:
    with contextlib.suppress(UnusableFile):
        assert look_at(start + rest).width > 0
