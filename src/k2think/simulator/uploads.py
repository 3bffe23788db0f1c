"""The files that users left, and how far each is on its way to text. Pure but for the clock that callers pass in."""

from __future__ import annotations

import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from k2think.simulator.options import Release

FileStatus: TypeAlias = Literal["pending", "processing", "completed", "failed"]

MAX_FILES = 200
MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class UploadedFile:
    """One file of one user. `account`: an e-mail; `created`: Unix seconds; `headers`: those of the upload.

    `ready_at` is a time of the clock that `status` is asked with; None: never. `has_text` is False where processing
    makes no text of the content, as of images; `error` is what processing ends with, empty: nothing went wrong.
    """

    account: str
    filename: str
    content_type: str
    data: bytes = field(repr=False)
    metadata: Any
    headers: dict[str, str] = field(repr=False)
    created: int
    process: bool
    ready_at: float | None
    has_text: bool
    error: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def sha256(self) -> str:
        """Of the bytes, in hex."""
        return hashlib.sha256(self.data).hexdigest()

    def status(self, now: float, release: Release) -> FileStatus:
        """How far processing is; without any asked for, `pending` for ever."""
        if not self.process or self.ready_at is None:
            return "pending"
        if now < self.ready_at:
            return "pending" if release == "0.6.28" else "processing"
        return "failed" if self.error else "completed"

    def text(self, now: float, release: Release) -> str | None:
        """The text; None if there is none, or none yet."""
        if not self.has_text or self.status(now, release) != "completed":
            return None
        return self.data.decode("utf-8", "replace")


class Uploads:
    """The last `MAX_FILES` files within `MAX_BYTES` in all; the newest stays, however big it is."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, UploadedFile] = OrderedDict()
        self._size = 0

    def __iter__(self) -> Iterator[UploadedFile]:
        """All files, oldest first."""
        return iter(tuple(self._files.values()))

    def add(self, file: UploadedFile) -> None:
        """Keep a file, and forget the oldest ones that there is no more room for."""
        self._files[file.id] = file
        self._size += len(file.data)
        while len(self._files) > 1 and (len(self._files) > MAX_FILES or self._size > MAX_BYTES):
            _, oldest = self._files.popitem(last=False)
            self._size -= len(oldest.data)

    def find(self, file_id: Any, account: str) -> UploadedFile | None:
        """This file, if there is one and it is this user's."""
        file = self._files.get(file_id) if isinstance(file_id, str) else None
        return file if file is not None and file.account == account else None

    def remove(self, file: UploadedFile) -> None:
        """Forget this file."""
        if self._files.pop(file.id, None) is not None:
            self._size -= len(file.data)

    def clear(self) -> None:
        """Forget all of them."""
        self._files.clear()
        self._size = 0


def outcome(content_type: str, data: bytes, faults: Collection[str], release: Release) -> tuple[bool, str]:
    """What processing will come to: whether there will be text, and the error, empty: none.

    Any bytes are text here, read as UTF-8, but images, videos, and a PDF without an end, which is an error.
    """
    if "files_fail" in faults:
        return False, "The simulator was told to fail."
    kind = content_type.partition("/")[0]
    if kind in {"image", "video"}:
        supported = kind == "video" or release == "0.6.28"
        return False, "" if supported else f"File type {content_type} is not supported for processing"
    if content_type == "application/pdf" and b"%%EOF" not in data[-1024:]:
        return False, "Stream has ended unexpectedly"
    return True, ""
