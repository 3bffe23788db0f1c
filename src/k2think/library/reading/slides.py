"""Reads PPTX files: slide by slide, with the notes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from pptx import Presentation
from pptx.exc import PackageNotFoundError

from k2think.dialogue.prompt import DocumentText
from k2think.library.reading.archive import check_archive
from k2think.library.reading.gathering import gathered
from k2think.library.reading.office import lines_of
from k2think.library.reading.refusal import unreadable, without_text

MOST_XML = 64 * 1024 * 1024


def read(file: BinaryIO, limit: int) -> DocumentText:
    """Its text. Raises `Refusal`."""
    check_archive(file, most_xml=MOST_XML)
    try:
        presentation = Presentation(file)
    except (PackageNotFoundError, KeyError, ValueError) as error:
        raise unreadable() from error
    found = gathered(_lines(presentation), limit)
    if not any(line for line in found.text.splitlines() if not line.startswith("# ")):
        raise without_text("holds slides without any text")
    return found


def _lines(presentation: Any) -> Iterator[str]:
    for number, slide in enumerate(presentation.slides, 1):
        yield f"# Slide {number}"
        yield from filter(str.strip, lines_of(slide.element))
        if slide.has_notes_slide:
            notes = slide.notes_slide.notes_text_frame
            if notes is not None and notes.text.strip():
                yield f"Notes: {notes.text}"
        yield ""
