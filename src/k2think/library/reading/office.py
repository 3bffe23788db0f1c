"""What DOCX and PPTX files share: text in paragraphs and tables, under the same names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lxml import etree  # type: ignore[import-untyped]

_NAMESPACES = (
    "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}",
    "{http://schemas.openxmlformats.org/drawingml/2006/main}",
    "{http://schemas.openxmlformats.org/officeDocument/2006/math}",
    # the same, as files of the strict kind call them
    "{http://purl.oclc.org/ooxml/wordprocessingml/main}",
    "{http://purl.oclc.org/ooxml/drawingml/main}",
    "{http://purl.oclc.org/ooxml/officeDocument/math}",
)
_SKIPPED = {"pPr", "rPr", "tblPr", "tcPr", "trPr", "sectPr", "Fallback"}
"""Settings, and what older programs show in place of what is read before it."""
_WITHIN = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}


def lines_of(root: Any) -> Iterator[str]:
    """The paragraphs below an XML element, and each row of a table as a line with tabs between its cells."""
    line: list[str] = []
    rows: list[list[str]] = []  # of the tables around this place the cells that the open row has so far
    walk = etree.iterwalk(root, events=("start", "end"))
    for event, element in walk:
        if not isinstance(element.tag, str):
            continue
        namespace, _, name = element.tag.rpartition("}")
        if event == "start":
            if name in _SKIPPED:
                walk.skip_subtree()
            elif name == "tr":
                rows.append([])
            continue
        if f"{namespace}}}" not in _NAMESPACES:
            continue
        if name == "t":
            line.append(element.text or "")
        elif name in _WITHIN:
            line.append(_WITHIN[name])
        elif name == "p" and not rows:
            yield "".join(line)
            line.clear()
        elif name == "p":
            line.append(" ")
        elif name == "tc" and rows:
            rows[-1].append(" ".join("".join(line).split()))
            line.clear()
        elif name == "tr" and rows:
            row = "\t".join(rows.pop())
            if rows:
                line.append(row + " ")  # a table in a cell of another
            else:
                yield row
    if line:
        yield "".join(line)
