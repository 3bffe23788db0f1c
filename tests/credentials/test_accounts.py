"""The accounts file as people write it: what counts, and what is said of the rest, without a password."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2think.credentials.accounts import (
    MAX_FILE_BYTES,
    AccountFileUnreadable,
    AccountList,
    parse_accounts,
    read_accounts,
)
from k2think.credentials.credential import Account


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "accounts.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_one_object_a_line_with_blanks_comments_a_mark_and_any_line_ends(tmp_path: Path) -> None:
    content = (
        b"\xef\xbb\xbf# ours\r\n\r\n"
        b'{"email": " a@example.com ", "k2_password": " p w "}\r\n'
        b'  {"k2_password": "\\u00fc\xe2\x80\xa8", "email": "b@example.com", "note": [1]}\n'
        b'\t# {"email": "c@example.com", "k2_password": "p"}\r'
        b'{"email": "d@example.com", "password": "q"}'
    )
    found = read_accounts(written(tmp_path, content))
    assert found.accounts == (
        Account("a@example.com", " p w "),
        Account("b@example.com", "ü\u2028"),
        Account("d@example.com", "q"),
    )
    assert found.faults == ()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"email": "a@example.com", "k2_password": "hunter2"', "is no JSON"),
        ('{"email": "a@example.com", "k2_password": "hunter2"},', "is no JSON"),
        ("{'email': 'a@example.com', 'k2_password': 'hunter2'}", "is no JSON"),
        ("a@example.com:hunter2", "is no JSON"),
        ('{"email": "a@example.com", "k2_password": "\\ud800 hunter2"}', "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('["a@example.com", "hunter2"]', "is no JSON object"),
        ('"hunter2"', "is no JSON object"),
        ('{"k2_password": "hunter2"}', "has no e-mail address"),
        ('{"email": null, "k2_password": "hunter2"}', "has no e-mail address"),
        ('{"email": "hunter2", "k2_password": "hunter2"}', "has no e-mail address"),
        ('{"email": "a@example.com", "pass": "hunter2"}', "has no `k2_password`"),
        ('{"email": "a@example.com", "k2_password": ""}', "has no `k2_password`"),
        ('{"email": "a@example.com", "k2_password": 12345}', "has a password that is no text"),
    ],
)
def test_a_bad_line_is_told_by_its_number_with_the_right_form_and_skipped(
    tmp_path: Path, line: str, fault: str
) -> None:
    good = '{"email": "good@example.com", "k2_password": "p"}'
    found = read_accounts(written(tmp_path, f"# mine\n\n{line}\n{good}\n"))
    assert found.accounts == (Account("good@example.com", "p"),)
    (told,) = found.faults
    assert told.startswith(f"line 3: {fault}")
    assert told.endswith('Write {"email": "you@example.com", "k2_password": "…"}, one account a line.')
    assert not any(secret in told for secret in ("hunter2", "12345", "a@example.com", "[["))


def test_of_an_account_that_stands_there_twice_the_last_counts(tmp_path: Path) -> None:
    lines = [f'{{"email": "{email}", "k2_password": "{n}"}}' for n, email in enumerate(["a@x", "b@x", "A@X", "a@x"])]
    found = read_accounts(written(tmp_path, "\n".join(lines)))
    assert sorted(found.accounts, key=lambda account: account.email) == [Account("a@x", "3"), Account("b@x", "1")]
    assert found.faults == (
        "line 3: has the e-mail of line 1 again and counts instead. Remove one.",
        "line 4: has the e-mail of line 3 again and counts instead. Remove one.",
    )


def test_the_version_changes_with_the_file_and_tells_nothing_of_it(tmp_path: Path) -> None:
    path = written(tmp_path, '{"email": "a@x", "k2_password": "1"}')
    one = read_accounts(path).version
    assert one == read_accounts(path).version
    os.utime(path, ns=(1, 1))
    assert read_accounts(path).version == f"1-{path.stat().st_size:x}" != one
    path.write_text("")
    assert read_accounts(path).version not in {one, "", f"1-{path.stat().st_size:x}"}
    assert not read_accounts(tmp_path / "nowhere").version


def test_a_missing_file_holds_no_accounts(tmp_path: Path) -> None:
    assert read_accounts(tmp_path / "missing") == AccountList((), (), "")


def test_a_file_that_is_no_accounts_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(AccountFileUnreadable, match="Save it as UTF-8"):
        read_accounts(written(tmp_path, "hunter2 ü".encode("utf-16")))
    with pytest.raises(AccountFileUnreadable, match="is a folder"):
        read_accounts(tmp_path)
    with pytest.raises(AccountFileUnreadable, match="cannot be read"):
        read_accounts(tmp_path / "accounts.txt" / "below")
    with (tmp_path / "accounts.txt").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(AccountFileUnreadable, match="larger than 16 MB"):
        read_accounts(tmp_path / "accounts.txt")


def test_no_password_shows_in_what_is_read(tmp_path: Path) -> None:
    line = '{"email": "someone@example.com", "k2_password": "hunter2"}'
    shown = repr(read_accounts(written(tmp_path, f"{line}\n{line}\n{line}x")))
    assert "hunter2" not in shown
    assert "someone" not in shown


@settings(max_examples=50)
@given(st.text())
def test_any_text_is_read(text: str) -> None:
    accounts, faults = parse_accounts(text)
    assert len(accounts) + len(faults) <= len(text.splitlines())
