"""A name that a client gives becomes one that may be shown, logged and sent anywhere."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2think.library.names import MAX_NAME_BYTES, safe_name


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [
        ("report.pdf", "report.pdf"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\windows\\system.ini", "system.ini"),
        ("C:\\Users\\me\\数据 表.xlsx", "数据 表.xlsx"),
        ("a/b\\c.txt", "c.txt"),
        ("folder/", "folder"),
        ("../..", "file"),
        ("", "file"),
        (".", "file"),
        ("..", "file"),
        (" \t\r\n", "file"),
        ("a\x00b\r\nc\x1b[31m.txt", "abc[31m.txt"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("\ufeffbom.csv", "bom.csv"),
        ("e\u0301te\u0301.txt", "\u00e9t\u00e9.txt"),
        ("half\ud83dpair\udcff.txt", "halfpair.txt"),
        ("family-\U0001f468\u200d\U0001f469.png", "family-\U0001f468\u200d\U0001f469.png"),
        (".env", ".env"),
        ("x" * 300 + ".tar.gz", "x" * 252 + ".gz"),
        ("数" * 100 + ".pdf", "数" * 83 + ".pdf"),
        ("a." + "b" * 300, "a." + "b" * 253),
        ("." + "b" * 300, "." + "b" * 254),
    ],
)
def test_a_name_becomes_safe(given_name: str, expected: str) -> None:
    assert safe_name(given_name) == expected


@given(st.text(st.sampled_from("/\\.\x00\r\n\u202e\ud800e\u0301\u2126数a \t"), max_size=300))
def test_a_safe_name_is_safe_whatever_it_was(name: str) -> None:
    safe = safe_name(name)
    assert safe
    assert safe not in {".", ".."}
    assert len(safe.encode()) <= MAX_NAME_BYTES
    assert not set(safe) & set("/\\\x00\r\n\u202e")
    assert unicodedata.normalize("NFC", safe) == safe
    assert safe_name(safe) == safe
