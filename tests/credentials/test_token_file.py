"""The token file read, replaced, edited: what stands there afterwards, with which rights, and what a failure leaves."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

import k2think
from k2think.credentials import token_file as module
from k2think.credentials.token_file import TokenFile, TokenFileUnreadable, UpdateUnusable
from k2think.storage.durable import locked

SOURCE = Path(k2think.__file__).parents[1]
OLD = "# mine\nsecret-a\n\n  secret-b\t\r\n# end\nsecret-a"


def refusing(code: int) -> Callable[[Path, Path], NoReturn]:
    """What replaces a file where it cannot be replaced."""

    def refuse(_: Path, target: Path) -> NoReturn:
        raise OSError(code, os.strerror(code), str(target))

    return refuse


# By a rename, and by writing over the file
KINDS: list[Callable[[Path], TokenFile]] = [TokenFile, lambda path: TokenFile(path, replace=refusing(errno.EBUSY))]


@pytest.fixture(params=KINDS, ids=["renamed", "mounted"])
def make(request: pytest.FixtureRequest) -> Callable[[Path], TokenFile]:
    kind: Callable[[Path], TokenFile] = request.param
    return kind


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An old token file, alone in its folder."""
    path = tmp_path / "tokens.txt"
    path.write_bytes(OLD.encode())
    path.chmod(0o640)
    return path


def secrets_in(file: TokenFile) -> list[str]:
    return [token.secret for token in file.read()]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def everything(path: Path) -> dict[str, tuple[bytes, int]]:
    """Content and mode of each file in the folder."""
    return {found.name: (found.read_bytes(), mode_of(found)) for found in path.parent.iterdir()}


def after_update(path: Path, new: str, old: str = OLD) -> dict[str, tuple[bytes, int]]:
    return {path.name: (new.encode(), 0o640), f"{path.name}.backup": (old.encode(), 0o640)}


# Updates


@pytest.mark.parametrize("count", [1, 2, 50])
def test_new_tokens_take_the_place_of_the_old_which_become_the_backup(
    path: Path, make: Callable[[Path], TokenFile], count: int
) -> None:
    new = [f"new-{number}" for number in range(count)]
    make(path).write([*new, *new])
    assert secrets_in(make(path)) == new
    assert everything(path) == after_update(path, "".join(f"{secret}\n" for secret in new))


def test_the_backup_is_of_the_last_update(path: Path, make: Callable[[Path], TokenFile]) -> None:
    for secret in ("one", "two", "three"):
        make(path).write([secret])
    assert everything(path) == after_update(path, "three\n", "two\n")


def test_what_a_script_staged_is_committed_as_it_is(path: Path, make: Callable[[Path], TokenFile]) -> None:
    file = make(path)
    assert file.staged == path.with_name("tokens.txt.tmp")
    file.staged.write_text("# made\nnew")
    file.staged.chmod(0o666)
    file.commit()
    assert everything(path) == after_update(path, "# made\nnew")


def test_a_new_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    TokenFile(path).write(["new"])
    assert everything(path) == {"tokens.txt": (b"new\n", 0o600)}


def test_a_staged_file_is_never_wider_than_the_file_it_replaces(path: Path) -> None:
    seen = []

    def look(staged: Path, target: Path) -> None:
        seen.append(mode_of(staged))
        os.replace(staged, target)  # noqa: PTH105

    path.chmod(0o400)
    path.with_name("tokens.txt.tmp").write_text("left by a kill, and readable by all")
    TokenFile(path, replace=look).write(["new"])
    assert seen == [0o400]
    assert mode_of(path) == 0o400


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_the_file_keeps_its_owner(path: Path) -> None:
    os.chown(path, 1234, 2345)
    TokenFile(path).write(["new"])
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


def test_whoever_has_the_file_open_reads_the_old_tokens_to_their_end(path: Path) -> None:
    with path.open("rb") as reader:
        TokenFile(path).write(["new"])
        assert reader.read() == OLD.encode()


def test_a_link_stays_and_the_file_behind_it_is_updated(tmp_path: Path, make: Callable[[Path], TokenFile]) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").mkdir()
    real, link = tmp_path / "real" / "of.txt", tmp_path / "link" / "tokens.txt"
    real.write_bytes(OLD.encode())
    real.chmod(0o640)
    link.symlink_to(Path("..") / "real" / "of.txt")
    file = make(link)
    assert file.staged == real.with_name("of.txt.tmp")
    file.write(["new"])
    assert link.is_symlink()
    assert [found.name for found in link.parent.iterdir()] == ["tokens.txt"]
    assert everything(real) == after_update(real, "new\n")


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES])
def test_a_file_that_cannot_be_replaced_is_written_over_and_stays_the_same_file(path: Path, code: int) -> None:
    same = path.stat().st_ino
    TokenFile(path, replace=refusing(code)).write(["new"])
    assert path.stat().st_ino == same
    assert everything(path) == after_update(path, "new\n")


