"""The simulator's files and images: answered as two releases were recorded to, seen by the model, broken on purpose."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from rawhttp import RawAnswer, connected, request
from serving import serving

from k2think.simulator.app import Account, Release, Simulator, SimulatorOptions, create_simulator, mint_token
from k2think.simulator.options import FILE_FAULTS
from k2think.simulator.uploads import MAX_BYTES, MAX_FILES, UploadedFile, Uploads

RECORDINGS = Path(__file__).parent.parent / "transcripts" / "open-webui"
RELEASES = get_args(Release)
MODEL = SimulatorOptions().models[0]
OWNER, OTHER = "owner@example.com", "other@example.com"
FACT = "The secret word is XYLOPHONE. 你好"
PICTURE = b"\x89PNG picture"
DATA_URL = "data:image/png;base64," + base64.b64encode(PICTURE).decode()


@pytest.fixture(scope="module", params=RELEASES)
def playing(request: pytest.FixtureRequest) -> Iterator[tuple[Release, str, Simulator]]:
    app = create_simulator(SimulatorOptions(release=request.param, accounts={OWNER: Account(), OTHER: Account()}))
    with serving(app) as base:
        yield request.param, base, app


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, Simulator]]:
    """The newer release, where each fault of files is one account's."""
    accounts = {f"{name}@example.com": Account(faults=(name,)) for name in FILE_FAULTS} | {OWNER: Account()}
    app = create_simulator(SimulatorOptions(accounts=accounts, vision=False))
    with serving(app) as base:
        yield base, app


def test_files_are_answered_as_recorded(playing: tuple[Release, str, Simulator]) -> None:
    release, base, app = playing
    app.state.reset()
    recorded = json.loads((RECORDINGS / release / "files.json").read_text())
    ids: dict[str, str] = {}
    # They stand in the order in which they were recorded, so that each finds the files that were there then.
    for name, exchange in recorded["exchanges"].items():
        asked, expected = exchange["request"], exchange["response"]
        path = asked["path"]
        for theirs, ours in ids.items():
            path = path.replace(theirs, ours)
        answer = request(base, asked["method"], path, headers=headers_of(asked, release), body=raw(asked["body"]))
        assert (name, answer.status, answer.framing) == (name, expected["status"], expected["framing"])
        for header in ("content-type", "content-disposition", "cache-control"):
            assert (name, answer.header(header)) == (name, expected["headers"].get(header))
        if "body_json" not in expected:
            assert (name, answer.body) == (name, raw(expected["body"]))
            continue
        if answer.status == 200 and name.startswith("file_upload"):
            ids[expected["body_json"]["id"]] = answer.json()["id"]
        text = answer.body.decode()
        for theirs, ours in ids.items():
            text = text.replace(ours, theirs)
        if (name, release) == ("file_status_1", "0.12.4"):  # was asked while the file was being processed
            assert set(json.loads(text)) == set(expected["body_json"])
        else:
            assert (name, comparable(json.loads(text))) == (name, comparable(expected["body_json"]))


def test_a_file_reaches_the_model_and_its_source_the_client(playing: tuple[Release, str, Simulator]) -> None:
    release, base, _ = playing
    recorded = json.loads((RECORDINGS / release / "files.json").read_text())
    file_id = upload(base, f"{FACT}\n{FACT}\n{FACT}\n", name="notes.txt").json()["id"]
    answer = chat(base, "Which word?", stream=True, files=[{"type": "file", "id": file_id}])
    event, _, rest = answer.body.partition(b"\n\n")
    theirs, ours = recorded["chat_stream"]["first_event"], event.decode()
    assert ours.startswith(theirs[:20]) and ("你好" in ours) == ("你好" in theirs)
    (mine,), (real,) = (json.loads(text.removeprefix("data: "))["sources"] for text in (ours, theirs))
    assert list(mine) == list(real) and mine["document"] == real["document"]
    assert set(mine["metadata"][0]) == set(real["metadata"][0])
    assert b'"choices"' in rest and b'"sources"' not in rest
    *_, seen = records(base)
    block = f'<source id="1" name="notes.txt">{FACT}\n{FACT}\n{FACT}</source>'
    role, turn = ("system", seen["seen"][0]) if release == "0.6.28" else ("user", seen["seen"][-1])
    assert turn["role"] == role and block in turn["content"]
    assert seen["seen"][-1]["content"].endswith("Which word?")
    assert seen["body"]["messages"] == [{"role": "user", "content": "Which word?"}]
    whole = chat(base, "Which word?", files=[{"type": "file", "id": file_id, "context": "full"}]).json()
    assert next(iter(whole)) == "sources" and set(whole) == set(recorded["chat_full"]["keys"])
    assert whole["sources"][0]["document"] == recorded["chat_full"]["sources"][0]["document"]


