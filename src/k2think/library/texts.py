"""Gives the text of a file. Whatever a library must read is read in a process of its own, with bounds.

Results are remembered: a file that stands in a conversation's first turn comes again with each later one.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from k2think.dialogue.prompt import Document, DocumentText
from k2think.errors import UnusableFile
from k2think.library.content import opened
from k2think.library.reading import plain
from k2think.library.reading.process import read_apart
from k2think.library.reading.refusal import Refusal, encrypted
from k2think.library.reading.worker import Task
from k2think.library.sniffing import DOCX, OLE, PPTX, XLSX
from k2think.places import Places
from k2think.together import Shared

READERS = {"application/pdf": "pdf", DOCX: "word", XLSX: "sheets", PPTX: "slides", "text/html": "web_page"}
"""Which module of `reading` reads what; other texts are only decoded."""
SUPPORTED = "Send a text, Markdown, CSV, JSON, code, HTML, PDF, DOCX, XLSX or PPTX file."
LONGEST_NAME = 100
"""Characters of a file's name that are shown."""
OCR_MEMORY = 4 * 1024**3
OCR_PATIENCE = 60.0
OCR_THREADS = 4
OCR_TEXT = 20_000
"""Characters of the text of an image."""
ENTRY = 500
"""Characters that a remembered result counts at least."""

_PLAIN = {f"application/{kind}" for kind in ("json", "x-ndjson", "xml", "yaml", "toml")} | {"image/svg+xml"}
_WITH_PASSWORD = "EncryptedPackage".encode("utf-16-le")
_AT_ONCE = 1024 * 1024

_Key: TypeAlias = tuple[str, str, int]
_Outcome: TypeAlias = DocumentText | Refusal


class Texts:
    """Texts of files: at most `workers` processes at once, each of which may take `patience` seconds.

    Of these it may compute for `effort` seconds, with `memory` bytes. `remembered`: characters of all the results that
    are remembered.
    """

    def __init__(
        self,
        *,
        workers: int = 2,
        patience: float = 30.0,
        effort: int = 10,
        memory: int = 1024**3,
        remembered: int = 8_000_000,
    ) -> None:
        full = "Too many files are being read just now. Try again in a moment."
        self._places = Places(workers, wait=patience, full=full)
        self._patience = patience
        self._effort = effort
        self._memory = memory
        self._room = remembered
        self._remembered: OrderedDict[_Key, _Outcome] = OrderedDict()
        self._readings: Shared[_Key, _Outcome] = Shared()

    async def of(self, document: Document, limit: int) -> DocumentText:
        """The first `limit` characters of its text.

        Raises `UnusableFile`: `file_empty`, `file_without_text`, `file_encrypted`, `file_unreadable`,
        `file_too_complex`, `file_type_not_supported` or `file_gone`; and `Overloaded` where no process is free.
        """
        key = (document.digest, document.media_type, limit)
        outcome = await self._outcome(key, lambda: self._read(document, limit))
        if isinstance(outcome, Refusal):
            raise UnusableFile(
                f"The file{_shown(document.name)} {outcome.why}", param=document.place, code=outcome.code
            )
        return outcome

    async def in_image(self, digest: str, data: bytes) -> str:
        """Text found in the image that has this digest; "" if there is none, or the extra `ocr` is not installed."""
        if not can_see_text():
            return ""
        task = Task("ocr", OCR_TEXT, OCR_MEMORY, math.ceil(OCR_PATIENCE) * OCR_THREADS)
        read = partial(self._read_apart, task, data, OCR_PATIENCE)
        outcome = await self._outcome((digest, "ocr", OCR_TEXT), read)
        return outcome.text if isinstance(outcome, DocumentText) else ""

    async def _outcome(self, key: _Key, read: Callable[[], Coroutine[Any, Any, DocumentText]]) -> _Outcome:
        """What is remembered, or what reading gives, which all share who ask for it meanwhile."""
        if (remembered := self._remembered.get(key)) is not None:
            self._remembered.move_to_end(key)
            return remembered
        outcome = await self._readings.get(key, lambda: _tried(read()))
        self._remember(key, outcome)
        return outcome

    async def _read(self, document: Document, limit: int) -> DocumentText:
        kind = document.media_type
        if not document.size:
            raise Refusal("file_empty", "is empty. Send one with content.")
        if reader := READERS.get(kind):
            content = document.path or document.data or b""
            task = Task(reader, limit, self._memory, self._effort)
            return await self._read_apart(task, content, self._patience)
        if kind.startswith("text/") or kind in _PLAIN:
            return await asyncio.to_thread(_read_plain, document, limit)
        if kind == OLE:
            if await asyncio.to_thread(_has_password, document):
                raise encrypted()
            raise Refusal("file_type_not_supported", "is of an old Office program. Save it as DOCX, XLSX or PPTX.")
        raise Refusal("file_type_not_supported", f"is of a type that cannot be read ({kind}). {SUPPORTED}")

    async def _read_apart(self, task: Task, content: Path | bytes, patience: float) -> DocumentText:
        async with self._places:
            return await read_apart(task, content, patience)

    def _remember(self, key: _Key, outcome: _Outcome) -> None:
        if key in self._remembered or (isinstance(outcome, Refusal) and not outcome.lasting):
            return
        self._remembered[key] = outcome
        self._room -= _cost(outcome)
        while self._room < 0:
            _, forgotten = self._remembered.popitem(last=False)
            self._room += _cost(forgotten)


def can_see_text() -> bool:
    """Whether the optional extra that finds text in images is installed."""
    return importlib.util.find_spec("rapidocr_onnxruntime") is not None


async def _tried(reading: Coroutine[Any, Any, DocumentText]) -> _Outcome:
    try:
        return await reading
    except Refusal as refusal:
        return refusal.with_traceback(None)
    except FileNotFoundError:
        return Refusal("file_gone", "is no longer there. Upload it again.", lasting=False)


def _read_plain(document: Document, limit: int) -> DocumentText:
    with opened(document) as file:
        return plain.read(file, limit)


def _has_password(document: Document) -> bool:
    """New Office files with a password are packed into an old one, in a part of this name."""
    before = b""
    with opened(document) as file:
        while chunk := file.read(_AT_ONCE):
            if _WITH_PASSWORD in before + chunk:
                return True
            before = chunk[-len(_WITH_PASSWORD) :]
    return False


def _shown(name: str) -> str:
    short = name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "…"
    return f" '{short}'" if name else ""


def _cost(outcome: _Outcome) -> int:
    return ENTRY + (len(outcome.text) if isinstance(outcome, DocumentText) else 0)
