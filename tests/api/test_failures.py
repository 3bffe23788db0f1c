"""What goes wrong, and how it reaches the client: the right status, OpenAI's shape, another token, no apology."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest
from conftest import KEY, MODEL, MakeStage, Stage
from serving import serving
from waiting import PATIENCE, until

from k2think.api import event_stream
from k2think.simulator.app import SimulatorOptions


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (b"\xff", 400, None),
        (b"", 400, None),
        (b'{"model":"m"}', 400, "messages"),
        (b'{"model":"m","messages":[]}', 400, "messages"),
        (b'{"model":"m","messages":[{"role":"user","content":5}]}', 400, "messages[0].content"),
        (b'{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":9}', 400, "temperature"),
        (b'{"model":"no-such","messages":[{"role":"user","content":"x"}]}', 404, "model"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(stage: Stage, body: bytes, status: int, param: str | None) -> None:
    response = stage.http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    error = error_of(response)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize(
    "field",
    [
        {"logprobs": True},
        {"top_logprobs": 3},
        {"modalities": ["text", "audio"]},
        {"audio": {"voice": "alloy", "format": "wav"}},
        {"tool_choice": "required"},
        {"function_call": {"name": "f"}},
        {"n": 9},
    ],
    ids=lambda field: next(iter(field)),
)
def test_what_cannot_be_had_is_refused_by_name_and_costs_upstream_nothing(stage: Stage, field: dict[str, Any]) -> None:
    before = len(stage.seen())
    response = stage.ask("x", **field)
    assert response.status_code == 400
    assert error_of(response)["param"] in field
    assert len(stage.seen()) == before


def test_wrong_methods_types_paths_and_sizes_are_told_apart(make_stage: MakeStage) -> None:
    small = make_stage(MAX_BODY_MB="1")
    get = small.http.get("/v1/chat/completions")
    assert (get.status_code, get.headers["allow"]) == (405, "POST")
    error_of(get)
    assert error_of(small.http.post("/v1/models"))["code"] == "method_not_allowed"
    form = small.http.post("/v1/chat/completions", content=b"{}", headers={"Content-Type": "text/plain"})
    assert form.status_code == 415
    error_of(form)
    assert error_of(small.http.get("/v1/nowhere"))["code"] == "not_found"
    large = b" " * (1024 * 1024 + 1)
    announced = small.http.post("/v1/chat/completions", content=large, headers={"Content-Type": "application/json"})

    def pieces() -> Iterator[bytes]:
        yield from (large[:65536] for _ in range(17))

    chunked = small.http.post("/v1/chat/completions", content=pieces(), headers={"Content-Type": "application/json"})
    for response in (announced, chunked):
        assert response.status_code == 413
        assert error_of(response)["code"] == "request_too_large"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["401", "403", "429", "429_retry_after"])
def test_a_refused_token_gives_way_to_the_next_and_the_client_sees_only_the_answer(
    make_stage: MakeStage, fault: str, *, stream: bool
) -> None:
    pool = make_stage(tokens=("bad@example.com", "worse@example.com", "good@example.com"))
    text = f"[[fault={fault} times=2 answer=fine]]"
    response = pool.ask(text, stream=stream)
    assert response.status_code == 200
    assert "fine" in response.text
    assert "error" not in response.text
    assert [chat["account"] for chat in pool.seen()] == ["bad@example.com", "worse@example.com", "good@example.com"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        "500", "502_html", "503", "408", "405_html", "403_html", "backend_401", "null_200", "error_in_200", "drop",
        "task_accepted", "html_200", "bad_event", "empty_reply",
    ],
)  # fmt: skip
def test_a_passing_failure_of_upstream_goes_unnoticed(stage: Stage, fault: str, *, stream: bool) -> None:
    if fault == "empty_reply":
        fault = "nodone after=0"
    text = f"[[fault={fault} after=0 times=1 key={fault.split()[0]}-{stream} answer=fine]]".replace(
        " after=0 after=0", " after=0"
    )
    response = stage.ask(text, stream=stream)
    assert response.status_code == 200, response.text
    assert "fine" in response.text
    assert stage.http.get("/health").json()["tokens"]["disabled"] == 0


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("500", 502, "upstream_unavailable"),
        ("503", 503, "upstream_unavailable"),
        ("408", 504, "upstream_timeout"),
        ("405_html", 503, "upstream_blocked"),
        ("null_200", 502, "upstream_unavailable"),
        ("error_in_200", 502, "upstream_unavailable"),
        ("no_finish", 502, "upstream_unavailable"),
    ],
)
def test_a_lasting_failure_is_reported_after_three_attempts_and_burns_no_token(
    make_stage: MakeStage, fault: str, status: int, code: str
) -> None:
    stage = make_stage()  # of its own: several such failures in a row are an incident
    response = stage.ask(f"[[fault={fault}]]")
    assert (response.status_code, error_of(response)["code"]) == (status, code)
    assert len(stage.seen()) == 3
    assert stage.http.get("/health").json()["tokens"]["active"] == 3
    if status == 503:
        assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(("fault", "status"), [("400", 400), ("413", 413), ("422", 400), ("410", 410)])
def test_a_refused_request_is_passed_on_once(stage: Stage, fault: str, status: int) -> None:
    before = stage.simulator.state.chats
    response = stage.ask(f"[[fault={fault}]]")
    assert response.status_code == status
    assert error_of(response)["type"] == "invalid_request_error"
    assert stage.simulator.state.chats - before == 1


def test_three_rejections_disable_a_token(make_stage: MakeStage) -> None:
    pool = make_stage(tokens=("bad@example.com", "good@example.com"))
    for _ in range(8):
        assert pool.ask("[[fault=401 fault_for=bad@example.com]]").status_code == 200
    assert pool.http.get("/health").json()["tokens"]["disabled"] == 1
    assert [chat["account"] for chat in pool.seen()].count("bad@example.com") == 3


def test_when_all_tokens_are_limited_the_client_learns_for_how_long(make_stage: MakeStage) -> None:
    pool = make_stage(tokens=("one@example.com",), options=SimulatorOptions(models=(MODEL,)))
    response = pool.ask("[[fault=429_retry_after retry_after=700]]")
    assert response.status_code == 429
    assert error_of(response)["code"] == "rate_limit_exceeded"
    assert 600 <= int(response.headers["retry-after"]) <= 700 * 1.1 + 1  # with a little more, at random
    assert len(pool.seen()) == 1


def test_without_any_token_the_gateway_stays_up_and_says_why(make_stage: MakeStage) -> None:
    empty = make_stage(tokens=())
    response = empty.ask("x")
    assert response.status_code == 503
    assert "token" in error_of(response)["message"]
    assert empty.http.get("/health").status_code == 200


@pytest.mark.parametrize("fault", ["cut", "error_mid_stream", "hangup", "no_finish", "nodone"])
def test_a_break_after_the_first_byte_is_an_error_frame_without_done(stage: Stage, fault: str) -> None:
    with stage.stream(f"[[fault={fault} after=8 tokens=30 delay=0.005]]") as response:
        assert response.status_code == 200
        body = response.read().decode()
    last = [line for line in body.splitlines() if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "upstream_stream_broken"
    assert "[DONE]" not in body
    assert '"finish_reason":"' not in body


@pytest.mark.parametrize("fault", ["cut", "error_mid_stream", "hangup", "no_finish"])
def test_a_break_is_mended_for_a_client_that_waits_for_the_whole(stage: Stage, fault: str) -> None:
    message = stage.answer(f"[[fault={fault} times=1 key=whole-{fault} answer=fine]]")
    assert message["content"] == "fine"


def test_what_comes_after_the_finish_cannot_break_an_answer(stage: Stage) -> None:
    assert stage.answer("[[fault=finish_nodone answer=fine]]")["content"] == "fine"


def test_a_model_that_upstream_renamed_is_found_again(make_stage: MakeStage) -> None:
    """Our own name for the model is unknown upstream: one refusal, one look at its list, one good answer."""
    renamed = make_stage(options=SimulatorOptions(models=("IFM/K2-Think-V2",)))
    assert renamed.ask("hello").status_code == 200
    assert renamed.ask("hello").status_code == 200
    assert [chat["body"]["model"] for chat in renamed.seen()] == [MODEL, "IFM/K2-Think-V2", "IFM/K2-Think-V2"]


@contextmanager
def raw_request(stage: Stage, text: str, *, stream: bool, padding: int = 0) -> Iterator[socket.socket]:
    """A request on a socket of our own, to be closed at any moment."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": stream}).encode()
    body += b" " * padding
    address = urlsplit(stage.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=PATIENCE) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            + f"Authorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        yield connection


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("padding", [100_000, 200_000, 400_000])
def test_who_asks_at_length_may_go_too(make_stage: MakeStage, padding: int, *, stream: bool) -> None:
    # What comes of a long body is taken only as it is read; behind it, that the client hangs up must still be seen.
    own = make_stage()
    with raw_request(own, "[[fault=stall_after_headers]]", stream=stream, padding=padding):
        until(lambda: own.simulator.state.open.get("one@example.com", 0) == 1)
    until(lambda: own.simulator.state.totals.cancelled == 1)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("where", ["stall", "stall_after_headers"])