def test_files_that_cannot_be_used_are_left_out_without_a_word(playing: tuple[Release, str, Simulator]) -> None:
    _, base, app = playing
    forgotten = upload(base, FACT).json()["id"]
    app.state.uploads.clear()
    unusable: list[Any] = [
        forgotten,
        upload(base, FACT, email=OTHER).json()["id"],
        upload(base, FACT, query="?process=false").json()["id"],
        upload(base, PICTURE, kind="image/png").json()["id"],
        None,
    ]
    files = [{"type": "file", "id": one} for one in unusable] + ["no object", {"type": "image", "id": unusable[0]}]
    answer = chat(base, "What?", files=files)
    assert answer.status == 200 and "sources" not in answer.json()
    assert records(base)[-1]["seen"] == [{"role": "user", "content": "What?"}]


def test_only_the_newer_release_resolves_images_that_are_files(playing: tuple[Release, str, Simulator]) -> None:
    release, base, _ = playing
    mine = upload(base, PICTURE, kind="image/png", query="?process=false").json()["id"]
    others = upload(base, PICTURE, kind="image/png", email=OTHER).json()["id"]
    urls = [DATA_URL, mine, f"/api/v1/files/{mine}/content", others]
    content = [{"type": "text", "text": "see [[shape=plain]]"}, *map(image, urls)]
    answer = chat(base, content, files=[{"type": "file", "id": upload(base, FACT).json()["id"]}])
    seen = records(base)[-1]["seen"]
    shown = [part["image_url"]["url"] for part in seen[-1]["content"] if part["type"] == "image_url"]
    assert shown == (urls if release == "0.6.28" else [DATA_URL] * 3)
    assert f"I see images: {len(shown)}. You said: see" in answer.json()["choices"][0]["message"]["content"]
    assert FACT in (seen[0]["content"] if release == "0.6.28" else seen[-1]["content"][0]["text"])


@pytest.mark.parametrize(
    ("fault", "status", "detail"),
    [
        ("uploads_refused", 400, "[ERROR: File type txt is not allowed]"),
        ("files_too_large", 413, "less than 1 MB"),
    ],
)
def test_uploads_are_refused_where_an_account_is_to_have_that(
    running: tuple[str, Simulator], fault: str, status: int, detail: str
) -> None:
    answer = upload(running[0], FACT, email=f"{fault}@example.com")
    assert answer.status == status and detail in answer.json()["detail"]


@pytest.mark.parametrize(
    ("fault", "status"),
    [("files_never_processed", "pending"), ("files_fail", "failed"), ("files_slow", "processing")],
)
def test_files_can_stay_unprocessed(running: tuple[str, Simulator], fault: str, status: str) -> None:
    base, app = running
    app.state.options = replace(app.options, file_processing_seconds=3600.0 if fault == "files_slow" else 0.0)
    email = OWNER if fault == "files_slow" else f"{fault}@example.com"
    file_id = upload(base, FACT, email=email).json()["id"]
    path = f"/api/v1/files/{file_id}"
    assert get(base, f"{path}/process/status", email).json() == {"status": status}
    assert get(base, path, email).json()["data"]["status"] == status
    assert get(base, f"{path}/data/content", email).json() == {"content": ""}
    assert "sources" not in chat(base, "What?", email=email, files=[{"type": "file", "id": file_id}]).json()
    if status != "failed":
        stream = connected(base, "GET", f"{path}/process/status?stream=true", headers=token(email))
        with stream:
            while b"data: " not in (part := stream.recv(65536)):
                assert part
        assert status.encode() in part
    app.state.options = app.options


def test_an_older_release_processes_within_the_upload_and_has_no_status(running: tuple[str, Simulator]) -> None:
    base, _ = running
    email = "no_file_status@example.com"
    uploaded = upload(base, FACT, email=email).json()
    assert uploaded["status"] is True and uploaded["data"] == {"content": FACT}
    page = get(base, f"/api/v1/files/{uploaded['id']}/process/status", email)
    assert page.status == 200 and page.header("content-type") == "text/html; charset=utf-8"
    assert get(base, f"/api/v1/files/{uploaded['id']}", email).json()["data"] == {"content": FACT}
    bad = upload(base, "%PDF-1.4", kind="application/pdf", email=email).json()
    assert bad["data"] == {} and bad["error"]


