"""The admin calls: their documented answers, and who may make them."""

from __future__ import annotations

import re
from typing import Any

import httpx2 as httpx
import pytest
from conftest import KEY, MakeStage, Stage

from k2think.api.access import is_from_this_machine
from k2think.simulator.app import mint_token

CALLS = [
    ("GET", "/admin/tokens"),
    ("GET", "/admin/tokens/stats"),
    ("GET", "/admin/tokens/consecutive-failures"),
    ("POST", "/admin/tokens/reset-consecutive"),
    ("POST", "/admin/tokens/reset/0"),
    ("POST", "/admin/tokens/reset-all"),
    ("POST", "/admin/tokens/reload"),
    ("GET", "/admin/tokens/updater/status"),
    ("POST", "/admin/tokens/updater/force-update"),
    ("POST", "/admin/tokens"),
    ("DELETE", "/admin/tokens/0"),
    ("POST", "/admin/tokens/0/disable"),
    ("POST", "/admin/tokens/0/enable"),
    ("GET", "/admin/requests/req_1"),
    ("GET", "/admin"),
    ("GET", "/admin/"),
    ("GET", "/admin/nothing"),
]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


def refused(response: httpx.Response, status: int = 400) -> str:
    """The message of a refused call."""
    assert response.status_code == status, response.text
    answer = response.json()
    assert answer["status"] == "error"
    message: str = answer["message"]
    return message


# The documented calls


def test_the_statistics(stage: Stage) -> None:
    stage.answer("hello")
    stats = stage.admin("/tokens/stats")
    documented = {
        "total_tokens": 3,
        "active_tokens": 3,
        "inactive_tokens": 0,
        "failure_distribution": {"0": 3},
        "max_failures": 3,
        "consecutive_failures": 0,
        "consecutive_failure_threshold": 2,
    }
    assert documented.items() <= stats.items()
    assert stats["current_index"] in {0, 1, 2}


def test_consecutive_failures_are_told_and_reset(make_stage: MakeStage) -> None:
    stage = make_stage(tokens=("dead", "one@example.com"), UPSTREAM_MODEL="m")
    stage.http.post("/v1/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": "x"}]})
    told = stage.admin("/tokens/consecutive-failures")
    assert TIME.fullmatch(told.pop("last_check"))
    assert told == {"consecutive_failures": 0, "threshold": 2, "token_pool_size": 2, "auto_refresh_enabled": False}
    stage.admin("/tokens/1/disable", "POST")
    stage.ask("hello")
    assert stage.admin("/tokens/consecutive-failures")["consecutive_failures"] == 1
    assert stage.admin("/tokens/reset-consecutive", "POST") == {"previous_count": 1, "current_count": 0}
    assert stage.admin("/tokens/consecutive-failures")["consecutive_failures"] == 0


def test_the_answers_have_the_documented_frame(stage: Stage) -> None:
    for path in ("reset-consecutive", "reset/0", "reset-all"):
        answer = stage.anyone.post(f"{stage.url}/admin/tokens/{path}").json()
        assert answer["status"] == "success"
        assert isinstance(answer["message"], str)


@pytest.mark.parametrize("index", ["3", "-1", "x", "1e3", "²", "99999999999999999999", "9" * 5000])
@pytest.mark.parametrize("call", ["reset/{}", "{}/disable", "{}/enable"])
def test_an_index_that_does_not_exist_is_a_400(stage: Stage, call: str, index: str) -> None:
    assert index[:20] in refused(stage.http.post(f"/admin/tokens/{call.format(index)}"))


def test_without_automatic_update_the_updater_says_so(stage: Stage) -> None:
    status = stage.http.get("/admin/tokens/updater/status")
    assert status.status_code == 200
    assert status.json()["status"] == "disabled"
    assert "ENABLE_TOKEN_AUTO_UPDATE" in refused(stage.http.post("/admin/tokens/updater/force-update"))


def test_the_updater_tells_what_it_does(make_stage: MakeStage) -> None:
    stage = make_stage(accounts=("one@example.com",), ENABLE_TOKEN_AUTO_UPDATE="true", TOKEN_UPDATE_INTERVAL="3600")
    before = stage.updater()
    assert (before["last_update"], before["update_count"]) == (None, 0)
    stage.admin("/tokens/updater/force-update", "POST")
    status = stage.updater()
    documented = {
        "is_running": True,
        "is_updating": False,
        "update_interval": 3600,
        "update_count": 1,
        "error_count": 0,
        "last_error": None,
        "files": {"get_tokens_script": True, "accounts_file": True, "tokens_file": True},
    }
    assert documented.items() <= status.items()
    assert isinstance(status["update_interval"], int)
    assert TIME.fullmatch(status["last_update"])
    assert TIME.fullmatch(status["next_update"])
    assert status["next_update"] > status["last_update"]


