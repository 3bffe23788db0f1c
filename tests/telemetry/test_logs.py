"""What is written to the log and kept of requests, and what cannot get into it."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from k2think.telemetry.logs import FOREIGN, _Request, access, configure_logging, log_generation, log_request
from k2think.telemetry.recent import Recent
from k2think.telemetry.records import Trace


@pytest.fixture
def own_logger() -> Iterator[logging.Logger]:
    """The project's logger; it and the others are as they were before afterwards."""
    loggers = [logging.getLogger(name) for name in ("k2think", access.name, *FOREIGN)]
    before = [(list(logger.handlers), logger.propagate, logger.level) for logger in loggers]
    yield loggers[0]
    access.disabled = False
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def served() -> Trace:
    """A stream that was served at the second attempt."""
    trace = Trace("req_1", model="m/one", stream=True)
    trace.begin("a").failure = "upstream_timeout"
    trace.begin("b")
    trace.first_event_at = trace.started_at + 0.25
    trace.prompt_tokens, trace.completion_tokens, trace.status, trace.ending = 7, 9, 200, "complete"
    return trace


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed(capsys)]


def test_a_text_line_is_to_be_read(own_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", debug=False)
    own_logger.debug("not seen")
    own_logger.warning("look at %d", 3)
    log_request("GET", "/health", 200, time.monotonic(), "req_0")
    log_generation(served())
    warning, request, generation = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING look at 3", warning)
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO    GET /health 200 \d+ ms req_0", request)
    assert re.fullmatch(
        r"\S+ INFO    chat m/one 200 complete stream first 250 ms, all \d+ ms, tokens 7\+9, attempts 2 "
        r"\(upstream_timeout\) req_1",
        generation,
    )


@pytest.mark.parametrize("written", ["text", "json"])
def test_the_line_of_a_request_is_what_a_record_of_it_would_be(
    own_logger: logging.Logger, capsys: pytest.CaptureFixture[str], written: Literal["text", "json"]
) -> None:
    configure_logging("INFO", debug=False, worker=2, written=written)
    log_request("GET", "/a\nb\x1b[31m", 200, time.monotonic(), "req_0")
    access.info(asked := _Request("GET", "/a\nb\x1b[31m", 200, 0.0, "req_0"))
    assert str(asked).startswith("GET /a\nb")
    line, record = (re.sub(r'(\d\d:){2}\d\d(\.\d+Z)?|\d+ ms|"ms": [\d.]+', "", one) for one in printed(capsys))
    assert line == record


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_where_nothing_can_be_written_requests_are_answered_all_the_same(
    own_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        configure_logging("INFO", debug=False)
        log_generation(served())
        with pytest.raises(OSError, match="No space"):
            full.flush()
        monkeypatch.undo()
        with suppress(OSError):
            full.close()


def test_without_a_standard_error_requests_are_answered_all_the_same(
    own_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    configure_logging("INFO", debug=False)
    log_generation(served())


def test_on_a_terminal_warnings_are_yellow_and_errors_red(
    own_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("INFO", debug=False, colours=True)
    own_logger.info("plain")
    own_logger.warning("yellow \x1b[32m")
    own_logger.error("red")
    plain, yellow, red = capsys.readouterr().err.splitlines()
    assert "\x1b" not in plain
    assert re.fullmatch(r"\x1b\[33m\S+ WARNING yellow  \[32m\x1b\[0m", yellow)
    assert re.fullmatch(r"\x1b\[31m\S+ ERROR   red\x1b\[0m", red)


def test_the_worker_has_its_number_in_every_line(
    own_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("INFO", debug=False, worker=3)
    own_logger.info("here")
    assert capsys.readouterr().err.endswith(" [3] here\n")
    configure_logging("INFO", debug=False, worker=3, written="json")
    own_logger.info("here")
    (line,) = objects(capsys)
    assert (line["worker"], line["message"]) == (3, "here")


def test_for_programs_each_line_is_an_object(own_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", debug=False, written="json", colours=True)
    before = time.time()
    own_logger.warning("model %s", "x\n{}\r\x1b[2J\u2028ü\udc80")
    written = capsys.readouterr().err
    assert written.isascii()
    assert written.count("\n") == 1
    line = json.loads(written)
    assert line.keys() == {"time", "level", "logger", "message"}
    assert (line["level"], line["logger"]) == ("WARNING", "k2think")
    assert line["message"] == "model x\n{}\r\x1b[2J\u2028ü\udc80"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    said = datetime.fromisoformat(line["time"]).astimezone(UTC).timestamp()
    assert before - 0.001 <= said <= time.time()


def test_for_programs_requests_have_members(own_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", debug=False, written="json")
    log_request("GET", "/health", 200, time.monotonic(), "req_0")
    log_generation(served())
    log_generation(Trace("req_2"))
    request, generation, nothing = objects(capsys)
    shown = ("request_id", "method", "path", "status")
    assert [request[name] for name in shown] == ["req_0", "GET", "/health", 200]
    assert 0 <= request["ms"] < 60_000
    assert request["message"].startswith("GET /health 200 ")
    assert generation.pop("message").startswith("chat m/one 200 complete stream first 250 ms, ")
    assert generation.pop("all_ms") >= 0
    for name in ("time", "level", "logger"):
        del generation[name]
    assert generation == {
        "request_id": "req_1",
        "model": "m/one",
        "status": 200,
        "ending": "complete",
        "stream": True,
        "first_ms": 250.0,
        "prompt_tokens": 7,
        "completion_tokens": 9,
        "attempts": 2,
        "failures": ["upstream_timeout"],
    }
    assert nothing["first_ms"] is None


def test_for_programs_an_exception_is_a_text(own_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", debug=False, written="json")
    try:
        int("no\nnumber")
    except ValueError:
        own_logger.exception("failed")
    (line,) = objects(capsys)
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("literal for int() with base 10: 'no\\nnumber'")


@pytest.mark.parametrize("name", FOREIGN)
def test_what_the_server_complains_of_is_in_the_same_log(
    name: str, own_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("INFO", debug=False, written="json")
    logging.getLogger(name).info("started")
    logging.getLogger(name).error("broken")
    (line,) = objects(capsys)
    assert (line["logger"], line["message"]) == (name, "broken")


def test_without_a_request_log_there_is_no_line_for_requests(
    own_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("INFO", debug=False, requests=False)
    log_request("GET", "/health", 200, time.monotonic(), "req_0")
    log_generation(served())
    own_logger.info("but this")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(" but this")


def test_words_from_outside_write_no_lines_of_their_own(
    own_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("INFO", debug=False)
    own_logger.info("model %s", "x\n12:00:00 INFO chat forged\r\x1b[2J\u2028end")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("x 12:00:00 INFO chat forged  [2J end")
    assert "\x1b" not in line


def test_the_last_requests_are_remembered_and_no_more() -> None:
    recent = Recent(capacity=3)
    traces = [Trace(f"req_{number}") for number in range(5)]
    for trace in traces:
        recent.add(trace)
    assert [recent.get(trace.request_id) for trace in traces] == [None, None, *traces[2:]]