def test_the_simulator_tells_of_files_and_forgets_them(running: tuple[str, Simulator]) -> None:
    base, app = running
    app.state.reset()
    uploaded = upload(base, FACT).json()
    (told,) = request(base, "GET", "/simulator/files").json()["files"]
    assert told.pop("headers")["authorization"] == f"Bearer {OWNER}"
    assert told == {
        "id": uploaded["id"],
        "account": OWNER,
        "filename": "a.txt",
        "content_type": "text/plain",
        "size": len(FACT.encode()),
        "sha256": hashlib.sha256(FACT.encode()).hexdigest(),
        "status": "completed",
    }
    assert request(base, "POST", "/simulator/forget_files").status == 200
    assert get(base, f"/api/v1/files/{uploaded['id']}", OWNER).status == 404
    assert request(base, "GET", "/simulator/files").json() == {"files": []}


def test_memory_for_files_is_bounded() -> None:
    uploads = Uploads()
    for number in range(MAX_FILES + 1):
        uploads.add(a_file(str(number), b"x"))
    assert [file.filename for file in uploads][0::199] == ["1", "200"]
    uploads.add(a_file("big", bytes(MAX_BYTES)))
    assert [file.filename for file in uploads] == ["big"]


def test_a_model_without_vision_is_listed_as_such_and_refuses_images(running: tuple[str, Simulator]) -> None:
    base, _ = running
    (entry,) = get(base, "/api/models", OWNER).json()["data"]
    assert entry["info"]["meta"]["capabilities"] == {"vision": False, "file_upload": True}
    content = [{"type": "text", "text": "see"}, image(DATA_URL)]
    refused = chat(base, content, path="/v1/chat/completions")
    assert refused.status == 400 and "multimodal" in refused.json()["error"]["message"]
    assert records(base)[-1]["seen"] is None
    assert chat(base, [{"type": "text", "text": "hello"}], path="/v1/chat/completions").status == 200


def test_a_list_of_models_may_say_nothing_of_vision() -> None:
    with serving(create_simulator(SimulatorOptions(vision=None))) as base:
        (entry,) = get(base, "/api/models", OWNER).json()["data"]
    assert "info" not in entry and entry["tags"] == []


def test_faults_of_files_are_checked_by_name() -> None:
    with pytest.raises(ValueError, match="files_explode"):
        create_simulator(SimulatorOptions(file_faults=("files_explode",)))


def a_file(name: str, data: bytes) -> UploadedFile:
    return UploadedFile(OWNER, name, "text/plain", data, {}, {}, 0, True, 0.0, True, "")


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def token(email: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {mint_token(email)}"}


def get(base: str, path: str, email: str) -> RawAnswer:
    return request(base, "GET", path, headers=token(email))


def records(base: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = request(base, "GET", "/simulator/requests").json()["requests"]
    return found


def upload(
    base: str,
    data: bytes | str,
    *,
    name: str = "a.txt",
    kind: str = "text/plain",
    email: str = OWNER,
    query: str = "",
) -> RawAnswer:
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: {kind}\r\n\r\n'
    body = head.encode() + (data.encode() if isinstance(data, str) else data) + b"\r\n--b--\r\n"
    headers = token(email) | {"Content-Type": "multipart/form-data; boundary=b"}
    return request(base, "POST", f"/api/v1/files/{query}", headers=headers, body=body)


def chat(
    base: str, content: Any, *, path: str = "/api/chat/completions", email: str = OWNER, **fields: Any
) -> RawAnswer:
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}], **fields}
    headers = token(email) | {"Content-Type": "application/json"}
    return request(base, "POST", path, headers=headers, body=body)


def headers_of(asked: dict[str, Any], release: Release) -> dict[str, str]:
    who = {"owner": OWNER, "other": OTHER, "expired": OWNER}.get(asked["as"])
    ttl = -60.0 if asked["as"] == "expired" else None if release == "0.6.28" else 3600.0
    headers = {"Authorization": f"Bearer {mint_token(who, release=release, ttl=ttl)}"} if who else {}
    return headers | ({"Content-Type": asked["content-type"]} if "content-type" in asked else {})


def raw(body: Any) -> bytes:
    """A recorded body: text, or what is not text in base64."""
    return base64.b64decode(body["base64"]) if isinstance(body, dict) else body.encode()


def comparable(value: Any) -> Any:
    """Names in their order, and all values but those that are an installation's own."""
    if isinstance(value, dict):
        own = {"user_id", "created_at", "updated_at"}
        return [
            (name, Path(inner).name if name == "path" else type(inner) if name in own else comparable(inner))
            for name, inner in value.items()
        ]
    return [comparable(inner) for inner in value] if isinstance(value, list) else value
