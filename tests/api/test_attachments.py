"""Files and images in a chat, through the whole house: what the client attaches, and what the upstream receives."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import httpx2 as httpx
import pytest
from conftest import KEY, MODEL, MakeStage, Stage, staging
from hostile_files import BAD_ARCHIVES, CODES, HOSTILE
from hostile_urls import HOSTILE_URLS
from samples import FACT, SAMPLES, image, pdf, word

from k2think.simulator.app import SimulatorOptions

OTHER_KEY = "sk-other-key"
BLIND = SimulatorOptions(models=(MODEL,), vision=False)
PNG = image("PNG", (40, 30))
TESTED_ELSEWHERE = {"pdf-bomb", "pdf-forms-in-a-circle", *BAD_ARCHIVES} - {"docx-laughs", "xlsx-bomb"}
"""Files that use up all the time they get, and those that all are refused by the same look over an archive."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staging(tmp_path_factory.mktemp("attachments")) as make:
        yield make(options=BLIND, VALID_API_KEY=f"{KEY},{OTHER_KEY}", ALLOW_URL_FETCH="true")


def upload(stage: Stage, name: str, content: bytes) -> str:
    answer = stage.http.post("/v1/files", files={"file": (name, content)}, data={"purpose": "user_data"})
    assert answer.status_code == 200, answer.text
    file_id: str = answer.json()["id"]
    return file_id


def inline(content: bytes, kind: str = "") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def file(**fields: str) -> dict[str, Any]:
    return {"type": "file", "file": fields}


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def ask(stage: Stage, *parts: dict[str, Any], key: str = KEY, **fields: Any) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": list(parts)}], **fields}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    return stage.http.post("/v1/chat/completions", content=json.dumps(body), headers=headers)


def received(stage: Stage) -> list[dict[str, Any]]:
    """The turns of the last chat, as the upstream got them."""
    turns: list[dict[str, Any]] = stage.seen()[-1]["body"]["messages"]
    return turns


def problem(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    assert error["message"]
    return response.status_code, error["code"], error["param"]


@pytest.mark.parametrize("kind", ["pdf", "docx", "xlsx", "pptx", "html", "text-gb18030", "json"])
def test_the_fact_in_a_file_reaches_the_upstream(stage: Stage, kind: str) -> None:
    name, content, fact = SAMPLES[kind]()
    for part in (
        file(file_id=upload(stage, name, content)),
        file(file_data=inline(content), filename=name),
    ):
        assert ask(stage, text("What is the password?"), part).status_code == 200
        (turn,) = received(stage)
        assert turn["content"].startswith(f'What is the password?\n\n<file name="{name}">\n')
        assert fact in turn["content"]


def test_a_stream_gets_the_file_too_and_texts_keep_their_places(stage: Stage) -> None:
    one, two = upload(stage, "one.txt", b"First."), upload(stage, "two.txt", b"Second.")
    parts = [text("Compare"), file(file_id=one), text("with"), file(file_id=two), text("please.")]
    answer = ask(stage, *parts, stream=True)
    assert answer.status_code == 200
    assert answer.text.endswith("data: [DONE]\n\n")
    (turn,) = received(stage)
    places = [turn["content"].index(piece) for piece in ("Compare", "First.", "with", "Second.", "please.")]
    assert places == sorted(places)


def test_what_does_not_fit_the_budget_is_said(make_stage: MakeStage) -> None:
    stage = make_stage(options=BLIND, FILE_TEXT_BUDGET="20")
    assert ask(stage, file(file_data=inline(b"a" * 50), filename="a.txt"), n=2).status_code == 200
    for chat in stage.seen():
        content = chat["body"]["messages"][0]["content"]
        assert "\n" + "a" * 20 + "\n[Left out here, because the file is too long: 30 more characters.]" in content


def test_a_file_of_another_key_is_none(stage: Stage) -> None:
    mine = upload(stage, "a.txt", b"Mine.")
    assert ask(stage, file(file_id=mine)).status_code == 200
    refused = problem(ask(stage, file(file_id=mine), key=OTHER_KEY))
    assert refused == (404, "file_not_found", "messages[0].content[0].file.file_id")
    assert problem(ask(stage, text("x"), picture("file-0")))[1] == "image_not_supported"


def test_a_deleted_file_is_none(stage: Stage) -> None:
    gone = upload(stage, "a.txt", b"Gone.")
    assert stage.http.delete(f"/v1/files/{gone}").status_code == 200
    assert problem(ask(stage, file(file_id=gone)))[:2] == (404, "file_not_found")


def test_a_file_over_the_limit_is_refused_inline_too(make_stage: MakeStage) -> None:
    stage = make_stage(options=BLIND, MAX_FILE_MB="1")
    refused = problem(ask(stage, file(file_data=inline(bytes(1024**2 + 1)), filename="a.txt")))
    assert refused == (413, "file_too_large", "messages[0].content[0].file.file_data")


def test_too_many_are_refused(stage: Stage) -> None:
    parts = [file(file_data=inline(b"x"), filename="a.txt")] * 101
    assert problem(ask(stage, *parts)) == (400, "too_many_files", "messages")


# Images


def test_an_image_is_refused_for_a_model_that_cannot_see(stage: Stage) -> None:
    chats = len(stage.seen())
    at = "messages[0].content[1]"
    for url in (inline(PNG, "image/png"), upload(stage, "a.png", PNG), "https://example.com/a.png"):
        refused = problem(ask(stage, text("What is this?"), picture(url)))
        assert refused == (400, "image_not_supported", f"{at}.image_url.url")
    refused = problem(ask(stage, text("What is this?"), file(file_data=inline(PNG), filename="a.txt")))
    assert refused == (400, "image_not_supported", f"{at}.file.file_data")
    assert len(stage.seen()) == chats


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (SimulatorOptions(models=(MODEL,), vision=True), {}),
        (BLIND, {"UPSTREAM_VISION": "true"}),
        (SimulatorOptions(models=(MODEL,), vision=True), {"path": "/v1/chat/completions", "UPSTREAM_VISION": "true"}),
    ],
)
def test_a_model_that_sees_gets_the_image(
    make_stage: MakeStage, options: SimulatorOptions, settings: dict[str, str]
) -> None:
    stage = make_stage(options=options, **settings)
    parts = [text("a"), picture(inline(PNG, "image/jpeg")), text("b"), file(file_data=inline(b"c"), filename="c.txt")]
    assert ask(stage, *parts).status_code == 200
    (turn,) = received(stage)
    assert turn["content"] == [
        text("a"),
        picture(inline(PNG, "image/png")),  # what it is, not what it was said to be
        text('b\n\n<file name="c.txt">\nc\n</file>'),
    ]


