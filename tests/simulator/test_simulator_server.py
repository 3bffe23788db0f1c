"""The simulator as a server: faults and forms on the wire, clients that leave, accounts, what it tells of itself."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from rawhttp import RawAnswer, connected, parsed, request
from serving import serving
from waiting import until

from k2think.simulator.app import Account, Simulator, SimulatorOptions, create_simulator, mint_token
from k2think.simulator.script import FAULTS, FORMS
from k2think.sse import Decoder

MODEL = SimulatorOptions().models[0]
EMAIL = "user@example.com"
SHORT = 'think="a b" answer="c d e f g h"'


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, Simulator]]:
    app = create_simulator()
    with serving(app) as base:
        yield base, app


@pytest.fixture
def base(running: tuple[str, Simulator]) -> Iterator[str]:
    base, app = running
    app.state.reset()
    yield base
    until(lambda: not app.state.open)


def chat(
    base: str, text: str, *, path: str = "/api/chat/completions", email: str = EMAIL, stream: bool = True, **fields: Any
) -> RawAnswer:
    body = {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": text}], **fields}
    headers = {"Authorization": f"Bearer {mint_token(email)}", "Content-Type": "application/json"}
    return request(base, "POST", path, headers=headers, body=body)


def opened(base: str, text: str, **headers: str) -> Any:
    """A streamed chat's connection."""
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": text}]}
    sent = {"Authorization": f"Bearer {mint_token(EMAIL)}", "Content-Type": "application/json", **headers}
    return connected(base, "POST", "/api/chat/completions", headers=sent, body=body)


def events(answer: RawAnswer) -> list[Any]:
    decoder = Decoder()
    data = [*decoder.feed(answer.body), *decoder.close()]
    return [item.decode() if item == b"[DONE]" else json.loads(item) for item in data]


def text_of(answer: RawAnswer) -> str:
    chunks = [event for event in events(answer) if isinstance(event, dict) and event.get("choices")]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


WHOLE = "<think>a b</think>\n<answer>c d e f g h</answer>"


@pytest.mark.parametrize("form", [name for name in FORMS if name not in {"json", "snapshots", "gzip"}])
def test_a_stream_holds_the_same_text_in_every_form(base: str, form: str) -> None:
    answer = chat(base, f"[[form={form} {SHORT}]]")
    assert answer.status == 200 and answer.framing == "chunked, terminated"
    assert text_of(answer) == WHOLE
    assert events(answer)[-1] == "[DONE]"


def test_forms_look_as_they_are_called(base: str) -> None:
    bodies = {form: chat(base, f"[[form={form} {SHORT}]]").body for form in FORMS}
    assert json.loads(bodies["json"])["choices"][0]["message"]["content"] == WHOLE
    assert bodies["sources_first"].startswith(b'data: {"sources": [{"source"')
    assert bodies["event_first"].startswith(b'data: {"event": {"type": "status"')
    assert b'"choices": [], "usage": {"prompt_tokens"' in bodies["usage_chunk"]
    assert bodies["comments"].count(b": keep-alive\n\n") == 21
    assert b"\r\n\r\n" in bodies["crlf"] and not re.search(rb"(?<!\r)\n", bodies["crlf"])
    assert bodies["no_space"].startswith(b'data:{"id"')
    assert bodies["bare_json"].startswith(b'{"id"')
    compressed = gzip.decompress(bodies["gzip"])
    assert compressed.startswith(b"data: {") and compressed.endswith(b"data: [DONE]\n\n")
    contents = [json.loads(line[6:]) for line in bodies["snapshots"].split(b"\n\n")[:-2]]
    assert contents[0]["content"].endswith("> a\n</details>")
    assert contents[-1]["done"] and contents[-1]["content"] == contents[-2]["content"]
    assert contents[-1]["content"].endswith("</details>\n<answer>c d e f g h</answer>")


def test_forms_can_be_combined(base: str) -> None:
    answer = chat(base, f"[[form=sources_first,crlf,comments,one_write,usage_chunk chunk=3 {SHORT}]]")
    assert text_of(answer) == WHOLE and answer.body.count(b": keep-alive\r\n\r\n") == 16


