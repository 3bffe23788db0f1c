"""Files that mean harm, or that something went wrong with, made in memory. Each has a name that says what it is."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable

from samples import archive, html, image, members_of, pdf, pdf_of, replaced, sheets, slides, word

DOCUMENT, SHEET, SLIDE = "word/document.xml", "xl/worksheets/sheet1.xml", "ppt/slides/slide1.xml"
OLE_HEAD = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
MB = 1024 * 1024

_LAUGHS = (
    b'<!DOCTYPE x [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9))
    + b"]>"
)
_OUTSIDE = b'<!DOCTYPE x [<!ENTITY j SYSTEM "file:///etc/passwd">]>'
_QUADRATIC = b'<!DOCTYPE x [<!ENTITY j "%s">]>' % (b"A" * 100_000)


def small_word() -> bytes:
    return word("Hello")


def small_sheets() -> bytes:
    return sheets([["Hello"]])


def small_slides() -> bytes:
    return slides("Hello")


def with_entities(data: bytes, part: str, definition: bytes, use: bytes) -> bytes:
    """An Office file that defines entities and says them instead of `Hello`."""

    def change(xml: bytes) -> bytes:
        start = xml.index(b"?>") + 2 if xml.startswith(b"<?xml") else 0
        return xml[:start] + definition + xml[start:].replace(b"Hello", use)

    return replaced(data, part, change)


def spaces(megabytes: int) -> bytes:
    """So many spaces, deflated. Put together of one piece, for packing them all takes seconds."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return (packer.compress(b" " * MB) + packer.flush(zlib.Z_FULL_FLUSH)) * megabytes + packer.flush()


def bomb(data: bytes, name: str, megabytes: int, claimed: int | None = None) -> bytes:
    """An Office file with a part of nothing but spaces; its list of contents says that it has `claimed` bytes."""
    whole = bytearray(archive(members_of(data) | {name: spaces(megabytes)}, zipfile.ZIP_STORED))
    size = megabytes * MB if claimed is None else claimed
    for head, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        place = whole.rfind(head, 0, whole.rfind(name.encode()) if head[2] == 1 else whole.find(name.encode()))
        struct.pack_into("<H", whole, place + at, zipfile.ZIP_DEFLATED)
        struct.pack_into("<I", whole, place + at + 14, size)
    return bytes(whole)


def twice(data: bytes, name: str) -> bytes:
    """An Office file in which a part stands twice."""
    whole = archive(members_of(data) | {name[:-1] + "?": b"<other/>"})
    return whole.replace(name[:-1].encode() + b"?", name.encode())


def overlapping(data: bytes) -> bytes:
    """An Office file in which two members share their bytes."""
    whole = bytearray(archive(members_of(data) | {"a.xml": b"<a/>", "b.xml": b"<a/>"}))
    first, second = (whole.rfind(b"PK\x01\x02", 0, whole.rfind(name)) for name in (b"a.xml", b"b.xml"))
    whole[second + 42 : second + 46] = whole[first + 42 : first + 46]
    return bytes(whole)


def flagged(data: bytes) -> bytes:
    """An Office file that says its members are encrypted, as ZIP files can be."""
    whole = bytearray(data)
    at = 0
    while (at := whole.find(b"PK\x01\x02", at)) >= 0:
        whole[at + 8] |= 1
        at += 4
    return bytes(whole)


def quine(data: bytes, levels: int = 40) -> bytes:
    for level in range(levels):
        data = archive({f"level{level}.zip": data})
    return data


def full_of_members(data: bytes, count: int) -> bytes:
    return archive(members_of(data) | {f"word/x{number}.xml": b"" for number in range(count)}, zipfile.ZIP_STORED)


def vast_sheet() -> bytes:
    cells = b'<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'

    def change(xml: bytes) -> bytes:
        start, end = xml.index(b"<sheetData>"), xml.index(b"</sheetData>")
        xml = xml[:start] + b"<sheetData>" + cells + xml[end:]
        return xml.replace(b'ref="A1"', b'ref="A1:XFD1048576"')

    return replaced(small_sheets(), SHEET, change)


