"""The token file: read, and updated so that a kill or a power cut at any instant leaves its old or its new tokens.

An update of `tokens.txt`:

    tokens.txt.tmp        the new tokens, complete; must hold at least one
    tokens.txt.backup     what the file held until now
    tokens.txt            `.tmp` renamed over it: at every instant there is a whole file of this name
    tokens.txt.pending    only where that is refused, as for a file that is mounted by itself (Docker): `.tmp` renamed
                          to this; it counts instead of the file while the file is written over, then goes away

The lock against other updates is that of the folder: it needs no file of its own, also works where nothing can be
written, and where there are no locks (some network disks) the renames alone keep the file whole.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from k2think.credentials.credential import Credential
from k2think.storage.durable import PRIVATE, back_up, create, locked, make_alike, overwrite, sync_folder

MAX_FILE_BYTES = 128 * 1024 * 1024
"""Room for a hundred thousand tokens of a kilobyte; a larger file is no token file."""

# How a rename over a file is refused that can be written into all the same.
REFUSALS = frozenset({errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES})


class TokenFileUnreadable(Exception):
    """The token file is there but cannot be used; the message says why, without its content."""


class UpdateUnusable(Exception):
    """The token file was not updated; the message says why and what to do, without a token."""


def parse_tokens(lines: Iterable[str]) -> tuple[Credential, ...]:
    """One token a line, in the file's order; blank lines, `#` comments and repetitions are skipped."""
    return tuple(map(Credential.of, _secrets(lines)))


def read_tokens(path: Path) -> tuple[Credential, ...]:
    """Read the token file; a missing one holds none. Raises `TokenFileUnreadable`."""
    return parse_tokens(_text(path).splitlines())


class TokenFile:
    """The token file at `path`, or the one that a symbolic link there leads to; it need not exist yet.

    Everything that writes raises `UpdateUnusable`, and the tokens are then what they were. (Only where a disk fails
    in the middle of writing over a mounted file do the new ones count already, from `.pending`.) `replace` puts a
    complete file into the place of another.
    """

    def __init__(self, path: Path, *, replace: Callable[[Path, Path], None] = os.replace) -> None:
        self._path = path
        self._replace = replace

    @property
    def staged(self) -> Path:
        """Where a script puts the new tokens before `commit`."""
        return _beside(self._target(), ".tmp")

    def read(self) -> tuple[Credential, ...]:
        """Read the tokens that count; a missing file holds none. Raises `TokenFileUnreadable`."""
        target = self._target()
        with _alone_in(target.parent, shared=True):
            return read_tokens(_pending(target) or target)

    def write(self, secrets: Sequence[str]) -> None:
        """Put these tokens into the place of all others. Comments go with them."""
        lines = _lines(dict.fromkeys(secrets))
        with self._updating() as target:
            self._put(target, _beside(target, ".tmp"), lines)

    def commit(self) -> None:
        """Put the staged file into place, which a script has written. It must hold at least one token."""
        with self._updating() as target:
            self._put_in_place(target, _beside(target, ".tmp"))

    def recover(self) -> None:
        """Finish an update that a kill interrupted after its new tokens had begun to count. For every start."""
        with self._updating():
            pass  # every update begins with this

    def add(self, secrets: Sequence[str]) -> int:
        """Append tokens, leaving all lines as they are; gives how many were new. Raises `TokenFileUnreadable` too."""
        with self._updating() as target:
            text = _text(target)
            known = _secrets(text.splitlines())
            new = [secret for secret in dict.fromkeys(secrets) if secret not in known]
            if new:
                newline = "\n" if text and not text.endswith("\n") else ""
                self._put(target, _beside(target, ".edited"), text + newline + _lines(new))
            return len(new)

    def remove(self, secret: str) -> bool:
        """Take a token out, leaving all other lines as they are; gives whether it was there. It may be the last one.

        Raises `TokenFileUnreadable` too.
        """
        with self._updating() as target:
            lines = _text(target).splitlines(keepends=True)
            if secret not in _secrets(lines):
                return False
            kept = "".join(line for line in lines if line.strip() != secret)
            self._put(target, _beside(target, ".edited"), kept, may_be_empty=True)
            return True

    def _target(self) -> Path:
        return Path(os.path.realpath(self._path))

    @contextmanager
    def _updating(self) -> Iterator[Path]:
        """Be alone with the file, its last update finished, and tell in words what the disk refuses."""
        target = self._target()
        try:
            with _alone_in(target.parent):
                if pending := _pending(target):
                    self._settle(target, pending)
                    sync_folder(target.parent)
                yield target
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UpdateUnusable(
                f"{self._path} cannot be updated: {reason}. This user must be allowed to write to the file and to "
                f"its folder ({target.parent}), on a disk with room."
            ) from error

    def _put(self, target: Path, staged: Path, text: str, *, may_be_empty: bool = False) -> None:
        # An edit is staged under another name than an update: a script may be writing `.tmp` at this moment. What a
        # kill has left goes first, so that nobody else can still be writing into the new file.
        staged.unlink(missing_ok=True)
        create(staged, text.encode(), mode=_mode(target) & PRIVATE)
        self._put_in_place(target, staged, may_be_empty=may_be_empty)

    def _put_in_place(self, target: Path, staged: Path, *, may_be_empty: bool = False) -> None:
        _check(staged, may_be_empty=may_be_empty)
        make_alike(staged, target)
        backup = _beside(target, ".backup")
        if target.exists():
            back_up(target, backup)
        try:
            self._replace(staged, target)
        except OSError as error:
            if error.errno not in REFUSALS or not target.exists():
                raise
            with target.open("r+b"):  # or the refusal stands, while nothing has happened yet
                pass
            if backup.samefile(target):  # writing over the one would write over the other
                back_up(target, backup, share=False)
            pending = _beside(target, ".pending")
            staged.replace(pending)
            sync_folder(target.parent)
            self._settle(target, pending)
        sync_folder(target.parent)

    def _settle(self, target: Path, pending: Path) -> None:
        """Bring what already counts into the file itself."""
        try:
            self._replace(pending, target)
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            overwrite(target, pending.read_bytes())
            pending.unlink()