BROKEN = {
    "401": (401, '{"detail":"401 Unauthorized"}'),
    "403": (403, "do not have permission"),
    "405_html": (405, "<html>"),
    "403_html": (403, "<html>"),
    "502_html": (502, "<html>"),
    "429": (429, '"code":"rate_limit_exceeded"'),
    "400_model": (400, '{"detail":"Model not found"}'),
    "404": (404, '{"error":'),
    "408": (408, '"type":"timeout_error"'),
    "410": (410, '"type":"deprecated_model_error"'),
    "413": (413, '{"error":'),
    "422": (422, '{"error":'),
    "500": (500, '"type":"server_error"'),
    "503": (503, '{"error":'),
    "529": (529, '"type":"overloaded_error"'),
    "503_detail": (503, '{"detail":'),
    "502_text": (502, "upstream says 502"),
    "backend_401": (401, '{"error":'),
    "null_200": (200, "null"),
    "html_200": (200, "<!doctype html>"),
    "task_accepted": (200, '{"status":true,"task_ids":["'),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("stream", [True, False])
def test_a_fault_before_the_answer_gives_its_status_and_body(base: str, fault: str, stream: bool) -> None:
    status, text = BROKEN[fault]
    answer = chat(base, f"[[fault={fault}]]", stream=stream)
    assert answer.status == status and text in answer.body.decode()
    assert ("text/html" in (answer.header("content-type") or "")) == ("<html" in answer.body.decode())


def test_retry_after_holds_what_was_asked_for(base: str) -> None:
    assert chat(base, "[[fault=429_retry_after retry_after=3]]").header("retry-after") == "3"
    assert chat(base, "[[fault=429]]").header("retry-after") is None


def test_drop_ends_the_connection_before_any_byte_and_hangup_in_the_middle(base: str) -> None:
    assert chat(base, "[[fault=drop]]").framing == "none"
    answer = chat(base, f"[[fault=hangup after=2 {SHORT}]]")
    assert answer.framing == "chunked, NOT terminated" and text_of(answer) == "<think"


@pytest.mark.parametrize(
    ("fault", "finish", "done"), [("no_finish", False, True), ("nodone", False, False), ("finish_nodone", True, False)]
)
def test_the_end_of_a_stream_can_lack_its_marks(base: str, fault: str, finish: bool, done: bool) -> None:
    found = events(chat(base, f"[[fault={fault} {SHORT}]]"))
    assert ("[DONE]" in found) == done
    assert any(event["choices"][0]["finish_reason"] for event in found if event != "[DONE]") == finish


def test_errors_inside_a_stream_come_before_or_after_the_first_delta(base: str) -> None:
    early, late = (events(chat(base, f"[[fault={fault} after=1]]")) for fault in ("error_in_200", "error_mid_stream"))
    assert [sorted(event) for event in early] == [["error"]]
    assert ["error" in event for event in late] == [False, False, True]


def test_an_event_can_be_no_json(base: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        events(chat(base, "[[fault=bad_event after=1]]"))


@pytest.mark.parametrize(("fault", "finish"), [("empty", "stop"), ("empty_length", "length")])
def test_an_answer_can_be_empty(base: str, fault: str, finish: str) -> None:
    choice = chat(base, f"[[fault={fault}]]", stream=False).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", finish)


def test_a_stall_can_pass(base: str) -> None:
    for fault in ("stall", "stall_before_headers", "stall_after_headers"):
        assert text_of(chat(base, f"[[fault={fault} lasting=0.01 {SHORT}]]")) == WHOLE


def test_a_fault_past_the_last_delta_happens_before_the_end(base: str) -> None:
    answer = chat(base, f"[[fault=cut after=1000 {SHORT}]]")
    assert text_of(answer) == WHOLE and b'finish_reason": "stop' not in answer.body
    assert answer.body.endswith(b'{"error":{"message":"Chat completion stream failed"}}\n\ndata: [DONE]\n\n')


def test_every_listed_fault_ends_as_failed_or_goes_on(base: str, running: tuple[str, Simulator]) -> None:
    _, app = running
    for fault in FAULTS:
        chat(base, f"[[fault={fault} lasting=0 {SHORT}]]")
    until(lambda: not app.state.open)
    endings = {record.fault: record.ending for record in app.state.records}
    assert set(endings) == set(FAULTS)
    assert {fault for fault, ending in endings.items() if ending != "failed"} == {
        "json_on_stream",
        "stall_before_headers",
    }


def test_a_fault_stops_after_so_many_requests_with_its_key(base: str) -> None:
    statuses = [chat(base, f"[[fault=500 times=2 key=k]] {number}", stream=False).status for number in range(4)]
    assert statuses == [500, 500, 200, 200]
    assert chat(base, "[[fault=500 times=2 key=other]]").status == 500


def test_a_fault_can_be_one_accounts_only(base: str) -> None:
    text = "[[fault=429 fault_for=User@example.com]]"
    assert chat(base, text).status == 429
    assert chat(base, text, email="other@example.com").status == 200


def test_a_mistyped_directive_is_told(base: str) -> None:
    answer = chat(base, "[[shap=plain]]")
    assert answer.status == 400 and "Unknown key 'shap'" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("directive", "bytes_before_leaving"),
    [("fault=stall after=1", True), ("delay=0.05 tokens=1000", True), ("fault=stall_before_headers", False),
     ("first=60", False), ("tokens=50000", True)],
)  # fmt: skip
def test_a_client_that_leaves_is_noticed(
    base: str, running: tuple[str, Simulator], directive: str, bytes_before_leaving: bool
) -> None:
    _, app = running
    connection = opened(base, f"[[{directive}]]")
    if bytes_before_leaving:
        connection.recv(100)
    until(lambda: app.state.open == {EMAIL: 1})
    connection.close()
    until(lambda: app.state.totals.cancelled == 1 and not app.state.open)
    assert [record.ending for record in app.state.records] == ["cancelled"]


def test_headers_come_before_the_first_event(base: str) -> None:
    with opened(base, "[[fault=stall_after_headers]]") as connection:
        assert parsed(connection.recv(10_000)).status == 200


def test_deltas_leave_when_they_are_made(base: str) -> None:
    with opened(base, "[[fault=stall after=1]]") as connection:
        data = b""
        while b'"content": "<"' not in data:
            data += connection.recv(10_000)


def test_an_account_has_so_many_chats_at_a_time() -> None:
    app = create_simulator(SimulatorOptions(max_concurrent=1))
    with serving(app) as base:
        with opened(base, "[[fault=stall]]") as connection:
            connection.recv(10)
            assert chat(base, "hi").status == 429
            assert chat(base, "hi", email="other@example.com").status == 200
        until(lambda: not app.state.open)
        assert chat(base, "hi").status == 200


def test_faults_and_shapes_can_be_everybodys_or_an_accounts() -> None:
    accounts = {
        EMAIL: Account(faults=("429",)),
        "rejected@example.com": Account(faults=("rejected",)),
        "a@b.c": Account(),
    }
    options = SimulatorOptions(fault="503", shape="plain", accounts=accounts)
    with serving(create_simulator(options)) as base:
        assert chat(base, "hi").status == 429
        assert chat(base, "hi", email="a@b.c").status == 503
        assert chat(base, "hi", email="rejected@example.com").json() == {"detail": "401 Unauthorized"}
        assert chat(base, "hi", email="unknown@example.com").json() == {"detail": "Invalid authentication request."}
        assert chat(base, "[[fault=no_finish]] hi", email="a@b.c").status == 200


@pytest.mark.parametrize(
    "options",
    [
        SimulatorOptions(shape="x"),
        SimulatorOptions(fault="x"),
        SimulatorOptions(accounts={"a": Account(faults=("x",))}),
    ],
)
def test_options_that_name_what_does_not_exist_are_refused(options: SimulatorOptions) -> None:
    with pytest.raises(ValueError):
        create_simulator(options)


def sign_in(base: str, email: str, password: str = "p") -> RawAnswer:
    body = {"email": email, "password": password}
    headers = {"Content-Type": "application/json"}
    return request(base, "POST", "/api/v1/auths/signin", headers=headers, body=body)


def test_without_accounts_any_e_mail_signs_in_but_the_telling_ones(base: str) -> None:
    names = ("user", "wrong1", "limited", "pending-2", "USER")
    assert [sign_in(base, f"{name}@example.com").status for name in names] == [200, 400, 429, 200, 200]
    assert sign_in(base, EMAIL, password="").status == 400
    state = request(base, "GET", "/simulator/state").json()
    assert state["sign_ins"][EMAIL] == {"attempts": 3, "good": 2}


def test_a_token_from_sign_in_works_until_it_is_revoked_and_the_next_one_does(base: str) -> None:
    def models() -> int:
        return request(base, "GET", "/api/models", headers={"Authorization": f"Bearer {token}"}).status

    token = sign_in(base, EMAIL).json()["token"]
    assert models() == 200
    revoked = request(base, "POST", "/simulator/revoke", body={"email": EMAIL.upper()})
    assert revoked.status == 200 and models() == 401
    token = sign_in(base, EMAIL).json()["token"]
    assert models() == 200
    request(base, "POST", "/simulator/delete", body={"email": EMAIL})
    assert models() == 401 and sign_in(base, EMAIL).status == 400


def test_0_6_28_tokens_can_be_revoked_until_the_next_sign_in() -> None:
    app = create_simulator(SimulatorOptions(release="0.6.28"))
    with serving(app) as base:
        headers = {"Authorization": f"Bearer {sign_in(base, EMAIL).json()['token']}"}
        app.state.revoke(EMAIL)
        assert request(base, "GET", "/api/models", headers=headers).status == 401
        sign_in(base, EMAIL)
        assert request(base, "GET", "/api/models", headers=headers).status == 200


@pytest.mark.parametrize("release", ["0.6.28", "0.12.4"])
def test_tokens_live_as_long_as_they_are_told_to(release: Any) -> None:
    app = create_simulator(SimulatorOptions(release=release, token_ttl=-1))
    with serving(app) as base:
        answer = sign_in(base, EMAIL)
        assert answer.json()["expires_at"] <= time.time()
        assert ("expires=" in str(answer.header("set-cookie"))) == (release == "0.6.28")
        headers = {"Authorization": f"Bearer {answer.json()['token']}"}
        assert request(base, "GET", "/api/models", headers=headers).json() == {"detail": "401 Unauthorized"}


def test_the_record_of_a_chat_names_its_account_and_hides_its_token(base: str) -> None:
    chat(base, "hello", chat_id="", custom=[1])
    [record] = request(base, "GET", "/simulator/requests").json()["requests"]
    assert record["headers"]["authorization"] == f"Bearer {EMAIL}" and record["account"] == EMAIL
    assert record["body"]["custom"] == [1] and record["path"] == "/api/chat/completions"
    assert (record["ending"], record["status"], record["fault"]) == ("completed", 200, "")
    assert record["started"] <= record["ended"] <= time.time()
    assert "eyJ" not in json.dumps(record)


def test_state_counts_endings_and_reset_forgets_them(base: str) -> None:
    chat(base, "a")
    chat(base, "[[fault=500]]")
    state = request(base, "GET", "/simulator/state").json()
    assert (state["chats"], state["open"], state["totals"]) == (2, 0, {"completed": 1, "cancelled": 0, "failed": 1})
    assert request(base, "POST", "/simulator/reset").status == 200
    assert request(base, "GET", "/simulator/requests").json() == {"requests": []}
    assert request(base, "GET", "/simulator/state").json()["chats"] == 0


def test_only_the_last_200_chats_are_kept(base: str, running: tuple[str, Simulator]) -> None:
    for _ in range(203):
        chat(base, "x", model="none")
    assert [record.number for record in running[1].state.records] == list(range(4, 204))


def test_guests_need_no_token_and_get_snapshots(base: str) -> None:
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    answer = request(
        base, "POST", "/api/guest/chat/completions", body=body, headers={"Content-Type": "application/json"}
    )
    assert all("content" in event for event in events(answer)[:-1])
    assert request(base, "GET", "/api/guest/models").json() == {"data": [{"id": MODEL, "status": "active"}]}


def test_the_openai_paths_split_the_thinking_off_and_ask_for_their_key() -> None:
    with serving(create_simulator(SimulatorOptions(openai_key="k"))) as base:
        body = {"model": MODEL, "messages": [{"role": "user", "content": f"[[{SHORT}]]"}]}
        good = {"Authorization": "Bearer k"}
        message = request(base, "POST", "/v1/chat/completions", body=body, headers=good).json()["choices"][0]["message"]
        assert message == {"role": "assistant", "content": "c d e f g h", "reasoning_content": "a b"}
        assert request(base, "GET", "/v1/models", headers=good).json()["object"] == "list"
        for answer in (request(base, "POST", "/v1/chat/completions", body=body), request(base, "GET", "/v1/models")):
            assert answer.status == 401 and answer.json()["error"]["code"] == "invalid_api_key"
        unknown = request(base, "POST", "/v1/chat/completions", body={**body, "model": "x"}, headers=good)
        assert unknown.status == 404 and unknown.json()["error"]["code"] == "model_not_found"


def test_params_count_as_if_they_stood_beside_them(base: str) -> None:
    answer = chat(base, f"[[{SHORT}]]", stream=False, params={"max_tokens": 4, "custom_params": {"stop": "a"}})
    assert answer.json()["choices"][0]["message"]["content"] == "<think>"
    assert answer.json()["choices"][0]["finish_reason"] == "stop"


def test_extras_of_the_public_service_can_be_switched_on() -> None:
    options = SimulatorOptions(hidden_prompt_tokens=400, time_info=True, system_fingerprint=True)
    with serving(create_simulator(options)) as base:
        whole = chat(base, "hi", stream=False).json()
        assert whole["usage"]["prompt_tokens"] == 408
        assert whole["system_fingerprint"].startswith("fp_") and "queue_time" in whole["time_info"]
        chunks = events(chat(base, "hi"))
        assert all(chunk["system_fingerprint"].startswith("fp_") for chunk in chunks[:-1])
        assert "time_info" in chunks[-2]
