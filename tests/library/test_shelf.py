"""The shelf: each client's files, each content once, within the bounds, and nothing of a file whose time is over."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from pathlib import Path

import pytest

from k2think.errors import FileTooLarge, GatewayError, NoRoomForFile
from k2think.library import deposit as deposits
from k2think.library.deposit import RECORDS_BYTES
from k2think.library.records import FileRecord
from k2think.library.shelf import STALE_AFTER, Shelf
from k2think.storage.directory import DirectoryStorage

NOW = 1_790_000_000.5
MB = 1024 * 1024
ANN, BOB = "a" * 32, "b" * 32


def shelf_at(folder: Path, *, max_bytes: int = 4 * MB, quota_bytes: int = 8 * MB, ttl: float = 0) -> Shelf:
    return Shelf(folder / "files", max_bytes=max_bytes, quota_bytes=quota_bytes, ttl=ttl)


def add(
    shelf: Shelf,
    content: bytes,
    *,
    owner: str = ANN,
    name: str = "a.txt",
    purpose: str = "user_data",
    now: float = NOW,
    lifetime: int | None = None,
) -> FileRecord:
    deposit = shelf.begin()
    deposit.write(content)
    return shelf.keep(deposit, owner=owner, name=name, purpose=purpose, now=now, lifetime=lifetime)


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_a_file_is_kept_as_it_came(tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path)
    deposit = shelf.begin()
    for piece in (b"%PDF-1.7\n", memoryview(b"xx more xx")[2:8], b""):
        deposit.write(piece)
    record = shelf.keep(deposit, owner=ANN, name="../my\x00 report.txt", purpose="user_data", now=NOW)
    content = b"%PDF-1.7\n more "
    assert (record.size, record.digest) == (len(content), hashlib.sha256(content).hexdigest())
    assert (record.name, record.media_type, record.created_at) == ("my report.txt", "application/pdf", int(NOW))
    assert record.expires_at is None
    assert shelf_at(tmp_path).find(ANN, record.id, NOW) == record
    document = shelf.document(record)
    assert (document.name, document.size, document.digest) == (record.name, record.size, record.digest)
    assert document.path is not None
    assert document.path.read_bytes() == content
    deposit.discard()  # as callers do in any case
    assert document.path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="has no such modes")
def test_nobody_else_may_read_them(tmp_path: Path) -> None:
    add(shelf_at(tmp_path), b"secret")
    paths = [tmp_path / "files", *(tmp_path / "files").rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o700, 0o600}


def test_another_client_finds_lists_and_deletes_nothing(tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path)
    record = add(shelf, b"mine")
    assert shelf.find(BOB, record.id, NOW) is None
    assert shelf.page(BOB, NOW) == ([], False)
    assert not shelf.delete(BOB, record.id)
    assert shelf.find(ANN, record.id, NOW) == record


@pytest.mark.parametrize("file_id", ["", "file-", "../../etc/passwd", "file-" + "0" * 30, "FILE-" + "0" * 30, "\ud800"])
def test_an_id_that_is_none_is_no_file(tmp_path: Path, file_id: str) -> None:
    shelf = shelf_at(tmp_path)
    add(shelf, b"x")
    assert shelf.find(ANN, file_id, NOW) is None
    assert not shelf.delete(ANN, file_id)


def test_pages_go_by_age_both_ways(tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path)
    ids = [add(shelf, b"x", purpose="vision" if n == 2 else "user_data", now=NOW + n / 1000).id for n in range(5)]
    add(shelf, b"x", owner=BOB)

    def page(**how: object) -> tuple[list[int], bool]:
        records, has_more = shelf.page(ANN, NOW + 1, **how)  # type: ignore[arg-type]
        return [ids.index(record.id) for record in records], has_more

    assert page() == ([4, 3, 2, 1, 0], False)
    assert page(limit=2) == ([4, 3], True)
    assert page(limit=2, after=ids[3]) == ([2, 1], True)
    assert page(limit=2, after=ids[1]) == ([0], False)
    assert page(order="asc", after=ids[1]) == ([2, 3, 4], False)
    assert page(purpose="vision") == ([2], False)
    assert page(limit=1, purpose="vision") == ([2], False)
    shelf.delete(ANN, ids[3])
    assert page(limit=1, after=ids[3]) == ([2], True)


def test_equal_contents_are_kept_once_and_until_the_last_is_deleted(tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path, quota_bytes=3 * MB + 4 * RECORDS_BYTES)
    one, two = (add(shelf, b"x" * MB, owner=owner) for owner in (ANN, BOB))
    add(shelf, b"x" * MB)  # 3 MB came, 1 MB stays: there is room for 2 more
    add(shelf, b"y" * 2 * MB)
    assert len(files_below(tmp_path / "files" / "contents")) == 2
    path = shelf.document(one).path
    assert path is not None
    for record in shelf.page(ANN, NOW)[0]:
        assert shelf.delete(ANN, record.id)
    assert path.read_bytes() == b"x" * MB
    assert shelf.find(ANN, one.id, NOW) is None
    assert shelf.find(BOB, two.id, NOW) == two
    assert shelf.delete(BOB, two.id)
    assert not shelf.delete(BOB, two.id)
    assert files_below(tmp_path) == []
    add(shelf, b"z" * 3 * MB)  # all the room is there again


def test_what_is_too_large_is_stopped_as_it_comes(tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path, max_bytes=2 * MB)
    deposit = shelf.begin()
    deposit.write(b"x" * 2 * MB)
    with pytest.raises(FileTooLarge, match="larger than 2 MB"):
        deposit.write(b"x")
    deposit.discard()
    assert files_below(tmp_path) == []


def test_the_quota_counts_what_lies_there_and_what_comes(tmp_path: Path) -> None:
    quota_bytes = 4 * MB + 3 * RECORDS_BYTES
    add(shelf_at(tmp_path, quota_bytes=quota_bytes), b"a" * 2 * MB)
    shelf = shelf_at(tmp_path, quota_bytes=quota_bytes)  # another process
    first, second = shelf.begin(), shelf.begin()
    first.write(b"b" * MB)
    second.write(b"c" * MB)
    with pytest.raises(NoRoomForFile, match="FILES_QUOTA_MB"):
        first.write(b"b")
    second.discard()
    second.discard()
    first.write(b"b" * MB)
    with pytest.raises(NoRoomForFile):
        first.write(b"b" * (RECORDS_BYTES + 1))
    first.discard()


def test_many_files_of_nothing_use_the_quota_up_too(tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path, quota_bytes=4 * RECORDS_BYTES)
    for owner in (ANN, BOB, ANN, BOB):
        last = add(shelf, b"", owner=owner)
    for process in (shelf, shelf_at(tmp_path, quota_bytes=4 * RECORDS_BYTES)):
        with pytest.raises(NoRoomForFile, match="8 KB more"):
            process.begin()
    assert files_below(tmp_path / "files" / "incoming") == []
    shelf.delete(BOB, last.id)
    add(shelf, b"")


def test_what_is_deleted_is_counted_and_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    def look(folder: Path) -> int:
        looks.append(folder)
        return 0

    monkeypatch.setattr(deposits, "_bytes_below", look)
    monkeypatch.setattr(deposits, "MEASURE_EVERY", 3600.0)
    shelf = shelf_at(tmp_path, quota_bytes=MB + RECORDS_BYTES)
    for content in (b"x" * MB, b"y" * MB, b"z" * MB):
        shelf.delete(ANN, add(shelf, content).id)
    assert len(looks) == 1


@pytest.mark.parametrize(
    ("ttl", "lifetime", "expected"), [(0, None, None), (60, None, 60), (0, 60, 60), (60, 90, 60), (90, 60, 60)]
)
def test_a_file_is_gone_when_its_time_is_over(
    tmp_path: Path, ttl: float, lifetime: int | None, expected: int | None
) -> None:
    shelf = shelf_at(tmp_path, ttl=ttl)
    record = add(shelf, b"x", lifetime=lifetime)
    assert record.expires_at == (None if expected is None else int(NOW) + expected)
    for now, there in ((NOW + 59, True), (NOW + 60, expected is None)):
        assert (shelf.find(ANN, record.id, now) == record) == there
        assert shelf.page(ANN, now) == ([record] if there else [], False)
        shelf.sweep(now)
        assert len(files_below(tmp_path)) == (3 if there else 0)


def test_a_sweep_leaves_what_is_used_or_being_written(tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path)
    kept, expiring = add(shelf, b"x"), add(shelf, b"x", lifetime=60)
    deposit = shelf.begin()
    deposit.write(b"coming")
    os.utime(deposit.path, (NOW, NOW))
    shelf.sweep(NOW + STALE_AFTER - 60)
    assert shelf.page(ANN, NOW + 61) == ([kept], False)
    assert shelf.find(ANN, expiring.id, NOW) is None
    record = shelf.keep(deposit, owner=ANN, name="", purpose="p", now=NOW)
    shelf.sweep(NOW)
    for found, content in ((kept, b"x"), (record, b"coming")):
        path = shelf.document(found).path
        assert path is not None
        assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"}", b""), (b"a.txt", b"\xff.txt"), (ANN.encode(), b"c" * 300), (b'"digest":"', b'"digest":"../../')],
)
def test_no_damaged_record_stops_a_list_or_a_sweep(tmp_path: Path, old: bytes, new: bytes) -> None:
    shelf = shelf_at(tmp_path)
    bad = add(shelf, b"x", lifetime=60)
    good, over = add(shelf, b"y", now=NOW + 1), add(shelf, b"z", now=NOW + 2, lifetime=60)
    (path,) = (tmp_path / "files" / "records").glob(f"file*{bad.id}")
    path.write_bytes(path.read_bytes().replace(old, new))
    assert shelf.page(ANN, NOW) == ([over, good], False)
    shelf.sweep(NOW + 62)
    assert shelf.page(ANN, NOW) == ([good], False)


def test_no_foreign_or_damaged_use_stops_a_sweep(tmp_path: Path) -> None:
    shelf = shelf_at(tmp_path)
    record, over = add(shelf, b"x"), add(shelf, b"y", lifetime=60)
    records = DirectoryStorage(tmp_path / "files" / "records")
    for key in ("use/", "use/x", "use/x/y/z", f"use/{'0' * 64}/x", f"use/{'1' * 64}/{record.id}/x"):
        records.put(key, b"\xff")
    damaged, orphan = f"use/{record.digest}/{record.id}", f"use/{'2' * 64}/file-{'2' * 30}"
    for key in (damaged, orphan):
        records.put(key, b"\xff" * 300)
    shelf.sweep(NOW + 60)
    assert shelf.page(ANN, NOW) == ([record], False)
    document = shelf.document(over).path
    assert document is not None
    assert not document.exists()
    assert records.get(damaged)
    assert records.get(orphan) is None


@pytest.mark.parametrize(("fault", "message"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "cannot use its folder")])
def test_a_disk_that_fails_is_told_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int, message: str
) -> None:
    shelf = shelf_at(tmp_path)
    deposit = shelf.begin()
    deposit.write(b"x")

    def fail(_: int) -> None:
        raise OSError(fault, os.strerror(fault), "/secret/path")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(GatewayError, match=message) as failure:
        shelf.keep(deposit, owner=ANN, name="", purpose="p", now=NOW)
    assert (failure.value.status, failure.value.code) == (503, "file_storage_unusable")
    assert "/secret" not in failure.value.message
    deposit.discard()
    assert files_below(tmp_path) == []
