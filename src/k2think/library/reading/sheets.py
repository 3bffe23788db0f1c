"""Reads XLSX files: sheet by sheet, each row as a line with tabs between its cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from python_calamine import CalamineError, CalamineWorkbook

from k2think.dialogue.prompt import DocumentText
from k2think.library.reading.archive import check_archive
from k2think.library.reading.gathering import gathered
from k2think.library.reading.refusal import too_complex, unreadable, without_text

MOST_XML = 200 * 1024 * 1024
MOST_CELLS = 20_000_000


def read(file: BinaryIO, limit: int) -> DocumentText:
    """Its text. Raises `Refusal`."""
    check_archive(file, most_xml=MOST_XML)
    try:
        workbook = CalamineWorkbook.from_filelike(file)
        found = gathered(_lines(workbook), limit)
    except CalamineError as error:
        raise unreadable() from error
    if not any(line for line in found.text.splitlines() if not line.startswith("# ")):
        raise without_text("holds empty sheets")
    return found


def _lines(workbook: CalamineWorkbook) -> Iterator[str]:
    for name in workbook.sheet_names:
        sheet = workbook.get_sheet_by_name(name)
        if sheet.total_height * sheet.total_width > MOST_CELLS:
            raise too_complex(f"has a sheet of more than {MOST_CELLS:,} cells")
        yield f"# Sheet: {name}"
        for row in sheet.iter_rows():
            line = "\t".join(map(_shown, row)).rstrip("\t")
            if line:
                yield line
        yield ""


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return " ".join(value.split()) if isinstance(value, str) else str(value)
