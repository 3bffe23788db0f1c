"""The accounts file: whose sign-ins give tokens. Reads, never writes; quotes no line, as passwords stand there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec

from k2think.credentials.credential import Account

MAX_FILE_BYTES = 16 * 1024 * 1024
"""Room for a hundred thousand accounts; a larger file is no accounts file."""

FORM = 'Write {"email": "you@example.com", "k2_password": "…"}, one account a line.'


class AccountFileUnreadable(Exception):
    """The accounts file is there but cannot be used; the message says why and what to do, without its content."""


@dataclass(frozen=True, slots=True)
class AccountList:
    """What the file holds.

    `faults` are sentences, "line 3: …", about lines that do not count. `version` changes whenever the file does, and
    tells nothing of what is in it; of a missing file it is empty.
    """

    accounts: tuple[Account, ...] = ()
    faults: tuple[str, ...] = ()
    version: str = ""


def read_accounts(path: Path) -> AccountList:
    """Read the file; a missing one holds none. Raises `AccountFileUnreadable`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
            status = os.fstat(file.fileno())
        if len(content) > MAX_FILE_BYTES:
            raise AccountFileUnreadable(
                f"{path} is larger than {MAX_FILE_BYTES // 1024 // 1024} MB. Name the right file (ACCOUNTS_FILE)."
            )
        accounts, faults = parse_accounts(content.decode("utf-8-sig"))
    except FileNotFoundError:
        return AccountList()
    except UnicodeDecodeError:
        raise AccountFileUnreadable(f"{path} is not UTF-8 text. Save it as UTF-8.") from None
    except IsADirectoryError:
        raise AccountFileUnreadable(
            f"{path} is a folder. Remove it and write a file (Docker makes a folder of a file it does not find)."
        ) from None
    except OSError as error:
        raise AccountFileUnreadable(f"{path} cannot be read: {error.strerror}. Let this user read it.") from error
    return AccountList(accounts, faults, f"{status.st_mtime_ns:x}-{status.st_size:x}")


def parse_accounts(text: str) -> tuple[tuple[Account, ...], tuple[str, ...]]:
    """One JSON object a line; blank lines and `#` comments are skipped. Of one e-mail's lines the last counts.

    Gives the accounts and the faults.
    """
    found: dict[str, tuple[int, Account]] = {}
    faults: list[str] = []
    for number, raw in enumerate(StringIO(text, newline=None), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        account = _account(line)
        if isinstance(account, str):
            faults.append(f"line {number}: {account}")
            continue
        key = account.email.casefold()
        if earlier := found.get(key):
            faults.append(f"line {number}: has the e-mail of line {earlier[0]} again and counts instead. Remove one.")
        found[key] = number, account
    return tuple(account for _, account in found.values()), tuple(faults)


def _account(line: str) -> Account | str:
    """The account of a line, or what is wrong with it."""
    try:
        fields: Any = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return f"is no JSON. {FORM}"
    if not isinstance(fields, dict):
        return f"is no JSON object. {FORM}"
    email = fields.get("email")
    if not isinstance(email, str) or "@" not in email:
        return f"has no e-mail address as `email`. {FORM}"
    password = fields.get("k2_password") or fields.get("password")
    if not password:
        return f"has no `k2_password`. {FORM}"
    if not isinstance(password, str):
        return f"has a password that is no text; it belongs in quotes. {FORM}"
    return Account(email.strip(), password)
