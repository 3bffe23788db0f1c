"""The Files API as clients use and misuse it."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import random
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import jsonschema_rs
import openai
import pytest
from conftest import KEY, Stage, staging
from rawhttp import RawAnswer, parsed
from starlette.types import Message
from waiting import PATIENCE, until

from k2think.api import files, multipart
from k2think.library import deposit
from k2think.library.shelf import Shelf

SCHEMAS = Path(__file__).resolve().parents[2].parent / "shared" / "openai-schemas"
OTHER_KEY = "sk-other-key"
MB = 1024 * 1024
MAX_MB, QUOTA_MB = 2, 130
FORM = {"Authorization": f"Bearer {KEY}", "Content-Type": "multipart/form-data; boundary=B"}
BEGIN = (
    b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
)
END = b"\r\n--B--\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def stage(folder: Path) -> Iterator[Stage]:
    with staging(folder) as make:
        yield make(
            VALID_API_KEY=f"{KEY},{OTHER_KEY}",
            DATA_DIR=str(folder / "data"),
            MAX_FILE_MB=str(MAX_MB),
            FILES_QUOTA_MB=str(QUOTA_MB),
        )


@functools.cache
def schema(name: str) -> jsonschema_rs.Validator | None:
    """A published schema; None where they are not here."""
    path = SCHEMAS / f"{name}.json"
    return jsonschema_rs.validator_for(json.loads(path.read_bytes())) if path.is_file() else None


def checked(name: str, answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    if (validator := schema(name)) is not None:
        validator.validate(answer.json())
    return answer.json()


def upload(
    stage: Stage,
    content: bytes = b"content",
    *,
    key: str = KEY,
    fields: Mapping[str, str] | None = None,
    http: httpx.Client | None = None,
) -> httpx.Response:
    return (http or stage.anyone).post(
        f"{stage.url}/v1/files",
        headers={"Authorization": f"Bearer {key}"},
        files={"file": ("a.txt", content)},
        data={"purpose": "user_data", **(fields or {})},
    )


def incoming(folder: Path) -> list[str]:
    return [path.name for path in (folder / "data" / "files" / "incoming").iterdir()]


def test_the_sdk_does_all_it_can_with_files(stage: Stage) -> None:
    content = random.Random(1).randbytes(300_000)
    with stage.openai() as client:
        file = client.files.create(
            file=('../数据 "x".pdf', content),
            purpose="user_data",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
        assert (file.filename, file.bytes, file.purpose, file.status) == (
            '数据 "x".pdf',
            300_000,
            "user_data",
            "processed",
        )
        assert file.expires_at == file.created_at + 3600
        assert client.files.retrieve(file.id) == file
        more = [client.files.create(file=b"x", purpose="vision") for _ in range(3)]
        assert [found.id for found in client.files.list(limit=2)][:4] == [*(f.id for f in reversed(more)), file.id]
        assert [found.id for found in client.files.list(purpose="vision", order="asc")] == [f.id for f in more]
        answer = client.files.content(file.id)
        assert answer.read() == content
        assert answer.response.headers["content-type"] == "application/octet-stream"
        assert answer.response.headers["x-content-type-options"] == "nosniff"
        assert answer.response.headers["content-disposition"] == (
            "attachment; filename=\"__ _x_.pdf\"; filename*=UTF-8''%E6%95%B0%E6%8D%AE%20%22x%22.pdf"
        )
        for found in (file, *more):
            assert client.files.delete(found.id).deleted
        for call in (client.files.retrieve, client.files.content, client.files.delete):
            with pytest.raises(openai.NotFoundError) as gone:
                call(file.id)
            assert gone.value.code == "file_not_found"


def test_the_answers_are_openais(stage: Stage) -> None:
    file = checked("OpenAIFile", upload(stage))
    checked(
        "OpenAIFile", upload(stage, fields={"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"})
    )
    assert checked("OpenAIFile", stage.http.get(f"/v1/files/{file['id']}")) == file
    page = checked("ListFilesResponse", stage.http.get("/v1/files?limit=1&order=asc"))
    assert page["has_more"] is True
    assert page["first_id"] == page["last_id"] == page["data"][0]["id"]
    checked("ListFilesResponse", stage.http.get("/v1/files?purpose=nobody"))
    gone = checked("DeleteFileResponse", stage.http.delete(f"/v1/files/{file['id']}"))
    assert gone == {"id": file["id"], "object": "file", "deleted": True}


def test_another_key_sees_nothing(stage: Stage) -> None:
    file_id = upload(stage, b"for my eyes").json()["id"]
    theirs = upload(stage, b"for my eyes", key=OTHER_KEY).json()["id"]
    with stage.openai(OTHER_KEY) as other:
        assert [file.id for file in other.files.list()] == [theirs]
        for call in (other.files.retrieve, other.files.content, other.files.delete):
            with pytest.raises(openai.NotFoundError):
                call(file_id)
        other.files.delete(theirs)
    assert stage.http.get(f"/v1/files/{file_id}/content").content == b"for my eyes"
    assert stage.anyone.get(f"{stage.url}/v1/files").status_code == 401


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": ""}, "purpose"),
        ({"purpose": "x" * 65}, "purpose"),
        ({"purpose": "a\nb"}, "purpose"),
        ({"expires_after[anchor]": "now", "expires_after[seconds]": "3600"}, "expires_after[anchor]"),
        ({"expires_after[seconds]": "3600"}, "expires_after[anchor]"),
        ({"expires_after[anchor]": "created_at"}, "expires_after[seconds]"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"}, "expires_after[seconds]"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"}, "expires_after[seconds]"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "1e4"}, "expires_after[seconds]"),
        ({"expires_after": "3600"}, "expires_after"),
    ],
)
def test_a_bad_field_is_named_and_nothing_kept(stage: Stage, folder: Path, fields: dict[str, str], param: str) -> None:
    answer = upload(stage, fields=fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert incoming(folder) == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("after=zzz", "after"),
        (f"order=asc&after=file-{'0' * 29}", "after"),
    ],
)
def test_a_bad_query_is_told(stage: Stage, query: str, param: str) -> None:
    answer = stage.http.get(f"/v1/files?{query}")
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("", b"", 415),
        ("multipart/form-data", BEGIN + END, 400),
        (f"multipart/form-data; boundary={'B' * 300}", BEGIN + END, 400),
        ("multipart/form-data; boundary=C", BEGIN + END, 400),
        ("multipart/form-data; boundary=B", BEGIN + b"text", 400),
        ("multipart/form-data; boundary=B", b"", 400),
    ],
)
def test_what_is_no_form_is_refused(stage: Stage, folder: Path, content_type: str, body: bytes, status: int) -> None:
    answer = stage.http.post("/v1/files", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert incoming(folder) == []


def test_too_large_is_told_before_it_was_all_sent(stage: Stage, folder: Path) -> None:
    answer = upload(stage, b"x" * MAX_MB * MB)
    assert answer.status_code == 200
    stage.http.delete(f"/v1/files/{answer.json()['id']}")
    with stage.openai() as client:
        for size in (MAX_MB * MB + 1, 20 * MB, 100 * MB):
            with pytest.raises(openai.APIStatusError) as refusal:
                client.files.create(file=b"x" * size, purpose="user_data")
            assert (refusal.value.status_code, refusal.value.code) == (413, "file_too_large")
    assert incoming(folder) == []


def sending(stage: Stage, length: int, *headers: str, body: bytes = b"") -> socket.socket:
    """A connection on which an upload of so many bytes was announced, and begun with those of `body`."""
    where = urlsplit(stage.url)
    lines = ["POST /v1/files HTTP/1.1", "Host: x", f"Content-Length: {length}", *headers]
    lines += [f"{name}: {value}" for name, value in FORM.items()]
    connection = socket.create_connection((where.hostname or "", where.port or 0), timeout=PATIENCE)
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return connection


def heard(connection: socket.socket) -> RawAnswer:
    """The answer, of which the connection may stay open."""
    data = b""
    while b"}}" not in data:
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    return parsed(data)


@pytest.mark.parametrize("header", ["Expect: 100-continue", "X-Plain: yes"])
def test_an_announced_giant_is_refused_at_once(stage: Stage, header: str) -> None:
    with sending(stage, 10**12, header) as connection:
        answer = heard(connection)
    assert (answer.status, answer.json()["error"]["code"]) == (413, "file_too_large")
    assert answer.header("connection") == "close"


def test_a_client_that_hangs_up_leaves_nothing(stage: Stage, folder: Path) -> None:
    with sending(stage, MB) as connection:
        connection.sendall(BEGIN + b"x" * 500_000)
        until(lambda: incoming(folder))
    until(lambda: not incoming(folder))


@pytest.mark.parametrize("limits", [{"SILENCE": 0.3}, {"SILENCE": 0.6, "SLOWEST": 10**9}])
def test_a_client_that_falls_silent_or_dawdles_is_not_waited_for(
    stage: Stage, folder: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, float]
) -> None:
    for name, value in ({"PIECE": 4096, "DRAIN_SECONDS": 0.1} | limits).items():
        monkeypatch.setattr(multipart, name, value)
    # All at once, and no more than the system keeps: later it might be too late, on a machine that stands still.
    with sending(stage, MB, body=BEGIN + b"x" * 16_000) as connection:
        answer = heard(connection)
    assert (answer.status, answer.json()["error"]["code"]) == (408, "request_timeout")
    assert incoming(folder) == []


def test_a_chunked_upload_is_an_upload_too(stage: Stage) -> None:
    def pieces() -> Iterator[bytes]:
        yield BEGIN
        yield b"\r\n--B-"
        yield END

    answer = stage.http.post("/v1/files", content=pieces(), headers={"Content-Type": FORM["Content-Type"]})
    assert answer.status_code == 200, answer.text
    assert stage.http.get(f"/v1/files/{answer.json()['id']}/content").content == b"\r\n--B-"


def test_a_cursor_outlives_its_file(stage: Stage) -> None:
    older, newer = (upload(stage, fields={"purpose": "cursor"}).json()["id"] for _ in range(2))
    stage.http.delete(f"/v1/files/{newer}")
    page = stage.http.get(f"/v1/files?purpose=cursor&after={newer}").json()
    assert [file["id"] for file in page["data"]] == [older]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/files", "GET, POST"),
        ("POST", "/v1/files/x", "GET, DELETE"),
        ("DELETE", "/v1/files/x/content", "GET"),
        ("POST", "/v1/models", "GET"),
    ],
)
def test_a_wrong_method_is_told_all_the_right_ones(stage: Stage, method: str, path: str, allowed: str) -> None:
    answer = stage.http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_a_defect_of_ours_is_told_in_openais_shape(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Shelf, "find")
    answer = stage.http.get("/v1/files/x")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "find" not in answer.text


def test_a_client_that_takes_nothing_holds_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck(*_: Message) -> Any:
        sent.append(1)
        await asyncio.Event().wait()
        raise AssertionError

    sent: list[int] = []
    monkeypatch.setattr(files, "STUCK_AFTER", 0.05)
    (tmp_path / "a").write_bytes(b"x")
    file = (tmp_path / "a").open("rb")
    asyncio.run(asyncio.wait_for(files.Download(file, {})({"type": "http"}, stuck, stuck), PATIENCE))
    assert sent
    assert file.closed


def test_a_hundred_uploads_at_once_are_all_whole(stage: Stage, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "PIECE", 4096)  # so that each is written by several threads in turn
    noise = random.Random(2).randbytes(20_000)
    contents = [b"%d" % number + noise for number in range(100)]
    limits = httpx.Limits(max_connections=None)
    with (
        httpx.Client(verify=False, timeout=PATIENCE, trust_env=False, limits=limits) as http,
        ThreadPoolExecutor(100) as pool,
    ):
        answers = list(pool.map(lambda content: upload(stage, content, http=http), contents))
    for answer, content in zip(answers, contents, strict=True):
        kept = stage.http.get(f"/v1/files/{answer.json()['id']}/content").content
        assert hashlib.sha256(kept).digest() == hashlib.sha256(content).digest()
    assert incoming(folder) == []


def test_over_the_quota_is_told_until_there_is_room(
    stage: Stage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deposit, "MEASURE_EVERY", 0.0)
    big = folder / "data" / "files" / "contents" / "00" / ("0" * 64)
    big.parent.mkdir(exist_ok=True)
    with big.open("wb") as file:
        file.truncate(QUOTA_MB * MB)  # of holes: what another process has put there
    answer = upload(stage)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "files_quota_exceeded")
    assert incoming(folder) == []
    big.unlink()
    assert upload(stage).status_code == 200
