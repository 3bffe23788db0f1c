"""The log: one line a request, readable on a terminal. No secret and no prompt ever reaches it."""

from __future__ import annotations

import logging
import sys
import time

from k2think.telemetry.records import Trace

FORMAT = "%(asctime)s %(levelname)-7s %(message)s"

access = logging.getLogger("k2think.access")


class _OneLine(logging.Formatter):
    """Lets nobody write lines or terminal commands of their own into the log: names and words come from outside."""

    _second = 0
    _clock = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - the library's name
        """The time of day; the library's costs as much as the rest of a line, and changes once a second."""
        second = int(record.created)
        if second != self._second:
            self._second, self._clock = second, super().formatTime(record, datefmt)
        return self._clock

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        line = super().formatMessage(record)
        return line if line.isprintable() else "".join(c if c.isprintable() else " " for c in line)


def configure_logging(level: str, *, debug: bool, requests: bool = True, worker: int | None = None) -> None:
    """Send the project's log to standard error, once in a process, by the command line.

    `debug` wins over `level`; without `requests` there is no line for each request. `worker`: this process' number,
    where there are several.
    """
    # What no line says need not be found out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    written = FORMAT if worker is None else FORMAT.replace("%(message)s", f"[{worker}] %(message)s")
    handler.setFormatter(_OneLine(written, datefmt="%H:%M:%S"))
    logger = logging.getLogger("k2think")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.DEBUG if debug else level)
    access.disabled = not requests


def log_request(method: str, path: str, status: int, started_at: float, request_id: str) -> None:
    """Write the line of an ordinary request."""
    access.info("%s %s %d %.0f ms %s", method, path, status, _since(started_at), request_id)


def log_generation(trace: Trace) -> None:
    """Write the line of a generation: how it ended, how long it took, what it cost."""
    if not access.isEnabledFor(logging.INFO):
        return  # the line itself costs more than all the rest of this
    first = (trace.first_event_at - trace.started_at) * 1000 if trace.first_event_at else 0.0
    failures = [attempt.failure for attempt in trace.attempts if attempt.failure]
    access.info(
        "chat %s %d %s%s first %.0f ms, all %.0f ms, tokens %d+%d, attempts %d%s %s",
        trace.model,
        trace.status,
        trace.ending,
        " stream" if trace.stream else "",
        first,
        _since(trace.started_at),
        trace.prompt_tokens,
        trace.completion_tokens,
        len(trace.attempts),
        f" ({', '.join(failures)})" if failures else "",
        trace.request_id,
    )


def _since(started_at: float) -> float:
    return (time.monotonic() - started_at) * 1000