def test_upstream_is_hung_up_on_when_the_client_goes(make_stage: MakeStage, where: str, *, stream: bool) -> None:
    own = make_stage()
    with raw_request(own, f"[[fault={where}]]", stream=stream) as connection:
        until(lambda: own.simulator.state.open.get("one@example.com", 0) == 1)
        if stream and where == "stall":
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    until(lambda: own.simulator.state.totals.cancelled == 1)
    assert own.http.get("/health").json()["tokens"]["active"] == 3


def test_a_client_that_takes_nothing_is_given_up(make_stage: MakeStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "STUCK_AFTER", 0.2)
    own = make_stage(SSE_KEEPALIVE="0.1")
    with raw_request(own, "[[think_tokens=100000]]", stream=True):
        until(lambda: own.simulator.state.totals.cancelled == 1)


@pytest.mark.parametrize(
    "text",
    ["[[fault=stall_before_headers]]", "[[fault=stall_after_headers]]", "[[think_tokens=100000 delay=0.02]]"],
    ids=["no answer yet", "no event yet", "thinking that is hidden"],
)
def test_silence_towards_the_client_is_covered_by_comments(make_stage: MakeStage, text: str) -> None:
    impatient = make_stage(SSE_KEEPALIVE="0.1")
    with impatient.stream(text, reasoning_format="hidden") as response:
        lines = (line for line in response.iter_lines() if line)
        assert [next(lines) for _ in range(3)] == [": keep-alive"] * 3


