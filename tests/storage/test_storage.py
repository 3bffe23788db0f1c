"""One contract for every kind of store, and what only a folder on a disk has."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import k2think
from k2think.storage.base import MAX_NAME, MAX_VALUE_BYTES, LockTaken, Storage, StorageUnusable, name_of
from k2think.storage.directory import DirectoryStorage
from k2think.storage.memory import MemoryStorage

KINDS: dict[str, Callable[[Path], Storage]] = {
    "memory": lambda _: MemoryStorage(),
    "directory": lambda folder: DirectoryStorage(folder / "state"),
}
SOURCE = Path(k2think.__file__).parents[1]
STRANGE = ["..", "../../outside", "/etc/passwd", "a\\b", "a\x00b", "A", "a.lock", "%2e", "ключ", " ", "\n", "🙂"]


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return KINDS[request.param](tmp_path)


@pytest.fixture
def directory(tmp_path: Path) -> DirectoryStorage:
    return DirectoryStorage(tmp_path / "state")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# The contract


def test_an_untouched_store_holds_nothing(storage: Storage) -> None:
    assert storage.get("credentials/health") is None
    assert storage.keys() == []
    storage.delete("credentials/health")


def test_what_is_put_is_got_until_it_is_put_anew_or_deleted(storage: Storage) -> None:
    storage.put("credentials/health", b"one, and longer")
    storage.put("credentials/health", b"\x00two")
    assert storage.get("credentials/health") == b"\x00two"
    storage.put("credentials/health", b"", durable=False)
    assert storage.get("credentials/health") == b""
    storage.delete("credentials/health")
    storage.delete("credentials/health")
    assert storage.get("credentials/health") is None


def test_keys_are_listed_by_their_beginning(storage: Storage) -> None:
    for key in ("files/b", "files/a", "filesystem", "credentials/health"):
        storage.put(key, b"x")
    storage.delete("files/none")
    assert storage.keys() == ["credentials/health", "files/a", "files/b", "filesystem"]
    assert storage.keys("files/") == ["files/a", "files/b"]
    assert storage.keys("other") == []


def test_strange_keys_are_keys(storage: Storage) -> None:
    for key in STRANGE:
        storage.put(key, key.encode())
    assert storage.keys() == sorted(STRANGE)
    assert [storage.get(key) for key in STRANGE] == [key.encode() for key in STRANGE]
    assert storage.get("a") is None


@pytest.mark.parametrize("key", ["", "x" * (MAX_NAME + 1), "/" * MAX_NAME, "\ud800"])
def test_a_key_out_of_bounds_is_refused_by_every_verb(storage: Storage, key: str) -> None:
    for verb in (
        storage.get,
        storage.delete,
        lambda key: storage.put(key, b""),
        lambda key: storage.lock(key).__enter__(),
    ):
        with pytest.raises(StorageUnusable, match="1 to 200"):
            verb(key)
    assert storage.keys() == []


def test_the_longest_key_and_the_largest_value_are_taken_and_no_larger(storage: Storage) -> None:
    storage.put("x" * MAX_NAME, bytes(MAX_VALUE_BYTES))
    with pytest.raises(StorageUnusable, match="at most 16 MB"):
        storage.put("x" * MAX_NAME, bytes(MAX_VALUE_BYTES + 1))
    assert storage.get("x" * MAX_NAME) == bytes(MAX_VALUE_BYTES)
    with storage.lock("x" * MAX_NAME):
        pass


def test_a_lock_keeps_others_out_and_hinders_nothing_else(storage: Storage) -> None:
    inside = 0
    most = 0

    def count() -> None:
        nonlocal inside, most
        for _ in range(5):
            with storage.lock("credentials/health", 60):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)  # the turn of another thread, were it not kept out
                inside -= 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    with storage.lock("other"):
        for thread in threads:
            thread.start()
        storage.put("credentials/health", b"x")
        for thread in threads:
            thread.join()
    assert most == 1
    assert storage.keys() == ["credentials/health"]


def test_who_has_no_patience_is_told_that_a_lock_is_taken(storage: Storage) -> None:
    for patience in (0, 0.02):
        with storage.lock("x", 0), pytest.raises(LockTaken, match="lock of x"), storage.lock("x", patience):
            pass
    with storage.lock("x", 0):
        pass


def test_a_lock_is_given_back_after_an_error_which_stays_what_it_is(storage: Storage) -> None:
    for _ in range(2):
        with pytest.raises(OSError, match="mine"), storage.lock("x"):
            raise OSError("mine")


keys = st.text(max_size=20).filter(lambda key: 1 <= len(key.encode()) * 3 <= MAX_NAME)
steps = st.lists(st.tuples(keys, st.binary(max_size=50) | st.none()), max_size=8)


@settings(max_examples=20)
@given(steps=steps, prefix=st.text(max_size=2))
@pytest.mark.parametrize("kind", KINDS)
def test_any_store_is_a_dictionary(kind: str, steps: list[tuple[str, bytes | None]], prefix: str) -> None:
    expected: dict[str, bytes] = {}
    with TemporaryDirectory() as folder:
        storage = KINDS[kind](Path(folder))
        for key, value in steps:
            if value is None:
                storage.delete(key)
                expected.pop(key, None)
            else:
                storage.put(key, value)
                expected[key] = value
        assert storage.keys(prefix) == sorted(key for key in expected if key.startswith(prefix))
        assert {key: storage.get(key) for key in expected} == expected
        assert names_in(Path(folder)) in ([], ["state"])


@settings(max_examples=50)
@given(keys, keys)
def test_two_keys_never_share_a_name(one: str, other: str) -> None:
    names = [name_of(one), name_of(other)]
    assert (names[0] == names[1]) == (one == other)
    assert all(re.fullmatch(r"([a-z0-9_-]|%[0-9a-f]{2})+", name) for name in names)


# A folder


def test_a_folder_is_private_and_made_when_something_is_kept(tmp_path: Path, directory: DirectoryStorage) -> None:
    folder = tmp_path / "state"
    assert directory.get("a/b") is None
    directory.delete("a/b")
    assert not folder.exists()
    directory.put("a/b", b"x")
    with directory.lock("a/b"):
        pass
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "a%2fb": 0o600,
        "a%2fb.lock": 0o600,
    }


def test_another_process_finds_what_was_kept(tmp_path: Path, directory: DirectoryStorage) -> None:
    directory.put("a", b"x")
    assert DirectoryStorage(tmp_path / "state").get("a") == b"x"


def test_files_of_others_are_not_keys(tmp_path: Path, directory: DirectoryStorage) -> None:
    directory.put("a", b"x")
    for name in ("README", "a.0123.writing", "notes.txt", "%zz", "%61", "%ff"):
        (tmp_path / "state" / name).write_bytes(b"")
    (tmp_path / "state" / "folder").mkdir()
    assert directory.keys() == ["a"]


def test_a_value_is_replaced_never_written_over(tmp_path: Path, directory: DirectoryStorage) -> None:
    directory.put("a", b"old")
    with (tmp_path / "state" / "a").open("rb") as reader:
        directory.put("a", b"new")
        assert reader.read() == b"old"
    assert names_in(tmp_path / "state") == ["a"]


def test_a_folder_that_cannot_be_used_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage = DirectoryStorage(tmp_path / "file")
    verbs: list[Callable[[], object]] = [
        lambda: storage.get("a"),
        lambda: storage.put("a", b"secret"),
        lambda: storage.delete("a"),
        storage.keys,
        lambda: storage.lock("a").__enter__(),
    ]
    for verb in verbs:
        with pytest.raises(StorageUnusable, match=r"/file cannot be \w+: .+ must be a folder") as caught:
            verb()
        assert "secret" not in str(caught.value)


def test_a_failed_put_leaves_no_file_behind(tmp_path: Path, directory: DirectoryStorage) -> None:
    (tmp_path / "state" / "a").mkdir(parents=True)
    with pytest.raises(StorageUnusable, match="directory"):
        directory.put("a", b"x")
    assert names_in(tmp_path / "state") == ["a"]


def test_a_value_that_is_too_large_was_not_ours(tmp_path: Path, directory: DirectoryStorage) -> None:
    directory.put("a", b"x")
    os.truncate(tmp_path / "state" / "a", MAX_VALUE_BYTES + 1)
    with pytest.raises(StorageUnusable, match="Delete it"):
        directory.get("a")


HOLDER = """
import sys
from pathlib import Path
from k2think.storage.directory import DirectoryStorage
storage = DirectoryStorage(Path(sys.argv[1]))
with storage.lock("a"):
    storage.put("a", b"held")
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_lock_is_held_against_other_processes_until_its_holder_is_killed(
    tmp_path: Path, directory: DirectoryStorage
) -> None:
    import fcntl

    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "state")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    with holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with (tmp_path / "state" / "a.lock").open("rb") as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            holder.kill()
        with directory.lock("a", 60):
            assert directory.get("a") == b"held"
