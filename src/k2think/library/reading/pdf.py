"""Reads PDF files, page by page, no further than is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from pypdfium2 import PdfDocument, PdfiumError, raw  # type: ignore[import-untyped]

from k2think.dialogue.prompt import DocumentText
from k2think.library.reading.gathering import gathered
from k2think.library.reading.refusal import encrypted, too_complex, unreadable

MOST_PAGES = 2000
_HYPHENS = ("\ufffe\r\n", "\x02\r\n")
"""What stands for a hyphen at the end of a line, where the word goes on in the next."""


def read(file: BinaryIO, limit: int) -> DocumentText:
    """Its text. Raises `Refusal`."""
    try:
        document = PdfDocument(file.read())
    except PdfiumError as error:
        if error.err_code in {raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY}:
            raise encrypted() from error
        raise unreadable() from error
    pages = len(document)
    if pages > MOST_PAGES:
        raise too_complex(f"has {pages:,} pages, and no more than {MOST_PAGES:,} are read")
    if not pages:
        raise unreadable("has no pages")
    return gathered(_texts(document, pages), limit, nothing="holds pictures of pages, but no text")


def _texts(document: PdfDocument, pages: int) -> Iterator[str]:
    unread = 0
    for number in range(pages):
        try:
            page = document[number]
            text_page = page.get_textpage()
        except PdfiumError as error:
            unread += 1
            if unread == pages:
                raise unreadable() from error
            continue
        text = text_page.get_text_range()
        for hyphen in _HYPHENS:
            text = text.replace(hyphen, "")
        yield from text.splitlines()
        yield ""
        text_page.close()
        page.close()
