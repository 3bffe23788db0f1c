"""The log: one line a request, to be read on a terminal or by programs. No secret and no prompt ever reaches it."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Literal

from k2think.telemetry.records import Trace

FORMAT = "%(asctime)s %(levelname)-7s %(message)s"
FOREIGN = ("uvicorn.error", "asyncio")
"""Loggers of libraries whose warnings belong into the same log."""

RED, YELLOW, PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[0m"

access = logging.getLogger("k2think.access")


class Event:
    """What may be logged in place of a text: `str` of it is the text, `members` are for programs."""

    __slots__ = ()

    def members(self) -> dict[str, Any]:
        """What it says, by name."""
        raise NotImplementedError


class _Clocked(logging.Formatter):
    """Formats the time, to the second, once a second: that costs the library as much as the rest of a line."""

    _second = 0
    _clock = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - the library's name
        second = int(record.created)
        if second != self._second:
            self._second, self._clock = second, super().formatTime(record, datefmt)
        return self._clock


class _OneLine(_Clocked):
    """Lets nobody write lines or terminal commands of their own into the log: names and words come from outside."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        line = super().formatMessage(record)
        return line if line.isprintable() else "".join(c if c.isprintable() else " " for c in line)


class _Coloured(_OneLine):
    """For a terminal: what somebody should look at stands out."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        line = super().formatMessage(record)
        if record.levelno < logging.WARNING:
            return line
        return f"{RED if record.levelno >= logging.ERROR else YELLOW}{line}{PLAIN}"


class _Json(_Clocked):
    """One object a line, in ASCII, so that nothing that is written into it can be taken for another line."""

    converter = staticmethod(time.gmtime)

    def __init__(self, worker: int | None) -> None:
        super().__init__()
        self._own = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line: dict[str, Any] = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.created % 1 * 1000):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._own,
        }
        if isinstance(record.msg, Event):
            line |= record.msg.members()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(
    level: str,
    *,
    debug: bool,
    requests: bool = True,
    worker: int | None = None,
    written: Literal["text", "json"] = "text",
    colours: bool = False,
) -> None:
    """Send the project's log to standard error, once in a process, by the command line.

    `debug` wins over `level`; without `requests` there is no line for each request. `worker`: this process' number,
    where there are several. `colours`: for a terminal; programs that read JSON get none.
    """
    # What no line says need not be found out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001 - the documented switch for not looking the caller up
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(worker) if written == "json" else _text(worker, colours=colours))
    for name in FOREIGN:
        foreign = logging.getLogger(name)
        foreign.handlers[:] = [handler]
        foreign.propagate = False
        foreign.setLevel(logging.WARNING)
    logger = logging.getLogger("k2think")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.DEBUG if debug else level)
    access.disabled = not requests


def _text(worker: int | None, *, colours: bool) -> logging.Formatter:
    line = FORMAT if worker is None else FORMAT.replace("%(message)s", f"[{worker}] %(message)s")
    return (_Coloured if colours else _OneLine)(line, datefmt="%H:%M:%S")


def log_request(method: str, path: str, status: int, started_at: float, request_id: str) -> None:
    """Write the line of an ordinary request."""
    if access.isEnabledFor(logging.INFO):
        access.info(_Request(method, path, status, _since(started_at), request_id))


def log_generation(trace: Trace) -> None:
    """Write the line of a generation: how it ended, how long it took, what it cost."""
    if access.isEnabledFor(logging.INFO):  # the line itself costs more than all the rest of this
        access.info(_Generation(trace, _since(trace.started_at)))


class _Request(Event):
    __slots__ = ("method", "ms", "path", "request_id", "status")

    def __init__(self, method: str, path: str, status: int, ms: float, request_id: str) -> None:
        self.method = method
        self.path = path
        self.status = status
        self.ms = ms
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.status} {self.ms:.0f} ms {self.request_id}"

    def members(self) -> dict[str, Any]:
        return {
            "request_id": self.request_id,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "ms": round(self.ms, 1),
        }


class _Generation(Event):
    __slots__ = ("_all", "_trace")

    def __init__(self, trace: Trace, milliseconds: float) -> None:
        self._trace = trace
        self._all = milliseconds

    def __str__(self) -> str:
        trace = self._trace
        stream = " stream" if trace.stream else ""
        failures = self._failures()
        failed = f" ({', '.join(failures)})" if failures else ""
        return (
            f"chat {trace.model} {trace.status} {trace.ending}{stream} first {self._first() or 0.0:.0f} ms, "
            f"all {self._all:.0f} ms, tokens {trace.prompt_tokens}+{trace.completion_tokens}, "
            f"attempts {len(trace.attempts)}{failed} {trace.request_id}"
        )

    def members(self) -> dict[str, Any]:
        trace = self._trace
        first = self._first()
        return {
            "request_id": trace.request_id,
            "model": trace.model,
            "status": trace.status,
            "ending": trace.ending,
            "stream": trace.stream,
            "first_ms": None if first is None else round(first, 1),
            "all_ms": round(self._all, 1),
            "prompt_tokens": trace.prompt_tokens,
            "completion_tokens": trace.completion_tokens,
            "attempts": len(trace.attempts),
            "failures": self._failures(),
        }

    def _first(self) -> float | None:
        """Milliseconds until the first event; None if none came."""
        trace = self._trace
        return (trace.first_event_at - trace.started_at) * 1000 if trace.first_event_at else None

    def _failures(self) -> list[str]:
        return [attempt.failure for attempt in self._trace.attempts if attempt.failure]


def _since(started_at: float) -> float:
    return (time.monotonic() - started_at) * 1000