def test_a_backup_that_is_the_file_itself_is_not_written_over(path: Path) -> None:
    path.with_name("tokens.txt.backup").hardlink_to(path)  # left by a kill
    TokenFile(path, replace=refusing(errno.EBUSY)).write(["new"])
    assert everything(path) == after_update(path, "new\n")


# Failures


def test_without_a_staged_token_nothing_changes(path: Path, make: Callable[[Path], TokenFile]) -> None:
    file = make(path)
    before = everything(path)
    with pytest.raises(UpdateUnusable, match=r"tokens.txt.tmp was not written. .+ stays as it was"):
        file.commit()
    assert everything(path) == before
    for content, reason in (
        (b"", "holds no token"),
        (b"\n# none\n \n", "holds no token"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ):
        file.staged.write_bytes(content)
        with pytest.raises(UpdateUnusable, match=rf"tokens.txt.tmp {reason}.+ stays as it was"):
            file.commit()
        file.staged.unlink()
        assert everything(path) == before
    file.staged.symlink_to(path)
    with pytest.raises(UpdateUnusable, match="is no ordinary file"):
        file.commit()
    assert everything(path).keys() == {"tokens.txt", "tokens.txt.tmp"}


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["hunter2", ""],
        ["hunter2\nx"],
        [" hunter2"],
        ["#hunter2"],
        ["hunter2\u2028x"],
        ["\ufeffhunter2"],
        ["hunter2\ud800"],
    ],
)
def test_what_is_no_token_is_not_written_and_not_told(
    path: Path, make: Callable[[Path], TokenFile], wrong: list[str]
) -> None:
    before = everything(path)
    with pytest.raises(UpdateUnusable) as caught:
        make(path).write(wrong)
    assert "hunter2" not in str(caught.value)
    if wrong:
        with pytest.raises(UpdateUnusable):
            make(path).add(wrong)
    assert path.read_bytes() == OLD.encode()
    assert before.keys() <= everything(path).keys() <= {*before, "tokens.txt.tmp"}


def test_another_refusal_of_the_disk_keeps_the_old_tokens_and_says_what_to_do(path: Path) -> None:
    with pytest.raises(UpdateUnusable, match=r"tokens.txt cannot be updated: No space left.+ must be allowed"):
        TokenFile(path, replace=refusing(errno.ENOSPC)).write(["new"])
    assert path.read_bytes() == OLD.encode()
    assert secrets_in(TokenFile(path)) == ["secret-a", "secret-b"]


def test_a_folder_that_is_not_there_or_a_file_that_is_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UpdateUnusable, match="No such file or directory"):
        TokenFile(tmp_path / "missing" / "tokens.txt").write(["new"])
    (tmp_path / "tokens.txt").mkdir()
    with pytest.raises(UpdateUnusable, match="cannot be updated"):
        TokenFile(tmp_path / "tokens.txt").write(["new"])
    assert (tmp_path / "tokens.txt").is_dir()


def test_a_missing_file_holds_no_tokens_and_a_strange_one_is_told(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.txt")
    assert file.read() == ()
    assert not file.remove("x")
    file.recover()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "tokens.txt").write_bytes(b"\xff\xfe")
    for use in (file.read, lambda: file.add(["x"]), lambda: file.remove("x")):
        with pytest.raises(TokenFileUnreadable, match="UTF-8"):
            use()


# Interrupted updates


def test_a_pending_update_counts_and_is_finished(path: Path, make: Callable[[Path], TokenFile]) -> None:
    path.with_name("tokens.txt.pending").write_text("new-1\nnew-2\n")
    path.write_bytes(b"new-1\nnecret-b\n")  # torn
    path.with_name("tokens.txt.tmp").write_text("half of a tok")  # of no meaning
    file = make(path)
    assert secrets_in(file) == ["new-1", "new-2"]
    file.recover()
    assert path.read_bytes() == b"new-1\nnew-2\n"
    assert {found.name for found in path.parent.iterdir()} == {"tokens.txt", "tokens.txt.tmp"}
    assert secrets_in(file) == ["new-1", "new-2"]


