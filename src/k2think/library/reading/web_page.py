"""Reads HTML files: what a browser would show, each block on a line of its own."""

from __future__ import annotations

from typing import BinaryIO

from lxml import etree  # type: ignore[import-untyped]

from k2think.dialogue.prompt import DocumentText
from k2think.library.reading.gathering import gathered
from k2think.library.reading.plain import decoded

_UNSEEN = {"script", "style", "noscript", "template", "svg", "math", "iframe", "object", "head"}
_INLINE = {"a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins", "kbd"}
_INLINE |= {"label", "mark", "q", "rb", "rp", "rt", "ruby", "s", "samp", "small", "span", "strike", "strong", "sub"}
_INLINE |= {"sup", "time", "tt", "u", "var", "wbr"}
_CELLS = {"td", "th"}
_VERBATIM = {"pre", "textarea"}


def read(file: BinaryIO, limit: int) -> DocumentText:
    """Its text. Raises `Refusal`."""
    page = _Page()
    parser = etree.HTMLParser(target=page, encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True)
    # Encoded anew, so that what the page says of its encoding has no say.
    parser.feed(decoded(file.read()).encode("utf-8", "replace"))
    return gathered(parser.close(), limit)


class _Page:
    """Hears of each tag and text in turn; there is no tree that could grow deep."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._line: list[str] = []
        self._unseen = 0
        self._verbatim = 0
        self._title = False

    def start(self, tag: str, _: object) -> None:
        self._unseen += tag in _UNSEEN
        self._verbatim += tag in _VERBATIM
        self._title = tag == "title" and self._unseen <= 1
        if tag not in _INLINE and tag not in _CELLS:
            self._break()

    def end(self, tag: str) -> None:
        if tag in _CELLS:
            self._line.append("\t")
        elif tag not in _INLINE:
            self._break()
        self._unseen -= tag in _UNSEEN
        self._verbatim -= tag in _VERBATIM
        self._title = False

    def data(self, text: str) -> None:
        if not self._unseen or self._title:
            self._line.append(text if self._verbatim else text.replace("\n", " ").replace("\t", " "))

    def close(self) -> list[str]:
        self._break()
        return self._lines

    def _break(self) -> None:
        line = "".join(self._line)
        if line.strip():
            kept = line if self._verbatim else "\t".join(" ".join(cell.split()) for cell in line.split("\t"))
            self._lines.append(kept.strip("\n"))
        self._line.clear()
