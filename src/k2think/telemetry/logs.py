"""The log: one line a request, to be read on a terminal or by programs. No secret and no prompt ever reaches it."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import suppress
from typing import Any, Literal, TextIO

from k2think.telemetry.records import Trace

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


class _Form(logging.Formatter):
    """How a line is written: of a record, or of what is logged for each request."""

    _second = 0
    _clock = ""

    def line(self, event: Event, created: float) -> str:
        """The line of an event at level INFO, at this Unix time: what `format` gives for its record."""
        raise NotImplementedError

    def formatTime(self, record: logging.LogRecord, _datefmt: str | None = None) -> str:  # noqa: N802 - the library's name
        return self.time_of(record.created)

    def time_of(self, created: float) -> str:
        """The time, to the second; formatted once a second, for that costs as much as the rest of a line."""
        second = int(created)
        if second != self._second:
            self._second, self._clock = second, time.strftime(str(self.datefmt), self.converter(second))
        return self._clock


class _Text(_Form):
    """Lets nobody write lines or terminal commands of their own into the log: names and words come from outside."""

    def __init__(self, worker: int | None) -> None:
        self._who = "" if worker is None else f"[{worker}] "
        super().__init__(f"%(asctime)s %(levelname)-7s {self._who}%(message)s", datefmt="%H:%M:%S")

    def line(self, event: Event, created: float) -> str:
        return _printable(f"{self.time_of(created)} INFO    {self._who}{event}")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        return _printable(super().formatMessage(record))


class _Coloured(_Text):
    """For a terminal: what somebody should look at stands out."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        line = super().formatMessage(record)
        if record.levelno < logging.WARNING:
            return line
        return f"{RED if record.levelno >= logging.ERROR else YELLOW}{line}{PLAIN}"


class _Json(_Form):
    """One object a line, in ASCII, so that nothing that is written into it can be taken for another line."""

    converter = staticmethod(time.gmtime)

    def __init__(self, worker: int | None) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S")
        self._own = {} if worker is None else {"worker": worker}

    def line(self, event: Event, created: float) -> str:
        return json.dumps(self._told(created, "INFO", access.name, str(event)) | event.members(), default=str)

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line = self._told(record.created, record.levelname, record.name, record.getMessage())
        if isinstance(record.msg, Event):
            line |= record.msg.members()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)

    def _told(self, created: float, level: str, name: str, message: str) -> dict[str, Any]:
        moment = f"{self.time_of(created)}.{int(created % 1 * 1000):03d}Z"
        return {"time": moment, "level": level, "logger": name, "message": message, **self._own}


class _Lines(logging.StreamHandler[TextIO]):
    """Writes the lines of requests without the library's records, which cost several times what the lines do."""

    def __init__(self, form: _Form) -> None:
        super().__init__(sys.stderr)
        self._form = form
        self.setFormatter(form)

    def write(self, event: Event) -> None:
        """Write its line; where that cannot be, as on a full disk, requests are answered all the same."""
        line = self._form.line(event, time.time())
        if self.stream:  # there may be no standard error
            with suppress(OSError, ValueError):
                self.stream.write(line + self.terminator)


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
    form = _Json(worker) if written == "json" else _Coloured(worker) if colours else _Text(worker)
    handler = _Lines(form)
    for name in FOREIGN:
        foreign = logging.getLogger(name)
        foreign.handlers[:] = [handler]
        foreign.propagate = False
        foreign.setLevel(logging.WARNING)
    logger = logging.getLogger("k2think")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.DEBUG if debug else level)
    access.handlers[:] = [handler]
    access.propagate = False
    access.disabled = not requests


def log_request(method: str, path: str, status: int, started_at: float, request_id: str) -> None:
    """Write the line of an ordinary request."""
    if access.isEnabledFor(logging.INFO):
        _write(_Request(method, path, status, _since(started_at), request_id))


def log_generation(trace: Trace) -> None:
    """Write the line of a generation: how it ended, how long it took, what it cost."""
    if access.isEnabledFor(logging.INFO):  # the line itself costs more than all the rest of this
        _write(_Generation(trace, _since(trace.started_at)))


def _write(event: Event) -> None:
    match access.handlers:
        case [_Lines() as lines]:
            lines.write(event)
        case _:  # somebody else listens, and gets a record
            access.info(event)


def _printable(line: str) -> str:
    return line if line.isprintable() else "".join(c if c.isprintable() else " " for c in line)


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