def test_reload_reads_the_file_again(make_stage: MakeStage) -> None:
    stage = make_stage(tokens=("one@example.com",))
    stage.tokens_file.write_text("\n".join(map(mint_token, ("two@example.com", "three@example.com"))))
    assert stage.admin("/tokens/reload", "POST")["total_tokens"] == 2
    stage.tokens_file.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in refused(stage.http.post("/admin/tokens/reload"))
    assert stage.admin("/tokens/stats")["total_tokens"] == 2


# Ours


def test_tokens_are_listed_page_by_page_and_masked(make_stage: MakeStage) -> None:
    emails = tuple(f"user{number}@example.com" for number in range(5))
    stage = make_stage(tokens=(*emails, "short"))
    page = stage.admin("/tokens", params={"offset": 4, "limit": 3})
    assert (page["total"], page["offset"], page["limit"]) == (6, 4, 3)
    last, short = page["tokens"]
    whole = stage.tokens_file.read_text().splitlines()[4]
    assert last["token"] == f"{whole[:4]}…{whole[-4:]}"
    assert short["token"] == "…"
    assert {"index": 4, "state": "active", "failures": 0, "in_flight": 0, "last_error": None}.items() <= last.items()
    assert TIME.fullmatch(last["expires_at"])
    assert stage.http.get("/admin/tokens", params={"limit": 0}).status_code == 400
    stage.admin("/tokens/2/disable", "POST")
    disabled = stage.admin("/tokens", params={"state": "disabled"})
    assert [token["index"] for token in disabled["tokens"]] == [2]
    assert disabled["tokens"][0]["reason"] == "disabled by hand"


def test_a_token_switched_off_by_hand_serves_again_only_when_switched_on(make_stage: MakeStage) -> None:
    stage = make_stage(tokens=("one@example.com", "two@example.com"))
    stage.admin("/tokens/0/disable", "POST")
    stage.admin("/tokens/reset-all", "POST")
    for _ in range(3):
        stage.answer("hello")
    assert {record["account"] for record in stage.seen()} == {"two@example.com"}
    stage.admin("/tokens/0/enable", "POST")
    for _ in range(2):
        stage.answer("hello")
    assert {record["account"] for record in stage.seen()} == {"one@example.com", "two@example.com"}


def test_tokens_are_added_and_removed_in_the_file_too(make_stage: MakeStage) -> None:
    stage = make_stage(tokens=("one@example.com",))
    stage.tokens_file.write_text("# mine\n" + stage.tokens_file.read_text())
    new = mint_token("two@example.com")
    added = stage.admin("/tokens", "POST", json={"tokens": [new, new]})
    assert (added["added"], added["total_tokens"]) == (1, 2)
    assert stage.tokens_file.read_text().startswith("# mine\n")
    assert new in stage.tokens_file.read_text()
    stage.admin("/tokens/0", "DELETE")
    stage.answer("hello")
    assert {record["account"] for record in stage.seen()} == {"two@example.com"}
    assert stage.tokens_file.read_text() == f"# mine\n{new}\n"
    assert stage.admin("/tokens/0", "DELETE")["total_tokens"] == 0
    assert "no upstream token" in stage.ask("hello").json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"tokens": "x"}', b'{"tokens": [1]}', b'{"tokens": ["a b"]}', b'{"tokens": ["a\\nb"]}',
     b'{"tokens": ["\xc3\xa4"]}', b'{"tokens": ["# x"]}', b'{"tokens": [""]}', b"\xff",
     b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
)  # fmt: skip
def test_what_is_no_token_is_refused(stage: Stage, body: bytes) -> None:
    before = stage.tokens_file.read_bytes()
    response = stage.http.post("/admin/tokens", content=body, headers={"content-type": "application/json"})
    refused(response)
    assert stage.tokens_file.read_bytes() == before


def test_how_a_request_was_served(make_stage: MakeStage) -> None:
    stage = make_stage(tokens=("dead", "one@example.com"))
    stage.http.get("/v1/models")
    stage.admin("/tokens/reset-all", "POST")
    stage.ask("hello")
    response = stage.ask("hello")
    told = stage.admin(f"/requests/{response.headers['x-request-id']}")
    assert (told["status"], told["model"], told["stream"]) == (200, "MBZUAI-IFM/K2-Think", False)
    assert told["completion_tokens"] > 0
    *failed, good = told["attempts"]
    assert all(attempt["failure"] == "upstream_rejected_token" for attempt in failed)
    assert (good["index"], good["failure"]) == (1, None)
    assert 0 <= good["sent_ms"] <= good["first_event_ms"] <= good["ended_ms"] <= told["ended_ms"]
    assert "no such request" in refused(stage.http.get("/admin/requests/req_unknown"), 404)


