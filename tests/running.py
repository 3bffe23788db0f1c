"""Runs a command of ours in a process of its own, and hears what it prints."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue

import pytest
from waiting import PATIENCE

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "k2think_proxy.py"
LISTENING = "0A"  # as Linux has it in /proc/net/tcp

# Serves as the script does, but tears nobody off who could not be told within a second or two that it stops: on a
# machine that stands still so long that would be everybody.
PATIENT = (
    "-c",
    "from k2think import cli, listening; listening.TEAR_SECONDS = listening.CUT_SECONDS = 60; cli.main()",
    "serve",
)

# A process of the tests gets this and nothing else, whatever the machine's own environment holds.
PLAIN = {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT") if name in os.environ}
WITH_PACKAGE = PLAIN | {"PYTHONPATH": str(ROOT / "src")}


class Running:
    """A server in a process of its own, and the lines it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.printed: list[str] = []
        self._lines: Queue[str] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def wait_for(self, pattern: str) -> str:
        """The first group of the first printed line that matches."""
        while True:
            try:
                line = self._lines.get(timeout=PATIENCE)
            except Empty:
                pytest.fail(f"{pattern!r} was not printed: {self.printed}")
            if not line:
                pytest.fail(f"ended before {pattern!r} was printed: {self.printed}")
            self.printed.append(line)
            if found := re.search(pattern, line):
                return found.group(1)

    def stop(self, how: signal.Signals) -> int:
        """Send a signal; the exit code. All that is printed until then is in `printed`."""
        self.process.send_signal(how)
        return self.end()

    def end(self) -> int:
        """Its exit code, once it has ended; all that it printed is then in `printed`."""
        code = self.process.wait(PATIENCE)
        while line := self._lines.get(timeout=PATIENCE):
            self.printed.append(line)
        return code


@contextmanager
def started(*arguments: str | Path, environ: dict[str, str] | None = None, directory: Path) -> Iterator[Running]:
    with subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=WITH_PACKAGE | {"PYTHONUNBUFFERED": "1"} | (environ or {}),
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            yield Running(process)
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()


def on_port(port: int, state: str = LISTENING) -> set[str]:
    """The sockets of this state on a port, as Linux numbers them: whoever gets the port next listens on another one."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == state}


def state_of(pid: int) -> str:
    """What a process does, as Linux says it: "R" runs, "S" waits for something, "Z" has ended. Raises `OSError`."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def get(url: str) -> tuple[int, bytes]:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return answer.status, answer.read()