@pytest.mark.parametrize(
    ("fault", "settings"),
    [
        ("stall_before_headers", {"FIRST_EVENT_TIMEOUT": "0.2"}),
        ("stall_after_headers", {"FIRST_EVENT_TIMEOUT": "0.2"}),
        ("stall", {"REQUEST_TIMEOUT": "0.2"}),
    ],
)
def test_each_silence_has_its_own_limit(make_stage: MakeStage, fault: str, settings: dict[str, str]) -> None:
    impatient = make_stage(**settings)
    response = impatient.ask(f"[[fault={fault}]]")
    assert response.status_code == 504
    error = error_of(response)
    assert error["code"] == "upstream_timeout"
    assert next(iter(settings)) in error["message"]


def test_a_dead_upstream_is_a_502(make_stage: MakeStage, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "COMMIT_AFTER", 60.0)  # the status is not sent before the error is known
    dead = make_stage(K2THINK_API_URL=f"http://127.0.0.1:{closed_port}/api/chat/completions", SSE_KEEPALIVE="60")
    for stream in (False, True):
        response = dead.ask("x", stream=stream)
        assert response.status_code == 502
        assert error_of(response)["code"] == "upstream_unavailable"
    assert {model["id"] for model in dead.http.get("/v1/models").json()["data"]} == {MODEL, f"{MODEL}-nothink"}


def test_no_secret_reaches_a_client_or_a_log(make_stage: MakeStage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="k2think")
    own = make_stage()
    secrets = [KEY, "the-prompt-itself", *own.tokens_file.read_text().split()]
    answers = [own.ask(f"the-prompt-itself [[fault={fault}]]") for fault in ("401", "429", "500", "400", "no_finish")]
    told = "".join(f"{answer.text}{answer.headers}" for answer in answers) + caplog.text
    assert caplog.text
    assert not [secret for secret in secrets if secret in told]
    for step in ("asking", "failed (upstream_rejected_token), next"):
        assert step in caplog.text


def test_an_upstream_that_repeats_the_token_tells_nobody(
    make_stage: MakeStage, caplog: pytest.LogCaptureFixture
) -> None:
    async def indiscreet(scope: Any, receive: Any, send: Any) -> None:
        token = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{kind}"
                await send({"type": f"lifespan.{kind}.complete"})
            return
        body = json.dumps({"detail": f"I do not like {token.decode().upper()}."}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    with serving(indiscreet) as url:
        own = make_stage(tokens=("my-very-own-token",), K2THINK_API_URL=f"{url}/api/chat/completions")
        answer = own.ask("hello")
        told = answer.text + own.http.get(f"/admin/requests/{answer.headers['x-request-id']}").text + caplog.text
    assert "I do not like BEARER …." in told
    assert "my-very-own-token" not in told.lower()


def test_a_request_that_may_not_pass_is_logged(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="k2think.access")
    refused = stage.anyone.post(f"{stage.url}/v1/chat/completions", json={})
    assert refused.status_code == 401
    assert re.search(rf"POST /v1/chat/completions 401 \d+ ms {refused.headers['x-request-id']}", caplog.text)


def test_a_model_name_without_end_is_refused(stage: Stage) -> None:
    response = stage.ask("hello", model="m" * 300)
    assert response.status_code == 400
    assert error_of(response)["param"] == "model"
