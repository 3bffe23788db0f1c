"""What the web service is sent."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2think.dialogue.prompt import Message, Prompt, Role, Sampling
from k2think.upstreams.k2think.protocol import (
    auths_url,
    files_url,
    headers,
    models_url,
    payload,
    sign_in_payload,
    upload_ends,
)
from k2think.upstreams.turns import fold


def m(role: Role, text: str) -> Message:
    return Message(role, text)


@pytest.mark.parametrize(
    ("messages", "folded"),
    [
        ([m("user", "a")], ["user:a"]),
        ([m("system", "s"), m("user", "a")], ["system:s", "user:a"]),
        ([m("user", "a"), m("system", "s"), m("user", "b")], ["system:s", "user:a\n\nb"]),
        ([m("system", "s"), m("system", "t"), m("user", "a")], ["system:s\n\nt", "user:a"]),
        ([m("user", "a"), m("assistant", "b"), m("user", "c")], ["user:a", "assistant:b", "user:c"]),
        ([m("user", "a"), m("assistant", "b")], ["user:a", "assistant:b", "user:Continue."]),
        ([m("user", "a"), m("assistant", ""), m("user", "c")], ["user:a", "assistant:", "user:c"]),
        ([m("system", "s")], ["user:s"]),
        ([m("user", "a"), m("tool", "t")], ["user:a\n\nt"]),
    ],
)
def test_a_conversation_is_folded_into_what_the_template_keeps(messages: list[Message], folded: list[str]) -> None:
    assert [f"{turn['role']}:{turn['content']}" for turn in fold(messages)] == folded


@given(
    st.lists(st.builds(m, st.sampled_from(["system", "user", "assistant", "tool"]), st.text(max_size=5)), min_size=1)
)
def test_whatever_the_conversation_the_template_can_write_it_and_no_text_is_lost(messages: list[Message]) -> None:
    turns = fold(messages)
    roles = [turn["role"] for turn in turns]
    rest = roles[1:] if roles[0] == "system" else roles
    assert rest
    assert rest[-1] == "user"
    assert all(a != b for a, b in itertools.pairwise(rest))
    everything = "\n".join(turn["content"] for turn in turns)
    assert all(message.text in everything for message in messages)


def test_the_payload_carries_sampling_twice_and_no_ids() -> None:
    prompt = Prompt("x", (m("user", "a"),), Sampling(temperature=0.5, max_tokens=9, stop=("E",), logit_bias={"1": 2}))
    assert json.loads(payload(prompt, "the-id")) == {
        "stream": True,
        "stream_options": {"include_usage": True},
        "model": "the-id",
        "messages": [{"role": "user", "content": "a"}],
        "temperature": 0.5,
        "max_tokens": 9,
        "stop": ["E"],
        "params": {"temperature": 0.5, "max_tokens": 9, "stop": ["E"]},
    }


def test_the_token_goes_as_bearer_and_as_cookie() -> None:
    assert headers("t") == {"Authorization": "Bearer t", "Cookie": "token=t"}


@pytest.mark.parametrize(
    ("chat", "models"),
    [
        ("https://www.k2think.ai/api/chat/completions", "https://www.k2think.ai/api/models"),
        ("http://h:1/prefix/api/chat/completions/", "http://h:1/prefix/api/models"),
        ("http://h/openai/chat/completions", "http://h/openai/models"),
    ],
)
def test_the_models_route_stands_beside_the_chat_route(chat: str, models: str) -> None:
    assert models_url(chat) == models


@pytest.mark.parametrize(
    ("chat", "auths"),
    [
        ("https://www.k2think.ai/api/chat/completions", "https://www.k2think.ai/api/v1/auths/"),
        ("https://h/api/guest/chat/completions?x=1", "https://h/api/v1/auths/"),
        ("http://h:1/api/v1/chat/completions", "http://h:1/api/v1/auths/"),
        ("http://h:1/a/prefix/api/chat/completions/", "http://h:1/a/prefix/api/v1/auths/"),
        ("http://h/api/below/api/chat/completions", "http://h/api/below/api/v1/auths/"),
        ("http://h/prefix/openai/chat/completions", "http://h/prefix/api/v1/auths/"),
        ("http://h/elsewhere", "http://h/api/v1/auths/"),
    ],
)
def test_sign_in_and_files_are_where_the_service_is(chat: str, auths: str) -> None:
    assert auths_url(chat) == auths
    assert auths_url(chat, "signin") == f"{auths}signin"
    assert files_url(chat) == auths.replace("/auths/", "/files/")
    assert files_url(chat, "an-id/process/status") == auths.replace("/auths/", "/files/an-id/process/status")


def test_a_sign_in_carries_the_password_as_it_is() -> None:
    password = ' "ünï\\\n '
    assert json.loads(sign_in_payload("a@example.com", password)) == {"email": "a@example.com", "password": password}


def test_files_are_named_by_their_ids_and_nothing_is_said_of_none() -> None:
    prompt = Prompt("x", (m("user", "a"),))
    without = json.loads(payload(prompt, "the-id"))
    assert "files" not in without
    files = [{"type": "file", "id": "one"}, {"type": "file", "id": "two"}]
    assert json.loads(payload(prompt, "the-id", ("one", "two"))) == {**without, "files": files}


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a.txt", b"a.txt"),
        ("résumé 你好.txt", "résumé 你好.txt".encode()),
        ('a"\r\nX-Evil: 1\r\n\r\n.txt', b"a%22%0D%0AX-Evil: 1%0D%0A%0D%0A.txt"),
        ("a\udc80\\%22.txt", b"a?\\%22.txt"),
        ("", b"file"),
    ],
)
def test_an_upload_is_a_form_as_a_browser_writes_it(name: str, written: bytes) -> None:
    head, tail = upload_ends(name, "text/plain", "b0")
    disposition = b'Content-Disposition: form-data; name="file"; filename="' + written + b'"'
    assert head == b"--b0\r\n" + disposition + b"\r\nContent-Type: text/plain\r\n\r\n"
    assert tail == b"\r\n--b0--\r\n"


RECORDINGS = Path(__file__).parents[3] / "shared" / "open-webui"


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the shared cases are not beside the project")
@pytest.mark.parametrize("name", ["file_upload_text", "file_upload_unicode_name"])
@pytest.mark.parametrize("release", ["0.6.28", "0.12.4"])
def test_an_upload_is_the_one_that_the_service_took(name: str, release: str) -> None:
    recorded = json.loads((RECORDINGS / release / f"{name}.json").read_text())
    meta = recorded["response"]["body_json"]["meta"]
    head, tail = upload_ends(meta["name"], meta["content_type"], "----recorderboundary7f3a")
    body = recorded["request"]["body"].encode()
    assert body.startswith(head)
    assert body.endswith(tail)
    assert len(body) == len(head) + meta["size"] + len(tail)
