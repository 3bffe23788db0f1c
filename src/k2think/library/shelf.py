"""Keeps the files that clients leave here: each content once, in a folder that a few processes may share.

    contents/ab/abcd…    a content, named by its SHA-256
    incoming/            those that are being written
    records/             `file/OWNER/ID`: whose file it is, its name and so on; `use/DIGEST/ID`: who needs a content

A record is written last and deleted first, so a file that is listed is whole. What a killed process leaves behind is
an incoming file, a content that nobody uses or a use without a file: `sweep` removes them. Whoever adds or removes
uses of a content holds the lock of its group, which is the first two digits of its name.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from k2think.dialogue.prompt import Document
from k2think.library.deposit import RECORDS_BYTES, Deposit, Room, on_disk
from k2think.library.names import safe_name
from k2think.library.records import FileRecord
from k2think.library.sniffing import media_type_of
from k2think.storage.directory import WRITING, DirectoryStorage
from k2think.storage.durable import sync_folder

logger = logging.getLogger(__name__)

STALE_AFTER = 3600.0
"""Seconds without a byte after which nobody is writing an incoming file any more."""

PRIVATE_FOLDER = 0o700

FILE_ID = re.compile("file-[0-9a-f]{30}")
"""What the id of a file looks like, whether there is one or was."""

_DIGEST = re.compile("[0-9a-f]{64}")
_USE_KEY = re.compile(f"use/(?P<digest>{_DIGEST.pattern})/(?P<id>{FILE_ID.pattern})")


class Shelf:
    """The files of all clients. Plain calls, for threads; all raise `GatewayError` where the disk fails.

    `max_bytes` bounds one file, `quota_bytes` all of them together: equal contents count once, and each file 8 KB more
    (`RECORDS_BYTES`), so that files of nothing cannot use up the disk or its inodes. `ttl` is the longest that a file
    is kept, in seconds, 0 for ever. A file whose time is over is not there, swept or not.
    """

    def __init__(self, folder: Path, *, max_bytes: int, quota_bytes: int, ttl: float) -> None:
        self.max_bytes = max_bytes
        self._folder = folder
        self._contents = folder / "contents"
        self._incoming = folder / "incoming"
        self._records_folder = folder / "records"
        self._records = DirectoryStorage(self._records_folder)
        self._room = Room(self._contents, self._records_folder, quota_bytes)
        self._ttl = ttl

    def begin(self) -> Deposit:
        """Begin to take a file in."""
        with on_disk():
            self._folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            self._incoming.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        return Deposit(self._incoming / secrets.token_hex(16), max_bytes=self.max_bytes, room=self._room)

    def keep(
        self, deposit: Deposit, *, owner: str, name: str, purpose: str, now: float, lifetime: int | None = None
    ) -> FileRecord:
        """Make a file of what was written. `lifetime`: seconds that the client wants it kept; None for no end."""
        digest = deposit.finish()
        name = safe_name(name)
        lifetimes = [seconds for seconds in (lifetime, self._ttl) if seconds]
        with on_disk():
            with deposit.path.open("rb") as file:
                media_type = media_type_of(file, name)
            record = FileRecord(
                id=_new_id(now),
                owner=owner,
                name=name,
                purpose=purpose,
                size=deposit.size,
                digest=digest,
                media_type=media_type,
                created_at=int(now),
                expires_at=int(now + min(lifetimes)) if lifetimes else None,
            )
            path = self._path_of(digest)
            self._contents.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            path.parent.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            self._records_folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            with self._records.lock(_group_of(digest)):
                deposit.move_to(path)
                sync_folder(path.parent)
                self._records.put(_use_key(record), owner.encode())
                self._records.put(_file_key(owner, record.id), msgspec.json.encode(record))
            sync_folder(self._records_folder)
        return record

    def find(self, owner: str, file_id: str, now: float) -> FileRecord | None:
        """The owner's file of this id; None if there is none."""
        if not FILE_ID.fullmatch(file_id):
            return None
        with on_disk():
            record = self._read(_file_key(owner, file_id))
        return record if record and record.is_there(now) else None

    def page(
        self,
        owner: str,
        now: float,
        *,
        after: str | None = None,
        limit: int = 10_000,
        order: Literal["asc", "desc"] = "desc",
        purpose: str | None = None,
    ) -> tuple[list[FileRecord], bool]:
        """Some of the owner's files by age, from behind the id `after`, and whether there are more."""
        found: list[FileRecord] = []
        with on_disk():
            keys = self._records.keys(_file_key(owner, ""))
            if after is not None:
                border = _file_key(owner, after)
                keys = [key for key in keys if (key < border if order == "desc" else key > border)]
            for key in reversed(keys) if order == "desc" else keys:
                record = self._read(key)
                if record is None or not record.is_there(now) or purpose not in {None, record.purpose}:
                    continue
                if len(found) == limit:
                    return found, True
                found.append(record)
        return found, False

    def delete(self, owner: str, file_id: str) -> bool:
        """Delete the owner's file, and its content if nobody else uses it. Gives whether there was one."""
        if not FILE_ID.fullmatch(file_id):
            return False
        with on_disk():
            record = self._read(_file_key(owner, file_id))
            if record is None:
                return False
            with self._records.lock(_group_of(record.digest)):
                self._forget(record)
                is_last = not self._records.keys(f"use/{record.digest}/")
                if is_last:
                    self._path_of(record.digest).unlink(missing_ok=True)
        self._room.free(RECORDS_BYTES + (record.size if is_last else 0))
        return True

    def document(self, record: FileRecord) -> Document:
        """The file as something to read; it may be deleted by then."""
        return Document(
            name=record.name,
            media_type=record.media_type,
            digest=record.digest,
            size=record.size,
            path=self._path_of(record.digest),
        )

    def sweep(self, now: float) -> None:
        """Remove what nobody can ask for any more: files whose time is over, and the remains of killed processes."""
        with on_disk():
            _remove_stale(self._incoming.glob("*"), now)
            _remove_stale(self._records_folder.glob(f"*{WRITING}"), now)
            for key in self._records.keys("file/"):
                record = self._read(key)
                if record and not record.is_there(now):
                    with self._records.lock(_group_of(record.digest)):
                        self._forget(record)
            self._sweep_uses()
            self._sweep_contents()
        self._room.measure_again()

    def _sweep_uses(self) -> None:
        """Remove uses without a file. It may just be coming, so those that look like it are looked at with the lock."""
        uses = self._records.keys("use/")
        there = self._ids_there()
        unused = [found for key in uses if (found := _USE_KEY.fullmatch(key)) and found["id"] not in there]
        for group in sorted({_group_of(found["digest"]) for found in unused}):
            with self._records.lock(group):
                there = self._ids_there()
                for found in unused:
                    if _group_of(found["digest"]) == group and found["id"] not in there:
                        self._records.delete(found[0])

    def _sweep_contents(self) -> None:
        """Remove contents that nobody uses, group by group: counting the uses takes longer than all the rest."""
        used = self._digests_in_use("use/")
        names = (path for path in self._contents.glob("*/*") if _DIGEST.fullmatch(path.name))
        unused = [path for path in names if path.name not in used]
        for group in sorted({_group_of(path.name) for path in unused}):
            with self._records.lock(group):
                used = self._digests_in_use(f"use/{group.removeprefix('group/')}")
                for path in unused:
                    if _group_of(path.name) == group and path.name not in used:
                        path.unlink(missing_ok=True)

    def _ids_there(self) -> set[str]:
        return {key.rpartition("/")[2] for key in self._records.keys("file/")}

    def _digests_in_use(self, prefix: str) -> set[str]:
        return {key.split("/")[1] for key in self._records.keys(prefix)}

    def _forget(self, record: FileRecord) -> None:
        self._records.delete(_file_key(record.owner, record.id))
        self._records.delete(_use_key(record))

    def _read(self, key: str) -> FileRecord | None:
        value = self._records.get(key)
        if value is None:
            return None
        try:
            record = msgspec.json.decode(value, type=FileRecord)
        except (msgspec.DecodeError, UnicodeDecodeError):
            record = None
        if record is None or _file_key(record.owner, record.id) != key or not _DIGEST.fullmatch(record.digest):
            logger.warning("the record %s in %s is damaged: its file is not offered", key, self._records_folder)
            return None
        return record

    def _path_of(self, digest: str) -> Path:
        return self._contents / digest[:2] / digest


def _new_id(now: float) -> str:
    """An id nobody guesses, which begins with the time: in the order of ids files are in the order of their age."""
    return f"file-{int(now * 1_000_000):014x}{secrets.token_hex(8)}"


def _file_key(owner: str, file_id: str) -> str:
    return f"file/{owner}/{file_id}"


def _use_key(record: FileRecord) -> str:
    return f"use/{record.digest}/{record.id}"


def _group_of(digest: str) -> str:
    return f"group/{digest[:2]}"


def _remove_stale(paths: Iterable[Path], now: float) -> None:
    for path in paths:
        try:
            if now - path.stat().st_mtime > STALE_AFTER:
                path.unlink()
        except FileNotFoundError:  # it came to its end
            continue
