"""A file on its way in: written beside the others, within the bounds, and not one of them before it is whole."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from k2think.errors import FileTooLarge, GatewayError, NoRoomForFile
from k2think.storage.base import StorageUnusable
from k2think.storage.durable import PRIVATE

MEASURE_EVERY = 10.0
"""Seconds after which what lies on the disk is counted anew: other processes may share the folder."""

RECORD_BYTES = 4096
"""What a record is counted as: a small file takes a block of the disk, whatever is in it."""

RECORDS_BYTES = 2 * RECORD_BYTES
"""The same for all records of one file: what it costs beside its content."""

MB = 1024 * 1024

logger = logging.getLogger(__name__)


@contextmanager
def on_disk() -> Iterator[None]:
    """Tell of a disk that fails: the log in its words, the client (`GatewayError`) in ours."""
    try:
        yield
    except (OSError, StorageUnusable) as error:
        logger.error("uploaded files (DATA_DIR): %s", error)  # noqa: TRY400 - where it happened says nothing
        cause = error if isinstance(error, OSError) else error.__cause__
        full = isinstance(cause, OSError) and cause.errno in {errno.ENOSPC, errno.EDQUOT}
        raise GatewayError(
            "The gateway's disk is full. Whoever runs it must make room where DATA_DIR is."
            if full
            else "The gateway cannot use its folder for files (DATA_DIR). Its log says why.",
            code="file_storage_unusable",
            status=503,
        ) from error


class Room:
    """Counts the bytes that lie in `contents`, a folder of folders, those on their way into it, and `RECORD_BYTES` for
    each name in `records`. Threads share it; what other processes do is counted every `MEASURE_EVERY` seconds.
    """

    def __init__(self, contents: Path, records: Path, limit: int) -> None:
        self._contents = contents
        self._records = records
        self._limit = limit
        self._lock = Lock()
        self._kept = 0
        self._coming = 0
        self._measured_at = -MEASURE_EVERY

    def take(self, size: int) -> None:
        """Let so many bytes come. Raises `NoRoomForFile`."""
        with self._lock:
            now = time.monotonic()
            if now - self._measured_at >= MEASURE_EVERY:
                self._kept = _bytes_below(self._contents) + RECORD_BYTES * _records_in(self._records)
                self._measured_at = now
            if self._kept + self._coming + size > self._limit:
                raise NoRoomForFile(
                    f"There is no room left for this file: all files together may have {self._limit // MB} MB "
                    f"(FILES_QUOTA_MB), and each counts {RECORDS_BYTES // 1024} KB more than its content. "
                    "Delete some that are not needed any more."
                )
            self._coming += size

    def give_back(self, size: int) -> None:
        """So many bytes that were to come do not stay."""
        with self._lock:
            self._coming -= size

    def settle(self, size: int) -> None:
        """So many bytes that came stay."""
        with self._lock:
            self._coming -= size
            self._kept += size

    def free(self, size: int) -> None:
        """So many bytes that had stayed were deleted."""
        with self._lock:
            self._kept -= size

    def measure_again(self) -> None:
        """Much may have been deleted."""
        with self._lock:
            self._measured_at = -MEASURE_EVERY


class Deposit:
    """One file being written, by one thread at a time. It ends by `move_to` or `discard`.

    Raises `FileTooLarge`, `NoRoomForFile`, and `GatewayError` where the disk fails.
    """

    def __init__(self, path: Path, *, max_bytes: int, room: Room) -> None:
        self.path = path
        self.size = 0
        self._max_bytes = max_bytes
        self._room = room
        self._hash = hashlib.sha256()
        self._ended = False
        room.take(RECORDS_BYTES)
        try:
            with on_disk():
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), PRIVATE)
        except GatewayError:
            room.give_back(RECORDS_BYTES)
            raise
        self._file = os.fdopen(descriptor, "wb")

    def write(self, data: bytes | memoryview) -> None:
        """Append."""
        if self.size + len(data) > self._max_bytes:
            raise file_too_large(self._max_bytes)
        with on_disk():
            self._room.take(len(data))
            self.size += len(data)
            self._hash.update(data)
            self._file.write(data)

    def finish(self) -> str:
        """Let the content outlive a power cut. Gives its SHA-256 in hex."""
        with on_disk():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        return self._hash.hexdigest()

    def move_to(self, path: Path) -> None:
        """Be the file there, in place of one with the same content. Raises `OSError`."""
        is_new = not path.exists()
        self.path.replace(path)
        self._ended = True
        if not is_new:
            self._room.give_back(self.size)
        self._room.settle(RECORDS_BYTES + (self.size if is_new else 0))

    def discard(self) -> None:
        """Leave nothing behind; after `move_to` do nothing."""
        if self._ended:
            return
        self._ended = True
        self._room.give_back(RECORDS_BYTES + self.size)
        with on_disk():
            try:
                self._file.close()  # writes what is left, and a full disk says so once more
            finally:
                self.path.unlink(missing_ok=True)


def file_too_large(max_bytes: int) -> FileTooLarge:
    """The error for a file of more bytes."""
    return FileTooLarge(f"The file is larger than {max_bytes // MB} MB (MAX_FILE_MB). Send a smaller one.")


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.glob("*/*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # deleted meanwhile
            continue
    return total


def _records_in(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum("." not in entry.name for entry in entries)  # locks, and what is being written, have a dot
    except FileNotFoundError:
        return 0