def deep_word(depth: int) -> bytes:
    def change(xml: bytes) -> bytes:
        start, end = xml.index(b"<w:body>") + 8, xml.index(b"</w:body>")
        return xml[:start] + b"<w:sdt>" * depth + b"</w:sdt>" * depth + xml[end:]

    return replaced(small_word(), DOCUMENT, change)


def encrypted_pdf() -> bytes:
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>",
        b"<</Filter/Standard/V 2/R 3/Length 128/P -4/O<%s>/U<%s>>>" % (b"41" * 32, b"42" * 32),
    ]
    return pdf_of(objects, b"/Encrypt 4 0 R/ID[<00><00>]")


def scanned_pdf() -> bytes:
    return pdf_of(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>",
        ]
    )


def many_pages(count: int) -> bytes:
    kids = b" ".join(b"%d 0 R" % number for number in range(3, count + 3))
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"
    return pdf_of(
        [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, count), *[page] * count]
    )


def pages_in_a_circle() -> bytes:
    circle = b"<</Type/Pages/Kids[2 0 R 3 0 R]/Count 1000/Parent 3 0 R>>"
    return pdf_of([b"<</Type/Catalog/Pages 2 0 R>>", circle, circle])


def tables_in_a_circle() -> bytes:
    whole = scanned_pdf()
    table = whole.rindex(b"xref\n0")
    return whole.replace(b"trailer<<", b"trailer<</Prev %d" % table)


def long_stream() -> bytes:
    return pdf("Hello").replace(b"/Length ", b"/Length 9999999999", 1).replace(b"endstream", b"")


