"""Remembers in a folder: one file a key, so that a person can look at one, copy one or delete one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from k2think.storage.base import (
    LOCK_PATIENCE,
    MAX_VALUE_BYTES,
    LockTaken,
    StorageUnusable,
    check_value,
    key_of,
    name_of,
)
from k2think.storage.durable import create, locked

# No key's name has a dot in it.
WRITING = ".writing"
LOCK = ".lock"


class DirectoryStorage:
    """A `Storage` that outlives the process, and that processes of one machine may share.

    The folder (0700) is made when something is first kept in it; its files are 0600.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> bytes | None:
        path = self._folder / name_of(key)
        with self._speaking("read"):
            try:
                with path.open("rb") as file:
                    value = file.read(MAX_VALUE_BYTES + 1)
            except FileNotFoundError:
                return None
        if len(value) > MAX_VALUE_BYTES:
            raise StorageUnusable(f"{path} is larger than any value that was kept. Delete it.")
        return value

    def put(self, key: str, value: bytes, *, durable: bool = True) -> None:
        name = name_of(key)
        check_value(value)
        # Named at random: two who write the same key at once must not write into one file.
        fresh = self._folder / f"{name}.{secrets.token_hex(8)}{WRITING}"
        with self._speaking("written"):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            create(fresh, value, durable=durable)
            try:
                fresh.replace(self._folder / name)
            except OSError:
                fresh.unlink(missing_ok=True)
                raise

    def delete(self, key: str) -> None:
        path = self._folder / name_of(key)
        with self._speaking("written"):
            path.unlink(missing_ok=True)

    def keys(self, prefix: str = "") -> list[str]:
        with self._speaking("read"):
            try:
                with os.scandir(self._folder) as entries:
                    found = [key_of(entry.name) for entry in entries if entry.is_file()]
            except FileNotFoundError:
                return []
        return sorted(key for key in found if key is not None and key.startswith(prefix))

    @contextmanager
    def lock(self, key: str, patience: float = LOCK_PATIENCE) -> Iterator[None]:
        # The file stays: were it deleted, one could hold the lock of the old file and another that of a new one.
        path = self._folder / f"{name_of(key)}{LOCK}"
        with ExitStack() as stack:
            with self._speaking("locked"):
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                try:
                    stack.enter_context(locked(path, os.O_RDWR | os.O_CREAT, patience=patience))
                except TimeoutError:
                    raise LockTaken(key) from None
            yield

    @contextmanager
    def _speaking(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StorageUnusable(
                f"{self._folder} cannot be {verb}: {reason}. It must be a folder on a disk with room, and this user "
                "must be allowed to read and write it."
            ) from error