def test_a_pending_update_comes_before_the_next(path: Path, make: Callable[[Path], TokenFile]) -> None:
    path.with_name("tokens.txt.pending").write_text("pending\n")
    path.write_bytes(b"torn")
    make(path).write(["new"])
    assert path.read_bytes() == b"new\n"
    assert path.with_name("tokens.txt.backup").read_bytes() == b"pending\n"


# Edits


def test_added_tokens_follow_and_all_lines_stay(path: Path, make: Callable[[Path], TokenFile]) -> None:
    file = make(path)
    file.staged.write_text("a script is writing this")
    assert file.add(["secret-b", "new", "new", "secret-a"]) == 1
    assert path.read_bytes() == f"{OLD}\nnew\n".encode()
    assert file.add(["new", "secret-b"]) == 0
    assert file.add([]) == 0
    assert file.staged.read_text() == "a script is writing this"
    file.staged.unlink()
    assert everything(path) == after_update(path, f"{OLD}\nnew\n")


def test_a_token_is_added_to_no_file(tmp_path: Path) -> None:
    assert TokenFile(tmp_path / "tokens.txt").add(["new"]) == 1
    assert everything(tmp_path / "tokens.txt") == {"tokens.txt": (b"new\n", 0o600)}


def test_a_removed_token_is_gone_everywhere_and_all_other_lines_stay(
    path: Path, make: Callable[[Path], TokenFile]
) -> None:
    file = make(path)
    assert file.remove("secret-a")
    assert everything(path) == after_update(path, "# mine\n\n  secret-b\t\r\n# end\n")
    assert not file.remove("secret-a")
    assert not file.remove("# end")
    assert not file.remove("")
    assert file.remove("secret-b")
    assert path.read_bytes() == b"# mine\n\n# end\n"
    assert file.read() == ()


def test_the_only_token_can_be_removed(path: Path, make: Callable[[Path], TokenFile]) -> None:
    path.write_bytes(b"\xef\xbb\xbfonly")
    assert make(path).remove("only")
    assert path.read_bytes() == b""


def test_edits_at_once_lose_nothing(
    path: Path, make: Callable[[Path], TokenFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who has waited for long does without the lock: no edit of these takes so long that another goes past it.
    monkeypatch.setattr(module, "locked", partial(locked, patience=120))

    def edit(name: str) -> None:
        for number in range(4):
            assert make(path).add([f"{name}-{number}"]) == 1
            assert {"secret-b", f"{name}-{number}"} <= set(secrets_in(make(path)))

    threads = [threading.Thread(target=edit, args=(name,)) for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {"secret-a", "secret-b", *(f"{name}-{number}" for name in "xyz" for number in range(4))}
    assert set(secrets_in(make(path))) == expected


# A file that is really mounted by itself, as Docker does it

NOT_PERMITTED = 77
MOUNT = f'mount --bind "$1" "$2" || exit {NOT_PERMITTED}; shift 2; exec "$@"'
UPDATE = """
import errno, os, sys
from pathlib import Path
from k2think.credentials.token_file import TokenFile
path = Path(sys.argv[1])
other = path.with_name("other")
other.touch()
try:
    os.replace(other, path)
except OSError as error:
    assert error.errno == errno.EBUSY
else:
    raise AssertionError("it could be replaced")
other.unlink()
TokenFile(path).write(["new-1", "new-2"])
assert [token.secret for token in TokenFile(path).read()] == ["new-1", "new-2"]
assert TokenFile(path).remove("new-1")
assert TokenFile(path).add(["new-3"]) == 1
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no mounts of one's own here")
def test_a_file_that_is_mounted_by_itself_is_updated(tmp_path: Path) -> None:
    for folder in ("host", "app"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tokens.txt").touch()
    host, app = tmp_path / "host" / "tokens.txt", tmp_path / "app" / "tokens.txt"
    host.write_bytes(OLD.encode())
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        MOUNT,
        "sh",
        str(host),
        str(app),
        sys.executable,
        "-c",
        UPDATE,
        str(app),
    ]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False
    )
    if done.returncode == NOT_PERMITTED or "unshare" in done.stderr:
        pytest.skip("mounts of one's own are not permitted here")
    assert done.returncode == 0, done.stderr
    assert host.read_bytes() == b"new-2\nnew-3\n"
    assert [found.name for found in host.parent.iterdir()] == ["tokens.txt"]
    assert sorted(found.name for found in app.parent.iterdir()) == ["tokens.txt", "tokens.txt.backup"]
    assert (app.parent / "tokens.txt.backup").read_bytes() == b"new-2\n"