def test_vision_can_be_denied(make_stage: MakeStage) -> None:
    stage = make_stage(options=SimulatorOptions(models=(MODEL,), vision=True), UPSTREAM_VISION="false")
    assert problem(ask(stage, picture(inline(PNG))))[1] == "image_not_supported"


def test_a_service_that_cannot_be_asked_is_taken_to_be_blind(make_stage: MakeStage) -> None:
    stage = make_stage(UPSTREAM_MODEL="m", K2THINK_API_URL="http://127.0.0.1:1/api/chat/completions")
    assert problem(ask(stage, picture(inline(PNG))))[:2] == (400, "image_not_supported")


def test_an_image_is_described_where_it_cannot_be_seen(make_stage: MakeStage) -> None:
    stage = make_stage(options=BLIND, IMAGE_MODE="describe")
    name = upload(stage, "a.png", PNG)
    assert ask(stage, text("What is this?"), picture(name), picture(inline(PNG))).status_code == 200
    (turn,) = received(stage)
    assert turn["content"].startswith(f'What is this?\n\n[Image "a.png": PNG, 40 × 30 pixels, {len(PNG)} bytes. ')


def test_what_is_no_image_is_refused_as_one(make_stage: MakeStage) -> None:
    stage = make_stage(options=SimulatorOptions(models=(MODEL,), vision=True))
    for content in (b"", b"Hello", pdf("Hello"), PNG[:40]):
        assert problem(ask(stage, picture(inline(content, "image/png"))))[:2] == (400, "invalid_image")


def test_a_drawing_in_svg_is_a_text(stage: Stage) -> None:
    drawing = b"<svg xmlns='http://www.w3.org/2000/svg'><text>BLUE WHALE</text></svg>"
    assert ask(stage, file(file_data=inline(drawing), filename="a.svg")).status_code == 200
    assert "BLUE WHALE" in received(stage)[0]["content"]
    assert problem(ask(stage, picture(inline(drawing, "image/svg+xml"))))[0] == 400


# Files that the upstream reads


@pytest.mark.parametrize("release", ["0.6.28", "0.12.4"])
def test_the_service_gets_the_file_once_for_each_account(make_stage: MakeStage, release: Any) -> None:
    options = SimulatorOptions(models=(MODEL,), release=release)
    stage = make_stage(options=options, tokens=("one@example.com", "two@example.com"), FILE_MODE="upstream")
    content = word(FACT)
    part = file(file_id=upload(stage, "log.docx", content))
    for _ in range(4):
        assert ask(stage, text("What is the password?"), part).status_code == 200
    uploads = stage.anyone.get(f"{stage.simulator_url}/simulator/files").json()["files"]
    assert {one["sha256"] for one in uploads} == {hashlib.sha256(content).hexdigest()}
    assert sorted(one["account"] for one in uploads) == ["one@example.com", "two@example.com"]
    ids = {one["account"]: one["id"] for one in uploads}
    for chat in stage.seen():
        assert [named["id"] for named in chat["body"]["files"]] == [ids[chat["account"]]]
        assert chat["body"]["messages"] == [{"role": "user", "content": "What is the password?"}]
    assert ask(stage, part).status_code == 200
    assert received(stage) == [{"role": "user", "content": '[The file "log.docx" is attached.]'}]


