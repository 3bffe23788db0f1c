"""What is written to the log and kept of requests, and what cannot get into it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from k2think.telemetry.logs import configure_logging
from k2think.telemetry.recent import Recent
from k2think.telemetry.records import Trace


@pytest.fixture
def own_logger() -> Iterator[logging.Logger]:
    """The project's logger, as it was before afterwards."""
    logger = logging.getLogger("k2think")
    before = (list(logger.handlers), logger.propagate, logger.level)
    yield logger
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


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
