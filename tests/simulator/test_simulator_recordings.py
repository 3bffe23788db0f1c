"""The simulator answers as two releases of the real Open WebUI were recorded to: status, headers, framing, fields."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from rawhttp import RawAnswer, request
from serving import serving

from k2think.simulator.app import Account, Release, Simulator, SimulatorOptions, create_simulator, mint_token
from k2think.simulator.tokens import BadToken, read_token, session_claims, sign

RECORDINGS = Path(__file__).parent.parent / "transcripts" / "open-webui"
RELEASES = get_args(Release)
MODEL = "MBZUAI-IFM/K2-Think"
EMAIL, PASSWORD = "user1@example.com", "User-pass-1"

# What the recorded model server wrote, and how this one is told to write the same.
THINKING = "\nThe user said something. Let me think: 6*7 = 42.\n"
ANSWER = "The answer is **42**. 你好 🙂"
SAY = f"[[say]]<think>{THINKING}</think><answer>{ANSWER}</answer>"
SCRIPTS = {
    "[[length]]": f"[[finish=length]]{SAY}",
    "[[comment]]": f"[[form=comments]]{SAY}",
    "[[reasoning]]": f'[[shape=reasoning_content think="{THINKING}" answer="{ANSWER}"]]',
    "[[tool]]": """[[shape=plain answer="" call=get_weather args='{"city": "Paris"}']]""",
    "[[cut]]": f"[[fault=cut]]{SAY}",
    "[[drop]]": f"[[fault=backend_down]]{SAY}",
    "[[nodone]]": f"[[fault=nodone]]{SAY}",
    "[[sseerror]]": f"[[fault=error_mid_stream after=3]]{SAY}",
    "[[json]]": f"[[fault=json_on_stream]]{SAY}",
    "[[err:401]]": "[[fault=backend_401]]",
    "[[err:403]]": "[[fault=backend_403]]",
    "[[err:429]]": "[[fault=429_retry_after]]",
}
VOLATILE = {"id", "token", "user_id", "version_id", "expires_at", "created", "created_at", "updated_at", "task_id"}
FREE = {"name", "description", "prompt_tokens", "completion_tokens", "total_tokens", "request_id", "profile_image_url"}


def recording(release: Release, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((RECORDINGS / release / f"{name}.json").read_text())
    return loaded


def names(*prefixes: str) -> list[str]:
    found = sorted(path.stem for path in (RECORDINGS / "0.12.4").glob("*.json"))
    return [name for name in found if name.startswith(prefixes) and name != "token_payload"]


@pytest.fixture(scope="module", params=RELEASES)
def simulated(request: pytest.FixtureRequest) -> Iterator[tuple[Release, str, Simulator]]:
    accounts = {
        EMAIL: Account(password=PASSWORD),
        "pending@example.com": Account(role="pending"),
        "other@example.com": Account(),
    }
    app = create_simulator(SimulatorOptions(release=request.param, models=(MODEL,), accounts=accounts))
    with serving(app) as base:
        yield request.param, base, app


@pytest.mark.parametrize("name", names("signin_", "session_", "health", "api_", "models_", "chat_get", "file_"))
def test_sign_in_session_and_models_are_answered_as_recorded(
    simulated: tuple[Release, str, Simulator], name: str
) -> None:
    release, base, _ = simulated
    if name == "signin_rate_limited":
        for _ in range(15):
            replay(release, base, name)
    same(recording(release, name)["response"], replay(release, base, name))


@pytest.mark.parametrize("name", names("token_", "pending_", "deleted_"))
def test_tokens_are_judged_as_recorded(simulated: tuple[Release, str, Simulator], name: str) -> None:
    release, base, _ = simulated
    same(recording(release, name)["response"], replay(release, base, name, token=token_for(release, name)))


def test_a_revoked_token_is_refused_as_after_a_recorded_change_of_password() -> None:
    app = create_simulator(SimulatorOptions(release="0.12.4", models=(MODEL,)))
    with serving(app) as base:
        old = mint_token(EMAIL)
        app.state.revoke(EMAIL)
        name = "password_change_old_token"
        same(recording("0.12.4", name)["response"], replay("0.12.4", base, name, token=old))


@pytest.mark.parametrize("name", names("chat_", "upstream_", "backend_"))
def test_chats_and_failures_are_answered_as_recorded(simulated: tuple[Release, str, Simulator], name: str) -> None:
    release, base, _ = simulated
    script = {
        "backend_down_chat_after_models": "[[fault=404_model]]",
        "backend_down_chat_stream": "[[fault=backend_down]]",
    }
    same(recording(release, name)["response"], replay(release, base, name, script=script.get(name, "")))


@pytest.mark.parametrize("name", names("web_"))
def test_the_web_pages_payload_is_answered_as_recorded(simulated: tuple[Release, str, Simulator], name: str) -> None:
    release, base, app = simulated
    if "random_ids" in name:
        options = SimulatorOptions(release=release, models=(MODEL,), chats_exist=False)
        with serving(create_simulator(options)) as other:
            same(recording(release, name)["response"], replay(release, other, name))
    else:
        same(recording(release, name)["response"], replay(release, base, name))
    assert not app.state.open


@pytest.mark.parametrize("release", RELEASES)
def test_a_tokens_payload_has_the_recorded_fields_in_their_order(release: Release) -> None:
    recorded = json.loads((RECORDINGS / release / "token_payload.json").read_text())
    app = create_simulator(SimulatorOptions(release=release))
    token, expires = app.state.session(EMAIL, 1795327784.5)
    header, payload, _ = (base64.urlsafe_b64decode(part + "===") for part in token.split("."))
    assert json.loads(header) == recorded["header"]
    claims = json.loads(payload)
    assert form(claims) == form(recorded["payload"])
    if recorded["lifetime_s"] is None:
        assert expires is None and len(token) == 141
    else:
        assert expires == claims["exp"] == claims["iat"] + recorded["lifetime_s"] and len(token) == 433


def test_0_6_28_gives_the_same_token_twice_and_0_12_4_does_not() -> None:
    old, new = (create_simulator(SimulatorOptions(release=release)).state for release in RELEASES)
    assert old.session(EMAIL, 1.0) == old.session(EMAIL, 2.0)
    assert new.session(EMAIL, 1.0) != new.session(EMAIL, 1.0)


def replay(release: Release, base: str, name: str, *, token: str = "", script: str = "") -> RawAnswer:
    """Send a recorded request, with a token of ours and directives of ours."""
    asked = recording(release, name)["request"]
    token = token or mint_token(EMAIL, release=release, ttl=None if release == "0.6.28" else 3600)
    headers = {key: value.replace("JWT", token) for key, value in asked["headers"]}
    if name.startswith("pending"):
        headers["Authorization"] = f"Bearer {token}"
    body = asked["body"]
    if isinstance(body, dict) and "messages" in body:
        for message in body["messages"]:
            message["content"] = script or scripted(message["content"])
    payload = body.encode() if isinstance(body, str) else body
    return request(base, asked["method"], asked["path"], headers=headers, body=payload or None)


def scripted(content: str) -> str:
    if content in SCRIPTS:
        return SCRIPTS[content]
    status = re.fullmatch(r"\[\[err:(\d+)(?::(\w+))?\]\]", content)
    return f"[[fault={'_'.join(part for part in status.groups() if part)}]]" if status else SAY


def token_for(release: Release, name: str) -> str:
    """The token that a recording is about."""
    good = mint_token(EMAIL, release=release)
    special = {
        "token_bad_signature": good[:-6] + "AAAAAA",
        "token_deleted_user": sign({"id": "f1e1eb4d-8844-46e6-b815-1736ef5d7e54"}, SimulatorOptions().secret),
        "deleted_user_token": mint_token("gone@example.com", release=release),
    }
    if name.startswith("token_expired"):
        return mint_token(EMAIL, release=release, ttl=-60)
    if name.startswith("pending"):
        return mint_token("pending@example.com", release=release)
    return special.get(name, good)


def same(recorded: dict[str, Any], answer: RawAnswer) -> None:
    assert answer.status == recorded["status"]
    assert answer.framing == recorded["framing"]
    for name in ("content-type", "cache-control", "content-encoding"):
        assert answer.header(name) == dict(recorded["headers"]).get(name), name
    if answer.header("retry-after") is not None:  # the recorded model server sent it with every 429
        assert answer.header("retry-after") == dict(recorded["headers"])["retry-after"]
    assert cookie_form(answer) == cookie_form(recorded)
    body = gzip.decompress(answer.body) if answer.header("content-encoding") == "gzip" else answer.body
    if "body_json" in recorded:
        assert masked(json.loads(body)) == masked(recorded["body_json"])
        assert form(json.loads(body)) == form(recorded["body_json"])
    elif str(recorded.get("body")).startswith("<!doctype"):
        assert body.startswith(recorded["body"].encode())
    elif "body" in recorded:
        assert unstamped(body.decode()) == unstamped(recorded["body"])
    else:
        assert body.startswith(b"data: {") and body.endswith(b"data: [DONE]\n\n")


def cookie_form(answer: RawAnswer | dict[str, Any]) -> list[str]:
    """A cookie's attributes in order, without what changes."""
    headers = answer.headers if isinstance(answer, RawAnswer) else answer["headers"]
    cookie = dict(headers).get("set-cookie", "")
    cookie = re.sub(r"^token=[^;]+", "token=", re.sub(r"expires=[^;]+", "expires=", cookie))
    return [re.sub(r"Max-Age=2419\d\d\d|Max-Age=3[56]\d\d", "Max-Age=", part) for part in cookie.split("; ")]


