"""What the gateway makes of its settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2think.gateway import own_script

ROOT = Path(__file__).parents[1]


def test_the_shipped_script_is_known_wherever_it_is(tmp_path: Path) -> None:
    shipped = ROOT / "get_tokens.py"
    elsewhere = tmp_path / "get_tokens.py"
    elsewhere.write_bytes(shipped.read_bytes())
    assert own_script(shipped) is None
    assert own_script(elsewhere) is None
    elsewhere.write_text("print('my own')")
    assert own_script(elsewhere) == elsewhere


def test_a_script_that_is_missing_is_told_unless_it_is_the_shipped_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert own_script(tmp_path / "get_tokens.py") is None
    assert not caplog.text
    assert own_script(tmp_path / "mine.py") is None
    assert "GET_TOKENS_SCRIPT" in caplog.text
