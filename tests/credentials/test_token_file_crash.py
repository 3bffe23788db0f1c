"""Updates of the token file that are killed (kill -9) leave its old or its new tokens, whenever it happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import k2think

SOURCE = Path(k2think.__file__).parents[1]
PROGRAM = Path(__file__).with_name("killed_updates.py")
DEATHS = 25
"""At random instants, of each kind, so that the tests stay quick; the program itself takes any number."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def kill_updates(folder: Path, kind: str, deaths: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), kind, deaths],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("kind", ["renamed", "mounted"])
def test_an_update_killed_at_a_random_instant_leaves_the_old_tokens_or_the_new(tmp_path: Path, kind: str) -> None:
    done = kill_updates(tmp_path, kind, str(DEATHS))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["deaths"] == DEATHS


@pytest.mark.parametrize("kind", ["renamed", "mounted"])
def test_an_update_killed_before_any_of_its_steps_leaves_the_old_tokens_or_the_new(tmp_path: Path, kind: str) -> None:
    done = kill_updates(tmp_path, kind, "steps")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["deaths"] > 10
    assert seen["old"]
    assert seen["new"]
    assert bool(seen["pending"]) == (kind == "mounted")


def test_what_a_careless_update_leaves_would_be_seen(tmp_path: Path) -> None:
    done = kill_updates(tmp_path, "careless", "100")
    assert "AssertionError: the file" in done.stderr
