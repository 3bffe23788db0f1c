"""What is asked of a server: a load is data, and the compiled program that makes it answers with what it measured."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.machine import Cores, pinned
from bench.servers import Server

PATIENCE = 120.0  # seconds beyond the measured time, for streams that a slow server drags out


class LoadFailed(Exception):
    """The load could not be made, or no answer was counted; the message says what the program said."""


@dataclass(frozen=True)
class Load:
    """One load. `words` are the deltas of text in an answer, `interval` the microseconds between two of them (0: a
    burst), `size` the bytes of each, `prompt` the extra bytes of the question, `extra` further members of the body.

    `at_once`: every client asks one time, all together, instead of again and again for `seconds`,
    of which those of the `warmup` before them are not counted.
    """

    clients: int = 1
    seconds: float = 0.0
    warmup: float = 0.0
    requests: int = 0
    stream: bool = False
    words: int = 4
    interval: int = 0
    size: int = 6
    prompt: int = 0
    at_once: bool = False
    extra: str = ""

    def arguments(self, server: Server, extra: Path) -> list[str | Path]:
        """What the program is told; keys and members go by files, as process lists are public."""
        told: list[str | Path] = ["--port", str(server.port), "--clients", str(self.clients)]
        if self.at_once:
            told += ["--open", "1"]
        elif self.requests:
            told += ["--requests", str(self.requests)]
        else:
            told += ["--seconds", f"{self.seconds:g}", "--warmup", f"{self.warmup:g}"]
        told += ["--stream", str(int(self.stream)), "--events", str(self.words), "--interval", str(self.interval)]
        told += ["--bytes", str(self.size), "--prompt-bytes", str(self.prompt)]
        if server.key:
            told += ["--key", server.key]
        if self.extra:
            extra.write_text(self.extra, encoding="utf-8")
            told += ["--extra", extra]
        return told

    @property
    def lasts(self) -> float:
        """Seconds that it takes at least."""
        return self.words * self.interval / 1e6 if self.at_once else self.warmup + self.seconds


class Loader:
    """Runs loads beside the upstream, never on the server's core."""

    def __init__(self, programs: Path, directory: Path, cores: Cores) -> None:
        self._program = programs / "load"
        self._directory = directory
        self._cores = cores

    def run(self, load: Load, server: Server) -> dict[str, Any]:
        """Make the load; give what was measured. Raises `LoadFailed`."""
        with self.started(load, server) as child:
            return outcome(load, child)

    @contextlib.contextmanager
    def on(self, cores: frozenset[int]) -> Iterator[None]:
        """Run loads on these cores instead for the length of the block."""
        before, self._cores = self._cores, replace(self._cores, others=cores)
        try:
            yield
        finally:
            self._cores = before

    @contextlib.contextmanager
    def started(self, load: Load, server: Server) -> Iterator[subprocess.Popen[bytes]]:
        """The load while it runs; it is ended with the block."""
        arguments = load.arguments(server, self._directory / "extra")
        with (
            pinned(self._cores.others),
            subprocess.Popen((self._program, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child,
        ):
            try:
                yield child
            finally:
                child.kill()


def outcome(load: Load, child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What a load that was started measured in the end. Raises `LoadFailed`."""
    try:
        output, complaint = child.communicate(timeout=load.lasts + PATIENCE)
    except subprocess.TimeoutExpired:
        raise LoadFailed(f"It did not end within {load.lasts + PATIENCE:.0f} s.") from None
    try:
        measured: dict[str, Any] = json.loads(output)
    except ValueError:
        raise LoadFailed(f"The load failed: {complaint[-500:].decode(errors='replace')}") from None
    if not (measured["requests"] or measured["events"]):
        raise LoadFailed(f"No answer was counted: {complaint[-500:].decode(errors='replace')}")
    return measured