def test_a_token_that_dies_between_upload_and_chat_costs_one_upload(make_stage: MakeStage) -> None:
    stage = make_stage(
        options=BLIND,
        tokens=("one@example.com", "two@example.com"),
        FILE_MODE="upstream",
        TOKEN_STRATEGY="sticky",
    )
    part = file(file_id=upload(stage, "facts.txt", FACT.encode()))
    asked = {"user": "me"}
    assert ask(stage, text("What?"), part, **asked).status_code == 200
    first = stage.seen()[-1]["account"]
    stage.anyone.post(f"{stage.simulator_url}/simulator/revoke", json={"email": first})
    for _ in range(2):
        assert ask(stage, text("What?"), part, **asked).status_code == 200
    last = stage.seen()[-1]
    assert last["account"] != first
    assert FACT in str(last["seen"])
    uploads = stage.anyone.get(f"{stage.simulator_url}/simulator/files").json()["files"]
    assert sorted(one["account"] for one in uploads) == ["one@example.com", "two@example.com"]


@pytest.mark.parametrize("fault", ["uploads_refused", "files_too_large", "files_fail"])
def test_the_text_is_used_where_the_service_cannot_read_the_file(make_stage: MakeStage, fault: str) -> None:
    options = SimulatorOptions(models=(MODEL,), file_faults=(fault,))
    stage = make_stage(options=options, FILE_MODE="upstream")
    assert ask(stage, text("What?"), file(file_data=inline(pdf(FACT)), filename="log.pdf")).status_code == 200
    body = stage.seen()[-1]["body"]
    assert "files" not in body
    assert FACT in body["messages"][0]["content"]


def test_a_file_that_nobody_can_read_is_named(make_stage: MakeStage) -> None:
    stage = make_stage(options=SimulatorOptions(models=(MODEL,), file_faults=("files_fail",)), FILE_MODE="upstream")
    name, content = HOSTILE["pdf-encrypted"]()
    refused = problem(ask(stage, file(file_data=inline(content), filename=name)))
    assert refused == (400, "file_encrypted", "messages[0].content[0].file.file_data")


# What is meant to do harm


def test_no_hostile_file_gets_through_and_none_holds_up_a_question_beside_it(stage: Stage) -> None:
    def send(make: Any) -> httpx.Response:
        name, content = make()
        return ask(stage, text("What is this?"), file(file_data=inline(content), filename=name))

    chats = len(stage.seen())
    with ThreadPoolExecutor(4) as threads:
        sent = {kind: threads.submit(send, make) for kind, make in HOSTILE.items() if kind not in TESTED_ELSEWHERE}
        asked = 0
        while wait(sent.values(), timeout=0.5).not_done:
            assert "391" in stage.answer("What is 17 * 23?")["content"]
            asked += 1
    assert asked
    answers = {kind: problem(one.result()) for kind, one in sent.items()}
    assert {kind: answer for kind, answer in answers.items() if answer[0] != 400} == {}
    expected = {kind: CODES.get(kind, code) for kind, (_, code, _) in answers.items()}
    assert {kind: code for kind, (_, code, _) in answers.items()} == expected
    assert {param for _, _, param in answers.values()} == {"messages[0].content[1].file.file_data"}
    assert len(stage.seen()) <= min(chats + asked, 200)


def test_no_hostile_url_is_fetched(make_stage: MakeStage) -> None:
    stage = make_stage(options=BLIND, ALLOW_URL_FETCH="true", UPSTREAM_VISION="true")
    for url in HOSTILE_URLS.values():
        status, code, _ = problem(ask(stage, picture(url)))
        assert (status, code in {"url_not_allowed", "invalid_value", "invalid_json"}) == (400, True), url
    own = f"{stage.url}/health"
    assert problem(ask(stage, picture(own)))[:2] == (400, "url_not_allowed")
    assert stage.seen() == []


def test_nothing_is_fetched_unless_that_is_allowed(make_stage: MakeStage) -> None:
    stage = make_stage(options=BLIND, UPSTREAM_VISION="true")
    refused = problem(ask(stage, picture("https://example.com/a.png")))
    assert refused == (400, "url_fetch_disabled", "messages[0].content[0].image_url.url")


def test_an_upload_is_what_its_bytes_are(stage: Stage) -> None:
    with io.BytesIO(pdf(FACT)) as content:
        part = file(file_id=upload(stage, "harmless.txt", content.read()))
    assert ask(stage, text("What?"), part).status_code == 200
    assert FACT in received(stage)[0]["content"]
