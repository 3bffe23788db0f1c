"""Starts processes on their cores, pauses and ends them by pid, and reads what they cost from /proc.

A server is its whole family: nginx has a worker, a gateway may have several.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.machine import pinned

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
GRACE_SECONDS = 10.0


class NotStarted(Exception):
    """A process ended before it was of use; the message holds the end of what it wrote."""


class Process:
    """One process that we started, and its descendants."""

    def __init__(self, child: subprocess.Popen[bytes], log: Path, started: float) -> None:
        self._child = child
        self._log = log
        self.started = started

    @property
    def pid(self) -> int:
        return self._child.pid

    def check(self) -> None:
        """Raise `NotStarted` if it has ended."""
        if self._child.poll() is not None:
            raise NotStarted(f"It ended with {self._child.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        return self._log.read_bytes()[-2000:].decode(errors="replace")

    def pause(self) -> None:
        """Take no processor time until `resume`: what is not measured must not disturb what is."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """Ask it to end, and see to it."""
        self.resume()
        self._child.terminate()
        try:
            self._child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            family = self.family()
            self._child.kill()
            self._child.wait()
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def family(self) -> list[int]:
        """The ids of the process and its descendants."""
        parents = dict(_parents())
        found = [self.pid]
        for pid in found:  # grows while it is walked
            found.extend(child for child, parent in parents.items() if parent == pid)
        return found

    def cpu_seconds(self) -> float:
        """Processor time that the family has used, user and system, in steps of a clock tick."""
        return sum(int(ticks) for pid in self.family() for ticks in _stat(pid)[11:13]) / TICKS

    def rss_kb(self) -> int:
        """Resident memory of the family; what processes share counts once for each."""
        found = [_read(pid, "statm").split() for pid in self.family()]
        return sum(int(fields[1]) * PAGE_KB for fields in found if fields)

    def pss_kb(self) -> int:
        """Resident memory of the family, in which shared pages count once."""
        rows = (line.split() for pid in self.family() for line in _read(pid, "smaps_rollup").splitlines())
        return sum(int(row[1]) for row in rows if row[0] == "Pss:")

    def open_files(self) -> int:
        """Files and sockets that the family holds open."""
        return sum(_open_files(pid) for pid in self.family())

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    *,
    cores: frozenset[int],
    directory: Path,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """A process on its cores for the length of the block; what it writes goes to `log` in its directory.

    It sees of the environment only where programs are, and what it is given: nobody's settings get into a measurement.
    """
    log = directory / "log"
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with log.open("ab") as output, pinned(cores):
        started = time.monotonic()
        child = subprocess.Popen(
            command,
            cwd=directory,
            env={**inherited, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    process = Process(child, log, started)
    try:
        yield process
    finally:
        process.end()


def steal_seconds(cores: frozenset[int]) -> float:
    """Time that the hypervisor has kept these cores from us since the machine started."""
    rows = (line.split() for line in Path("/proc/stat").read_text(encoding="ascii").splitlines())
    wanted = {f"cpu{core}" for core in cores}
    return sum(int(row[8]) for row in rows if row[0] in wanted) / TICKS


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name)))[1] != "0":
            yield int(entry.name), int(fields[1])


def _open_files(pid: int) -> int:
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _stat(pid: int) -> list[str]:
    """The fields behind the name, which may hold blanks and brackets; zeros for a process that is gone."""
    return _read(pid, "stat").rpartition(")")[2].split() or ["0"] * 50


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
