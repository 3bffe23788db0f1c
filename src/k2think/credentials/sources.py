"""Where credentials come from: the token file. Reads, never writes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from k2think.credentials.credential import Credential

MAX_FILE_BYTES = 128 * 1024 * 1024
"""Room for a hundred thousand tokens of a kilobyte; a larger file is no token file."""


class TokenFileUnreadable(Exception):
    """The token file is there but cannot be used; the message says why, without its content."""


def parse_tokens(lines: Iterable[str]) -> tuple[Credential, ...]:
    """One token a line, in the file's order; blank lines, `#` comments and repetitions are skipped."""
    secrets = dict.fromkeys(line for raw in lines if (line := raw.strip()) and not line.startswith("#"))
    return tuple(map(Credential.of, secrets))


def read_tokens(path: Path) -> tuple[Credential, ...]:
    """Read the token file; a missing one holds none. Raises `TokenFileUnreadable`."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TokenFileUnreadable(f"{path} is larger than {MAX_FILE_BYTES // 1024 // 1024} MB.")
        return parse_tokens(path.read_text(encoding="utf-8-sig").splitlines())
    except FileNotFoundError:
        return ()
    except UnicodeDecodeError:
        raise TokenFileUnreadable(f"{path} is not UTF-8 text.") from None
    except OSError as error:
        raise TokenFileUnreadable(f"{path} cannot be read: {error.strerror}.") from error
