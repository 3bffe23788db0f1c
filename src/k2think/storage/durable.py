"""Files on a disk that may be pulled out at any instant: written whole, and by one process at a time.

A rename is what makes a file appear whole; here is what goes before and after it. Everything raises `OSError`.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from k2think.storage.base import LOCK_PATIENCE

if sys.platform != "win32":
    import fcntl

PRIVATE = 0o600
"""The mode of a file that nobody else may read."""


def create(path: Path, content: bytes, *, mode: int = PRIVATE, durable: bool = True) -> None:
    """Write a new file; when this returns it is on the disk, if it is to be `durable`.

    Never wider than `mode`, and nothing is left of a failure.
    Raises `FileExistsError` where something has the name, were it a link that leads elsewhere.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def overwrite(path: Path, content: bytes) -> None:
    """Write lines over a file that cannot be renamed over, such as one that is mounted by itself.

    All in one write, and a shorter content filled up with newlines: whoever reads meanwhile finds whole lines, save at
    most one. A kill may cut the write off, so the content must be safe in another file until this returns.
    """
    with path.open("r+b", buffering=0) as file:
        rest = memoryview(content.ljust(os.fstat(file.fileno()).st_size, b"\n"))
        while rest:
            rest = rest[file.write(rest) :]
        os.ftruncate(file.fileno(), len(content))
        os.fsync(file.fileno())


def back_up(path: Path, backup: Path, *, share: bool = True) -> None:
    """Let `backup` hold what the file holds; until it does it holds what it held. `share`: a hard link will do."""
    fresh = backup.with_name(f"{backup.name}.new")
    fresh.unlink(missing_ok=True)
    if not (share and _linked(path, fresh)):
        create(fresh, path.read_bytes(), mode=path.stat().st_mode & PRIVATE)
        make_alike(fresh, path)
    fresh.replace(backup)
    fresh.unlink(missing_ok=True)  # renaming one name of a file over another of its names does nothing


def _linked(path: Path, fresh: Path) -> bool:
    try:
        fresh.hardlink_to(path)
    except OSError:  # a file system without hard links, a file that is mounted by itself, or one of another user
        return False
    return True


def make_alike(path: Path, model: Path) -> None:
    """Give a file the permissions of another, and its owner where that is allowed; of none, make it private.

    When this returns the file is on the disk, whoever wrote it.
    """
    try:
        status = model.stat()
    except FileNotFoundError:
        path.chmod(PRIVATE)
    else:
        path.chmod(status.st_mode & 0o777)
        if sys.platform != "win32":
            with suppress(OSError):  # only root may, and not everywhere
                os.chown(path, status.st_uid, status.st_gid)
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Let the renames in the folder outlive a power cut."""
    if sys.platform == "win32":  # knows no such thing
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int, patience: float) -> None:
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise TimeoutError(errno.ETIMEDOUT, "another process does not let go of its lock") from None
            time.sleep(0.01)
        else:
            return


@contextmanager
def locked(
    path: Path, flags: int = os.O_RDONLY, *, shared: bool = False, patience: float = LOCK_PATIENCE
) -> Iterator[None]:
    """Hold the lock of a file or a folder, opened with `flags`; others who ask for it wait, threads too (after
    `patience` seconds: `TimeoutError`).

    Readers may hold it together (`shared`). A kill lets go of it. Without `fcntl` (Windows) it keeps nobody out.
    """
    descriptor = os.open(path, flags, PRIVATE)
    try:
        if sys.platform != "win32":
            _lock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, patience)
        yield
    finally:
        os.close(descriptor)
