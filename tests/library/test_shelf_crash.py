"""A process that is killed (kill -9) while it fills a shelf leaves whole files, and nothing that is not swept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import k2think

SOURCE = Path(k2think.__file__).parents[1]
PROGRAM = Path(__file__).with_name("killed_uploads.py")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


@pytest.mark.parametrize("deaths", ["20", "steps"])
def test_every_listed_file_is_whole_whenever_the_kill_comes(tmp_path: Path, deaths: str) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), deaths],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["deaths"] >= 20
    assert seen["files"]
    assert seen["remains"] > 5