def test_no_admin_answer_holds_a_whole_token(make_stage: MakeStage) -> None:
    stage = make_stage(accounts=("one@example.com",), ENABLE_TOKEN_AUTO_UPDATE="true")
    tokens = stage.tokens_file.read_text().split()
    for method, path in CALLS:
        text = stage.http.request(method, path).text
        assert not any(token in text for token in tokens)
        assert "password" not in text


# Who may


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X-Envoy-External-Address": "203.0.113.7"},
        {"Connection": "close"},
        {"CF-Connecting-IP": "127.0.0.1"},
        {"Host": "gateway.example.com"},
        {"Host": "127.0.0.1.example.com"},
        {"Origin": "https://evil.example.com"},
        {"Origin": "null"},
        {"Referer": "https://evil.example.com/page"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_whoever_may_be_from_elsewhere_needs_a_key(
    stage: Stage, method: str, path: str, headers: dict[str, str]
) -> None:
    assert stage.anyone.request(method, stage.url + path, headers=headers).status_code == 401
    wrong = {"Authorization": "Bearer wrong", **headers}
    assert stage.anyone.request(method, stage.url + path, headers=wrong).status_code == 401


def test_a_key_opens_from_elsewhere(make_stage: MakeStage) -> None:
    elsewhere = {"X-Forwarded-For": "203.0.113.7"}
    plain = make_stage()
    assert plain.http.get("/admin/tokens/stats", headers=elsewhere).status_code == 200
    guarded = make_stage(ADMIN_API_KEY="sk-admin")
    assert guarded.http.get("/admin/tokens/stats", headers=elsewhere).status_code == 403
    admin = {"Authorization": "Bearer sk-admin"}
    assert guarded.anyone.get(f"{guarded.url}/admin/tokens/stats", headers=elsewhere | admin).status_code == 200
    assert guarded.anyone.get(f"{guarded.url}/v1/models", headers=admin).status_code == 401
    shut = make_stage(ADMIN_KEYLESS="false")
    assert shut.anyone.get(f"{shut.url}/admin/tokens/stats").status_code == 401
    assert shut.http.get("/admin/tokens/stats").status_code == 200
    # From this machine no key is needed, whichever is set.
    assert guarded.anyone.get(f"{guarded.url}/admin/tokens/stats").status_code == 200


def test_no_page_from_elsewhere_may_read_an_admin_answer(stage: Stage) -> None:
    headers = {"Origin": "https://evil.example.com", "Authorization": f"Bearer {KEY}"}
    response = stage.anyone.get(f"{stage.url}/admin/tokens/stats", headers=headers)
    assert "access-control-allow-origin" not in response.headers


def scope(client: tuple[str, int] | None, *headers: tuple[bytes, bytes], version: str = "1.1") -> dict[str, Any]:
    return {"type": "http", "client": client, "headers": list(headers), "http_version": version}


@pytest.mark.parametrize("host", [b"localhost:8001", b"127.0.0.1", b"127.0.0.1:8001", b"[::1]:8001", b"LOCALHOST"])
@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_known_by_its_loopback_addresses(client: str, host: bytes) -> None:
    assert is_from_this_machine(scope((client, 5), (b"host", host)))


@pytest.mark.parametrize(
    "asked",
    [
        scope(None, (b"host", b"localhost")),
        scope(("", 0), (b"host", b"localhost")),
        scope(("192.168.1.5", 5), (b"host", b"localhost")),
        scope(("::ffff:10.0.0.1", 5), (b"host", b"localhost")),
        scope(("172.17.0.1", 5), (b"host", b"localhost")),
        scope(("127.0.0.1", 5)),
        scope(("127.0.0.1", 5), (b"host", b"")),
        scope(("127.0.0.1", 5), (b"host", b"localhost"), (b"host", b"localhost")),
        scope(("127.0.0.1", 5), (b"host", b"\xff")),
        scope(("127.0.0.1", 5), (b"host", b"[::1")),
        scope(("127.0.0.1", 5), (b"host", b"localhost.example.com")),
        scope(("127.0.0.1", 5), (b"host", b"evil.example.com@localhost")),
        scope(("127.0.0.1", 5), (b"host", b"localhost"), (b"x-forwarded-proto", b"https")),
        scope(("127.0.0.1", 5), (b"host", b"localhost"), version="1.0"),
    ],
    ids=str,
)
def test_in_doubt_it_is_not_this_machine(asked: dict[str, Any]) -> None:
    assert not is_from_this_machine(asked)
