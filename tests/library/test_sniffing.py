"""What kind of file it is."""

from __future__ import annotations

import io
import time

import pytest
from samples import archive, html, image, pdf, sheets, slides, word

from k2think.library.sniffing import BINARY, DOCX, OLE, PPTX, XLSX, ending, media_type_of

ODT = "application/vnd.oasis.opendocument.text"


@pytest.mark.parametrize(
    ("data", "name", "kind"),
    [
        (pdf("x"), "x.txt", "application/pdf"),
        (b"\r\n" + pdf("x"), "", "application/pdf"),
        (bytes(range(32)) + pdf("x"), "", "application/pdf"),
        (word("x"), "", DOCX),
        (word("x")[:20_000], "", DOCX),
        (sheets([["x"]]), "x.zip", XLSX),
        (slides("x"), "x.docx", PPTX),
        (archive({"word/a": b"x"}), "x.docx", "application/zip"),
        (archive({"inner.docx": word("x")}, 0), "x.docx", "application/zip"),
        (archive({"mimetype": ODT.encode()}, 0), "x.odt", ODT),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 600, "x.docx", OLE),
        (image("PNG"), "", "image/png"),
        (image("JPEG"), "x.png", "image/jpeg"),
        (image("GIF"), "", "image/gif"),
        (image("WEBP"), "", "image/webp"),
        (image("BMP"), "", "image/bmp"),
        (image("TIFF"), "", "image/tiff"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1", "", "image/heic"),
        (b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00", "", "image/avif"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00", "", "video/mp4"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "", "audio/wav"),
        (b"MZ\x90\x00\x03\x00\x00\x00", "x.pdf", "application/vnd.microsoft.portable-executable"),
        (b"\x1f\x8b\x08\x00", "x.txt", "application/gzip"),
        (bytes(range(256)), "x.txt", BINARY),
        (b"", "", "text/plain"),
        (b"Hello", "", "text/plain"),
        (b"MZ and BM are letters, and %PDF- too", "", "text/plain"),
        (b"# Hello", "README.MD", "text/markdown"),
        (b"a,b", "x.csv", "text/csv"),
        (b"{}", "x.json", "application/json"),
        (b"<p>", "x.html", "text/html"),
        (html("x"), "page", "text/html"),
        (b"<!-- a --><!-- b -->\n<HTML>", "", "text/html"),
        (html("x"), "page.py", "text/plain"),
        (b"<?xml version='1.0'?><svg/>", "x.png", "image/svg+xml"),
        ("密码".encode("gb18030"), "x.png", "text/plain"),
        ("密码".encode("utf-16"), "", "text/plain"),
        (b"\x00\x00\xfe\xff" + "密码".encode("utf-32-be"), "x.csv", "text/csv"),
    ],
)
def test_the_bytes_say_what_it_is_and_the_name_which_text(data: bytes, name: str, kind: str) -> None:
    file = io.BytesIO(data)
    assert media_type_of(file, name) == kind
    assert file.tell() == 0


def test_the_ending_of_a_name() -> None:
    assert [ending(name) for name in ("a.PDF", "a.tar.gz", "a", ".", "a." + "b" * 99)] == ["pdf", "gz", "", "", ""]


def test_no_beginning_takes_long() -> None:
    start = time.process_time()
    for data in (b"<!-- -->" * 9000 + b"x", b"<!--" * 20_000, b"PK\x03\x04" + b"PK\x01\x02" * 20_000 + b"PK\x05\x06"):
        media_type_of(io.BytesIO(data))
    assert time.process_time() - start < 1
