"""What the gateway asks of whatever remembers things for it: five verbs, the same for every kind of store.

They are plain calls: a caller that must not wait for a disk makes them in a thread.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import Protocol
from urllib.parse import unquote_to_bytes

MAX_VALUE_BYTES = 16 * 1024 * 1024
"""The largest value that a store takes."""

MAX_NAME = 200
"""Characters of an escaped key: a file's name, with an ending, may have 255."""

LOCK_PATIENCE = 10.0
"""Seconds to wait for a lock, unless told otherwise."""


class StorageUnusable(Exception):
    """The store cannot do what was asked; the message says why and what to do, without the value."""


class LockTaken(StorageUnusable):
    """Somebody else holds the lock, and did not let go of it in time."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Another process does not let go of the lock of {key}. Is it stopped?")


class Storage(Protocol):
    """Values by key, kept apart from everybody else's.

    A key is any text whose escaped name (`name_of`) has 1 to `MAX_NAME` characters, such as `credentials/health`. Every
    verb raises `StorageUnusable`, for another key too.
    """

    def get(self, key: str) -> bytes | None:
        """Give the value; None where there is none."""
        ...

    def put(self, key: str, value: bytes, *, durable: bool = True) -> None:
        """Keep the value in place of an earlier one. Whoever reads, or is killed, finds the one or the other whole.

        Not `durable`: it need not outlive a power cut, and waits for no disk.
        """
        ...

    def delete(self, key: str) -> None:
        """Forget the value, if there is one."""
        ...

    def keys(self, prefix: str = "") -> list[str]:
        """Give the keys that begin so, sorted."""
        ...

    def lock(self, key: str, patience: float = LOCK_PATIENCE) -> AbstractContextManager[None]:
        """Keep everybody else out of the same key's lock: other threads, and other processes that share the store.

        Raises `LockTaken` where it is not to be had for `patience` seconds; 0 tries once. Holding it neither needs nor
        hinders the other verbs. Whoever holds it must not ask for it again, and is rid of it when it is killed.
        """
        ...


def name_of(key: str) -> str:
    """The key as a name that stays what it is on every file system: `[a-z0-9_-]`, all other bytes as `%2f`."""
    try:
        name = re.sub(rb"[^a-z0-9_-]", lambda byte: b"%%%02x" % ord(byte[0]), key.encode()).decode()
    except UnicodeEncodeError:
        name = ""
    if not 1 <= len(name) <= MAX_NAME:
        raise StorageUnusable(f"A key is text of 1 to {MAX_NAME} characters, escaped. Use a shorter one.")
    return name


def key_of(name: str) -> str | None:
    """The key that has this name; None where no key has it."""
    try:
        key = unquote_to_bytes(name).decode()
        return key if name_of(key) == name else None
    except (UnicodeError, StorageUnusable):
        return None


def check_value(value: bytes) -> None:
    """Raise `StorageUnusable` for a value over the bound."""
    if len(value) > MAX_VALUE_BYTES:
        raise StorageUnusable(f"A value has at most {MAX_VALUE_BYTES // 1024 // 1024} MB. Keep less in one.")
