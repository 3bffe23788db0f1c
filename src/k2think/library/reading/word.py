"""Reads DOCX files: the text in its order, then footnotes, headers and footers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from docx.opc.exceptions import PackageNotFoundError
from docx.opc.oxml import parse_xml
from docx.package import Package

from k2think.dialogue.prompt import DocumentText
from k2think.library.reading.archive import check_archive
from k2think.library.reading.gathering import gathered
from k2think.library.reading.office import lines_of
from k2think.library.reading.refusal import unreadable

MOST_XML = 64 * 1024 * 1024
_BESIDE = re.compile(r"/word/(?:footnotes|endnotes|header\d*|footer\d*)\.xml")


def read(file: BinaryIO, limit: int) -> DocumentText:
    """Its text. Raises `Refusal`."""
    check_archive(file, most_xml=MOST_XML)
    try:
        package = Package.open(file)
        main = package.main_document_part
    except (PackageNotFoundError, KeyError, ValueError) as error:
        raise unreadable() from error
    return gathered(_lines(package, main), limit)


def _lines(package: Any, main: Any) -> Iterator[str]:
    yield from lines_of(_tree(main))
    seen = set()
    for part in package.iter_parts():
        if _BESIDE.fullmatch(part.partname):
            text = "\n".join(lines_of(_tree(part)))
            if text.strip() and text not in seen:  # many sections have the same header
                seen.add(text)
                yield text


def _tree(part: Any) -> Any:
    return part.element if hasattr(part, "element") else parse_xml(part.blob)