@contextmanager
def _alone_in(folder: Path, *, shared: bool = False) -> Iterator[None]:
    with ExitStack() as stack:
        with suppress(OSError):  # no locks here, or no folder, which whoever uses it will tell
            stack.enter_context(locked(folder, shared=shared))
        yield


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(target.name + ending)


def _pending(target: Path) -> Path | None:
    """The file that counts instead of the target, where an update was interrupted."""
    pending = _beside(target, ".pending")
    try:
        return pending if pending.is_file() else None
    except OSError:  # nor can the target be reached
        return None


def _mode(path: Path) -> int:
    return path.stat().st_mode if path.exists() else PRIVATE


def _secrets(lines: Iterable[str]) -> dict[str, None]:
    # What holds a control character could stand in no header: it is no token.
    stripped = (raw.strip() for raw in lines)
    return dict.fromkeys(line for line in stripped if line.isprintable() and line and not line.startswith("#"))


def _lines(secrets: Iterable[str]) -> str:
    """Tokens as lines from which the same tokens are read again."""
    text = "".join(f"{secret}\n" for secret in secrets)
    try:
        same = list(_secrets(text.encode().decode("utf-8-sig").splitlines())) == list(secrets)
    except UnicodeEncodeError:
        same = False
    if not same:
        raise UpdateUnusable("A token is one line of text without blanks around it or a # in front. Leave others out.")
    return text


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TokenFileUnreadable(f"{path} is larger than {MAX_FILE_BYTES // 1024 // 1024} MB.")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise TokenFileUnreadable(f"{path} is not UTF-8 text.") from None
    except OSError as error:
        raise TokenFileUnreadable(f"{path} cannot be read: {error.strerror}.") from error


def _check(staged: Path, *, may_be_empty: bool) -> None:
    """Let only a file pass that can serve as the token file."""
    stays = "The token file stays as it was; see to what makes the tokens."
    try:
        if not stat.S_ISREG(staged.lstat().st_mode):
            raise UpdateUnusable(f"{staged} is no ordinary file. {stays}")
        if not _secrets(_text(staged).splitlines()) and not may_be_empty:
            raise UpdateUnusable(f"{staged} holds no token. {stays}")
    except FileNotFoundError:
        raise UpdateUnusable(f"{staged} was not written. {stays}") from None
    except TokenFileUnreadable as error:
        raise UpdateUnusable(f"{error} {stays}") from error