def form(value: Any) -> Any:
    """Names in their order, and types, all the way down."""
    if isinstance(value, dict):
        return [(name, form(inner)) for name, inner in value.items()]
    if isinstance(value, list):
        return [form(inner) for inner in value]
    return type(value).__name__


def masked(value: Any) -> Any:
    """All values but those that differ from run to run or say what an installation is called."""
    if isinstance(value, dict):
        return {
            name: "*" if name in VOLATILE | FREE and not isinstance(inner, dict) and inner != MODEL else masked(inner)
            for name, inner in value.items()
            if name != "task_ids"
        }
    return [masked(inner) for inner in value] if isinstance(value, list) else value


def unstamped(events: str) -> str:
    """A stream without ids, times and counts of the prompt."""
    events = re.sub(r'"id": "chatcmpl-\w+", "created": \d+', '"id": "*", "created": 0', events)
    return re.sub(r'"prompt_tokens": \d+(.*)"total_tokens": \d+', r'"prompt_tokens": 0\1"total_tokens": 0', events)


def test_a_token_is_good_for_who_knows_the_secret_until_it_expires() -> None:
    claims = session_claims(EMAIL, ttl=60, release="0.12.4", now=1000)
    assert read_token(sign(claims, "a"), "a", 1059.0) == claims
    for token, secret, now in ((sign(claims, "a"), "b", 1059.0), (sign(claims, "a"), "a", 1060.0), ("é.x.y", "a", 0.0)):
        with pytest.raises(BadToken):
            read_token(token, secret, now)


def test_retry_after_reaches_clients_of_0_12_4_only(simulated: tuple[Release, str, Simulator]) -> None:
    release, base, _ = simulated
    answer = replay(release, base, "upstream_429_stream")
    assert answer.header("retry-after") == (None if release == "0.6.28" else "7")
