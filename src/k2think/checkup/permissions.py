"""Who may read and write what: folders for what is kept, the token file that is updated, files that hold secrets."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from k2think.checkup.finding import Finding
from k2think.settings import Settings

FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_folders(settings: Settings) -> Iterator[Finding]:
    """Whether something can be kept."""
    text = "is no folder that this user may write to"
    remedy = "Let this user write there, or name another folder"
    state, data = settings.storage.state_dir, settings.files.data_dir
    if not _can_be_written(state):
        several = settings.server.workers > 1
        lost = "nothing is kept for the next start" + (", nor shared by the workers" if several else "")
        yield Finding(
            "wrong" if several else "note", f"State: {state} {text}, so {lost} (STATE_DIR).", f"{remedy} (STATE_DIR)."
        )
    if not _can_be_written(data):
        yield Finding("note", f"Files: {data} {text}, so no files can be uploaded (DATA_DIR).", f"{remedy} (DATA_DIR).")


def check_token_updates(settings: Settings) -> Iterator[Finding]:
    """Whether the tokens that are made can be written down: beside the file first, then into its place."""
    credentials = settings.credentials
    if settings.upstream.protocol == "openai" or not credentials.enable_token_auto_update:
        return
    path = Path(os.path.realpath(credentials.tokens_file))
    folder = path.parent
    if not os.access(folder, os.F_OK):
        yield Finding(
            "wrong",
            f"Tokens: there is no folder {folder}, so no new tokens can be written (TOKENS_FILE).",
            f"Make it: mkdir -p {shlex.quote(str(folder))}",
        )
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield Finding(
            "wrong",
            f"Tokens: this user may not write into {folder}, so the tokens in it cannot be renewed (TOKENS_FILE).",
            "Let this user write into the folder, or name a file in another one.",
        )
    elif path.is_file() and not os.access(path, os.W_OK):
        # A file that is mounted by itself is written into; any other is replaced, whatever its own permissions say.
        yield Finding(
            "wrong" if os.path.ismount(path) else "note",
            f"Tokens: this user may not write to {path} (TOKENS_FILE), which an update needs where the file is mounted "
            "by itself.",
            "Let this user write to it; in Docker mount it without :ro.",
        )


def check_secrecy(settings: Settings) -> Iterator[Finding]:
    """Files with secrets that other users of the machine could read.

    One of another owner is left alone: it is shared on purpose, as with a container.
    """
    if os.name != "posix":
        return
    tokens = settings.credentials.tokens_file
    held = [settings.env_file, tokens, tokens.with_name(f"{tokens.name}.backup")]
    if settings.upstream.protocol == "k2think":
        held.append(settings.credentials.accounts_file)
    open_ones = [shlex.quote(str(path)) for path in held if path and _is_open(path)]
    if open_ones:
        names = " ".join(open_ones)
        yield Finding(
            "note",
            f"Secrets: other users of this machine may read {names}.",
            f"Run: chmod 600 {names} (but a container's user must be able to read what it is given).",
        )


def _is_open(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:  # not there, or out of reach, which is told elsewhere
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and bool(status.st_mode & FOR_OTHERS)


def _can_be_written(folder: Path) -> bool:
    """Whether it is a folder that files can be put into, or could be made one."""
    there = next((place for place in (folder, *folder.parents) if os.access(place, os.F_OK)), None)
    return there is not None and there.is_dir() and os.access(there, os.W_OK | os.X_OK)