def deep_pdf() -> bytes:
    page = b"<</Type/Page/Parent 2 0 R/MediaBox" + b"[" * 100_000 + b"]" * 100_000 + b">>"
    return pdf_of([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>", page])


def pdf_with_bomb() -> bytes:
    packed = zlib.compress(b"x\x9c" + spaces(100), 9)
    content = b"<</Length %d/Filter[/FlateDecode/FlateDecode]>>stream\n%s\nendstream" % (len(packed), packed)
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>"
    return pdf_of([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>", page, content])


def forms_in_a_circle() -> bytes:
    drawn = b"/X Do /X Do /X Do"
    resources = b"/Resources<</XObject<</X 5 0 R>>>>"
    form = b"<</Type/XObject/Subtype/Form/BBox[0 0 9 9]%s/Length %d>>stream\n%s\nendstream"
    return pdf_of(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R%s>>" % resources,
            b"<</Length %d>>stream\n%s\nendstream" % (len(drawn), drawn),
            form % (resources, len(drawn), drawn),
        ]
    )


def vast_png(width: int = 60_000, height: int = 60_000) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\x00" * 100)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def truncated(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def noise(size: int) -> bytes:
    """Bytes without any order, the same each time."""
    state, out = 1, bytearray()
    for _ in range(size):
        state = (state * 1_103_515_245 + 12_345) & 0x7FFF_FFFF
        out.append(state >> 16 & 0xFF)
    return bytes(out)


def prefixed(front: bytes, back: bytes) -> bytes:
    out = io.BytesIO()
    out.write(front)
    out.write(back)
    return out.getvalue()


HOSTILE: dict[str, Callable[[], tuple[str, bytes]]] = {
    # nothing, or not what it says
    "empty": lambda: ("empty.txt", b""),
    "empty-pdf": lambda: ("empty.pdf", b""),
    "only-bom": lambda: ("bom.txt", b"\xef\xbb\xbf"),
    "only-bom-utf16": lambda: ("bom.txt", b"\xff\xfe"),
    "only-spaces": lambda: ("spaces.txt", b" \r\n\t" * 1000),
    "nul-bytes": lambda: ("nul.txt", b"\x00" * 10_000),
    "exe-as-pdf": lambda: ("invoice.pdf", b"MZ\x90\x00\x03\x00\x00\x00" + noise(5000)),
    "elf-as-docx": lambda: ("letter.docx", b"\x7fELF\x02\x01\x01" + b"\x00" * 5000),
    "noise-as-text": lambda: ("noise.txt", noise(50_000)),
    "noise-as-pdf": lambda: ("noise.pdf", b"%PDF-1.7\n" + noise(50_000)),
    "noise-as-docx": lambda: ("noise.docx", b"PK\x03\x04" + noise(50_000)),
    "gzip-as-text": lambda: ("log.txt", b"\x1f\x8b\x08\x00" + noise(1000)),
    "zip": lambda: ("files.zip", archive({"a.txt": b"Hello"})),
    "zip-in-zip": lambda: ("files.docx", quine(small_word())),
    "gif-then-zip": lambda: ("both.docx", prefixed(image("GIF"), small_word())),
    "mostly-nul-text": lambda: ("nul.csv", b"a\x00b\x00c\x00" * 500),
    # Office files
    "docx-truncated": lambda: ("cut.docx", truncated(small_word())),
    "xlsx-truncated": lambda: ("cut.xlsx", truncated(small_sheets())),
    "pptx-truncated": lambda: ("cut.pptx", truncated(small_slides())),
    "docx-with-password": lambda: (
        "secret.docx",
        OLE_HEAD + b"\x00" * 504 + "EncryptedPackage".encode("utf-16-le") + b"\x00" * 1000,
    ),
    "doc-of-old": lambda: ("old.doc", OLE_HEAD + b"\x00" * 5000),
    "docx-encrypted-members": lambda: ("secret.docx", flagged(small_word())),
    "docx-bomb": lambda: ("bomb.docx", bomb(small_word(), "word/media.bin", 300)),
    "xlsx-bomb": lambda: ("bomb.xlsx", bomb(small_sheets(), "xl/sharedStrings2.xml", 300)),
    "pptx-bomb": lambda: ("bomb.pptx", bomb(small_slides(), "ppt/media/image1.png", 300)),
    "docx-lying-bomb": lambda: ("bomb.docx", bomb(small_word(), "word/more.xml", 100, 100)),
    "docx-20000-members": lambda: ("many.docx", full_of_members(small_word(), 20_000)),
    "docx-duplicate-members": lambda: ("twice.docx", twice(small_word(), DOCUMENT)),
    "docx-overlapping-members": lambda: ("overlap.docx", overlapping(small_word())),
    "docx-path-traversal": lambda: (
        "up.docx",
        archive(members_of(small_word()) | {"../../../../tmp/escaped": b"x"}),
    ),
    "docx-laughs": lambda: ("ha.docx", with_entities(small_word(), DOCUMENT, _LAUGHS, b"&j;")),
    "xlsx-laughs": lambda: ("ha.xlsx", with_entities(small_sheets(), "xl/sharedStrings.xml", _LAUGHS, b"&j;")),
    "pptx-laughs": lambda: ("ha.pptx", with_entities(small_slides(), SLIDE, _LAUGHS, b"&j;")),
    "docx-external-entity": lambda: ("x.docx", with_entities(small_word(), DOCUMENT, _OUTSIDE, b"&j;")),
    "xlsx-external-entity": lambda: (
        "x.xlsx",
        with_entities(small_sheets(), "xl/sharedStrings.xml", _OUTSIDE, b"&j;"),
    ),
    "pptx-external-entity": lambda: ("x.pptx", with_entities(small_slides(), SLIDE, _OUTSIDE, b"&j;")),
    "docx-quadratic": lambda: ("q.docx", with_entities(small_word(), DOCUMENT, _QUADRATIC, b"&j;" * 10_000)),
    "docx-deep": lambda: ("deep.docx", deep_word(100_000)),
    "docx-without-document": lambda: (
        "none.docx",
        archive({name: part for name, part in members_of(small_word()).items() if name != DOCUMENT}),
    ),
    "docx-broken-xml": lambda: ("broken.docx", replaced(small_word(), DOCUMENT, lambda xml: xml[:-200])),
    "xlsx-vast": lambda: ("vast.xlsx", vast_sheet()),
    "xlsx-broken-xml": lambda: ("broken.xlsx", replaced(small_sheets(), SHEET, truncated)),
    "pptx-without-slide": lambda: (
        "none.pptx",
        archive({name: part for name, part in members_of(small_slides()).items() if name != SLIDE}),
    ),
    # PDF files
    "pdf-truncated": lambda: ("cut.pdf", pdf("Hello")[:150]),
    "pdf-only-magic": lambda: ("magic.pdf", b"%PDF-1.7"),
    "pdf-encrypted": lambda: ("secret.pdf", encrypted_pdf()),
    "pdf-scanned": lambda: ("scan.pdf", scanned_pdf()),
    "pdf-10000-pages": lambda: ("long.pdf", many_pages(10_000)),
    "pdf-pages-in-a-circle": lambda: ("circle.pdf", pages_in_a_circle()),
    "pdf-tables-in-a-circle": lambda: ("circle.pdf", tables_in_a_circle()),
    "pdf-forms-in-a-circle": lambda: ("circle.pdf", forms_in_a_circle()),
    "pdf-deep": lambda: ("deep.pdf", deep_pdf()),
    "pdf-bomb": lambda: ("bomb.pdf", pdf_with_bomb()),
    # web pages
    "html-only-script": lambda: ("script.html", b"<html><script>alert(1)</script></html>"),
    "html-deep": lambda: ("deep.html", b"<html>" + b"<div>" * 100_000 + b"</div>" * 100_000),
    "html-comments": lambda: ("comments.html", b"<html>" + b"<!--" * 100_000),
    # images
    "png-vast": lambda: ("vast.png", vast_png()),
    "png-truncated": lambda: ("cut.png", truncated(image())),
    "jpeg-truncated": lambda: ("cut.jpg", truncated(image("JPEG"))),
    "gif-truncated": lambda: ("cut.gif", truncated(image("GIF"))),
    "webp-truncated": lambda: ("cut.webp", truncated(image("WEBP"))),
    "png-only-magic": lambda: ("magic.png", b"\x89PNG\r\n\x1a\n"),
}
"""By what it is: a file's name and its bytes. None of them gives any text, and none is an image that can be used."""

CODES = {
    "empty": "file_empty",
    "only-bom": "file_without_text",
    "exe-as-pdf": "file_type_not_supported",
    "zip": "file_type_not_supported",
    "docx-with-password": "file_encrypted",
    "docx-encrypted-members": "file_encrypted",
    "doc-of-old": "file_type_not_supported",
    "docx-bomb": "file_too_complex",
    "xlsx-vast": "file_too_complex",
    "docx-truncated": "file_unreadable",
    "docx-laughs": "file_unreadable",
    "pdf-encrypted": "file_encrypted",
    "pdf-scanned": "file_without_text",
    "pdf-10000-pages": "file_too_complex",
    "pdf-forms-in-a-circle": "file_too_complex",
    "png-vast": "image_not_supported",
}
"""Of some of them the code of the error."""

STRANGE: dict[str, Callable[[], tuple[str, bytes]]] = {
    "lone-surrogates": lambda: ("halves.txt", b"\xed\xa0\x80\xed\xb0\x80" * 100),
    "lone-surrogates-utf16": lambda: ("halves.txt", b"\xff\xfe" + b"\x00\xd8" * 1000),
    "pdf-long-stream": lambda: ("long.pdf", long_stream()),
    "html-as-png": lambda: ("page.png", html("Hello")),
    "svg-as-png": lambda: ("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
    "text-of-100000-brackets": lambda: ("deep.json", b"[" * 100_000),
    "laughs-as-xml": lambda: ("ha.xml", b"<?xml version='1.0'?>" + _LAUGHS + b"<x>&j;</x>"),
    "html-billion-attributes": lambda: ("a.html", b"<html><p " + b"a=1 " * 100_000 + b">Hello"),
    "html-external-entity": lambda: ("x.html", b"<!DOCTYPE html [<!ENTITY j SYSTEM 'file:///etc/passwd'>]><p>Hi &j;"),
    "one-long-line": lambda: ("line.csv", b"x," * 1_000_000),
    "utf16-cut": lambda: ("cut.txt", "Hello".encode("utf-16")[:-1]),
    "pdf-then-zip": lambda: ("both.pdf", prefixed(pdf("Hello"), archive({"a": b"b"}))),
    "rows-without-end": lambda: ("long.xlsx", sheets([["Hello", n] for n in range(20_000)])),
}
"""Odd files that harm nobody: text comes out, or a refusal."""

BAD_ARCHIVES = [
    name
    for name in HOSTILE
    if name.endswith(("bomb", "members", "traversal", "laughs", "entity", "quadratic")) and "pdf" not in name
]
"""Those that are refused before a library opens them."""
