"""Remembers as long as the process lives: for a gateway that is given no folder, and for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from k2think.storage.base import LOCK_PATIENCE, LockTaken, check_value, name_of


class MemoryStorage:
    """A `Storage` of one process."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._locks: dict[str, Lock] = {}

    def get(self, key: str) -> bytes | None:
        name_of(key)
        return self._values.get(key)

    def put(self, key: str, value: bytes, *, durable: bool = True) -> None:  # noqa: ARG002 - nothing here is
        name_of(key)
        check_value(value)
        self._values[key] = bytes(value)

    def delete(self, key: str) -> None:
        name_of(key)
        self._values.pop(key, None)

    def keys(self, prefix: str = "") -> list[str]:
        return sorted(key for key in self._values.copy() if key.startswith(prefix))

    @contextmanager
    def lock(self, key: str, patience: float = LOCK_PATIENCE) -> Iterator[None]:
        lock = self._locks.setdefault(name_of(key), Lock())
        if not lock.acquire(timeout=patience):
            raise LockTaken(key)
        try:
            yield
        finally:
            lock.release()
