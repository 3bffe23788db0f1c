"""What clients are told whose answers are still running when the gateway stops and has waited long enough."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY, MODEL, client_of
from rawhttp import RawAnswer, connected, parsed
from serving import serving
from waiting import until

from k2think import listening
from k2think.app import create_app
from k2think.listening import listen, running_beside, url_of
from k2think.settings import Settings
from k2think.simulator.app import SimulatorOptions, create_simulator, mint_token

LARGE = 24 * 1024 * 1024
"""Bytes; more than a client's and our own socket keep of an answer that nobody reads."""
HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


class Stopping:
    """A gateway that is stopped while answers are running."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.simulator = create_simulator(SimulatorOptions(models=(MODEL,)))
        upstream = stack.enter_context(serving(self.simulator))
        (directory / "tokens.txt").write_text(mint_token("one@example.com"))
        environ = {"VALID_API_KEY": KEY, "K2THINK_API_URL": f"{upstream}/api/chat/completions"}
        listener = listen("127.0.0.1", 0)
        self.url = url_of(listener)
        self._server = ExitStack()
        app = create_app(Settings.load(environ, directory=directory))
        self._server.enter_context(running_beside(app, listener, drain=0.1))
        stack.callback(self._server.close)

    def ask(self, text: str, **fields: Any) -> socket.socket:
        """A connection on which an answer is running, whose upstream has been asked."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}
        connection = connected(self.url, "POST", "/v1/chat/completions", headers=HEADERS, body=body)
        until(lambda: self.simulator.state.chats)
        return connection

    def stop(self) -> None:
        """Stop and wait for it."""
        self._server.close()

    def rest_of(self, connection: socket.socket) -> RawAnswer:
        """Stop; then all that arrives."""
        self.stop()
        data = b""
        while part := connection.recv(65536):
            data += part
        return parsed(data)


@pytest.fixture
def stopping(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stopping]:
    # A machine that stands still for a while is no fault: whoever takes what he is told is told.
    monkeypatch.setattr(listening, "TEAR_SECONDS", 60.0)
    monkeypatch.setattr(listening, "CUT_SECONDS", 60)
    monkeypatch.setattr(logging.getLogger("k2think"), "propagate", True)
    caplog.set_level(logging.INFO, logger="k2think")
    with ExitStack() as stack:
        yield Stopping(tmp_path, stack)
    assert [record for record in caplog.records if record.exc_info] == []


def chat_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if line.startswith("chat ")]


def test_a_stream_ends_with_an_error(stopping: Stopping, caplog: pytest.LogCaptureFixture) -> None:
    with stopping.ask("[[fault=stall after=2]]", stream=True) as connection:
        connection.recv(1, socket.MSG_PEEK)  # it has begun
        answer = stopping.rest_of(connection)
    assert (answer.status, answer.framing) == (200, "chunked, terminated")
    *_, last, nothing = answer.body.decode().split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "gateway_stopping"
    assert nothing == ""
    (line,) = chat_lines(caplog)
    assert " 200 cut off: the gateway stops stream " in line


def test_an_answer_that_has_not_begun_is_an_error(stopping: Stopping, caplog: pytest.LogCaptureFixture) -> None:
    with stopping.ask("[[fault=stall_before_headers]]") as connection:
        answer = stopping.rest_of(connection)
    is_told(answer)
    (line,) = chat_lines(caplog)
    assert " 503 cut off: the gateway stops " in line
    assert line.endswith(str(answer.header("x-request-id")))


def test_a_request_that_is_still_arriving_is_answered(stopping: Stopping, caplog: pytest.LogCaptureFixture) -> None:
    headers = HEADERS | {
        "Content-Type": "multipart/form-data; boundary=B",
        "Content-Length": "1000",
        "Expect": "100-continue",
        "Origin": "https://example.com",
    }
    with connected(stopping.url, "POST", "/v1/files", headers=headers) as connection:
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        answer = stopping.rest_of(connection)
    is_told(answer)
    assert answer.header("access-control-allow-origin") == "*"
    assert any(line.startswith("POST /v1/files 503 ") for line in caplog.messages)


def test_a_client_that_takes_nothing_holds_nothing_up(
    stopping: Stopping, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "TEAR_SECONDS", 0.5)
    with stopping.ask("[[tokens=200000]]", stream=True) as connection:
        connection.recv(1, socket.MSG_PEEK)
        stopping.stop()
    (line,) = chat_lines(caplog)
    assert " 200 cut off: the gateway stops stream " in line


def is_told(answer: RawAnswer) -> None:
    assert (answer.status, answer.framing, answer.header("retry-after")) == (503, "content-length", "5")
    assert answer.json()["error"]["code"] == "gateway_stopping"
    assert answer.header("x-request-id")


def test_a_file_that_is_cut_off_is_seen_to_be(stopping: Stopping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "TEAR_SECONDS", 0.5)
    with client_of(base_url=stopping.url, headers={"Authorization": f"Bearer {KEY}"}) as http:
        files = {"file": ("large.bin", bytes(LARGE))}
        file = http.post("/v1/files", data={"purpose": "user_data"}, files=files).json()
    with connected(stopping.url, "GET", f"/v1/files/{file['id']}/content", headers=HEADERS) as connection:
        connection.recv(1, socket.MSG_PEEK)
        answer = stopping.rest_of(connection)
    assert answer.status == 200
    assert answer.header("content-length") == str(LARGE)
    assert 0 < len(answer.body) < LARGE
