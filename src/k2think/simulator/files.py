"""Open WebUI's files: upload, processing, and what can be asked about them.

    POST   /api/v1/files/                       fields `file`, `metadata`; query `process`, `process_in_background`
    GET    /api/v1/files/                       the user's files
    GET    /api/v1/files/{id}                   the record;  DELETE: forget it
    GET    /api/v1/files/{id}/content           the bytes;   .../data/content: the text
    GET    /api/v1/files/{id}/process/status    {"status": ...};  ?stream=true: events until completed or failed

A file is its user's: for all others it is unknown. What goes wrong on purpose: `options.FILE_FAULTS`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import quote

import msgspec
from python_multipart.multipart import parse_options_header

from k2think.simulator import answers
from k2think.simulator.accounts import Refused, authenticate
from k2think.simulator.exchange import ClientLeft, Exchange
from k2think.simulator.options import Release
from k2think.simulator.state import SimulatorState, shown_headers
from k2think.simulator.tokens import user_id
from k2think.simulator.uploads import UploadedFile, outcome

Handler: TypeAlias = Callable[[Exchange, SimulatorState], Awaitable[None]]

_ROOT = "/api/v1/files/"
_POLL_SECONDS = 0.5
_NO = frozenset({"false", "0", "no", "off"})


@dataclass(frozen=True)
class _Field:
    """One field of a form."""

    data: bytes
    filename: str = ""
    content_type: str = ""


def file_handler(method: str, path: str) -> Handler | None:
    """What answers this request about files; None: nothing here does."""
    if not path.startswith(_ROOT):
        return None
    file_id, slash, rest = path.removeprefix(_ROOT).partition("/")
    if not file_id:
        return None if slash else {"POST": upload, "GET": list_files}.get(method)
    handlers = {
        ("GET", ""): _record,
        ("DELETE", ""): _delete,
        ("GET", "content"): _content,
        ("GET", "data/content"): _text,
        ("GET", "process/status"): _status,
    }
    handler = handlers.get((method, rest))
    return handler and partial(_with_file, file_id=file_id, act=handler)


async def upload(exchange: Exchange, state: SimulatorState) -> None:
    """POST /api/v1/files/."""
    body = await exchange.body()
    try:
        email, _, _ = authenticate(exchange, state)
    except Refused as refused:
        await answers.detail(exchange, 401, refused.text)
        return
    form = read_form(exchange.headers.get("content-type", ""), body)
    faults = _faults(state, email)
    refusal = _refusal(form, faults, state.options.release)
    if refusal is not None:
        await answers.detail(exchange, *refusal)
        return
    file = _new_file(exchange, state, email, form)
    state.uploads.add(file)
    if file.process and ("no_file_status" in faults or exchange.query.get("process_in_background") in _NO):
        exchange.watch()
        try:
            await exchange.pause(None if file.ready_at is None else max(0.0, file.ready_at - time.monotonic()))
        except ClientLeft:
            return
        finally:
            await exchange.unwatch()
    await exchange.json(200, _uploaded(file, state))


async def list_files(exchange: Exchange, state: SimulatorState) -> None:
    """GET /api/v1/files/."""
    try:
        email, _, _ = authenticate(exchange, state)
    except Refused as refused:
        await answers.detail(exchange, 401, refused.text)
        return
    release = state.options.release
    items = [_shown(file, state) for file in state.uploads if file.account == email]
    await exchange.json(200, items if release == "0.6.28" else {"items": items, "total": len(items)})


async def simulator_files(exchange: Exchange, state: SimulatorState) -> None:
    """GET /simulator/files: everybody's, oldest first."""
    now, release = time.monotonic(), state.options.release
    shown = [
        {
            "id": file.id,
            "account": file.account,
            "filename": file.filename,
            "content_type": file.content_type,
            "size": len(file.data),
            "sha256": file.sha256,
            "status": file.status(now, release),
            "headers": file.headers,
        }
        for file in state.uploads
    ]
    await exchange.json(200, {"files": shown})


async def forget_files(exchange: Exchange, state: SimulatorState) -> None:
    """POST /simulator/forget_files: as if an administrator had cleaned up."""
    state.uploads.clear()
    await exchange.json(200, {"status": True})


def read_form(content_type: str, body: bytes) -> dict[str, _Field]:
    """The fields of a `multipart/form-data` body by name; empty for any other body."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    fields: dict[str, _Field] = {}
    # The first boundary may stand at the very beginning, where no line end comes before it.
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:] if boundary else ():
        head, found, data = part.partition(b"\r\n\r\n")
        if not found:
            continue
        lines = (line.decode("latin-1").partition(":") for line in head.strip().split(b"\r\n"))
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        _, options = parse_options_header(headers.get("content-disposition"))
        name, filename = (options.get(key, b"").decode("utf-8", "replace") for key in (b"name", b"filename"))
        fields[name] = _Field(data, filename.rpartition("/")[2], headers.get("content-type", ""))
    return fields


_FileHandler: TypeAlias = Callable[[Exchange, SimulatorState, UploadedFile], Awaitable[None]]


async def _with_file(exchange: Exchange, state: SimulatorState, *, file_id: str, act: _FileHandler) -> None:
    await exchange.body()
    try:
        email, _, _ = authenticate(exchange, state)
    except Refused as refused:
        await answers.detail(exchange, 401, refused.text)
        return
    file = state.uploads.find(file_id, email)
    if act is _status and "no_file_status" in _faults(state, email):
        await answers.web_page(exchange, state.options.release)
    elif file is None:
        await answers.detail(exchange, 404, answers.NOT_FOUND)
    else:
        await act(exchange, state, file)


async def _record(exchange: Exchange, state: SimulatorState, file: UploadedFile) -> None:
    release = state.options.release
    extras = {"path": _path(file)} | ({"access_control": None} if release == "0.6.28" else {})
    order = ("id", "user_id", "hash", "filename", "path", "data", "meta", "access_control", "created_at", "updated_at")
    both = _shown(file, state) | extras
    await exchange.json(200, {name: both[name] for name in order if name in both})


async def _delete(exchange: Exchange, state: SimulatorState, file: UploadedFile) -> None:
    state.uploads.remove(file)
    await exchange.json(200, {"message": "File deleted successfully"})


async def _content(exchange: Exchange, _: SimulatorState, file: UploadedFile) -> None:
    kind, name = file.content_type, quote(file.filename)
    how = "" if kind == "text/plain" else "inline" if kind == "application/pdf" else "attachment"
    headers = [("content-disposition", f"{how}; filename*=UTF-8''{name}")] if how else []
    shown = f"{kind}; charset=utf-8" if kind.startswith("text/") and "charset" not in kind else kind
    await exchange.answer(200, file.data, shown or "application/octet-stream", headers)


async def _text(exchange: Exchange, state: SimulatorState, file: UploadedFile) -> None:
    await exchange.json(200, {"content": file.text(time.monotonic(), state.options.release) or ""})


async def _status(exchange: Exchange, state: SimulatorState, file: UploadedFile) -> None:
    release = state.options.release
    if exchange.query.get("stream", "false") in _NO:
        await exchange.json(200, {"status": file.status(time.monotonic(), release)})
        return
    exchange.watch()
    try:
        await exchange.begin([("content-type", "text/event-stream; charset=utf-8")])
        while file.process:
            known = state.uploads.find(file.id, file.account) is not None
            status = file.status(time.monotonic(), release) if known else "not_found"
            event = {"status": status} | ({"error": file.error} if status == "failed" else {})
            await exchange.write(answers.own_event(event, release))
            if status in {"completed", "failed", "not_found"}:
                break
            await exchange.pause(_POLL_SECONDS)
        await exchange.end()
    except ClientLeft:
        return
    finally:
        await exchange.unwatch()


def _refusal(form: Mapping[str, _Field], faults: Collection[str], release: Release) -> tuple[int, Any] | None:
    """Status and detail for an upload that is not taken."""
    sent = form.get("file")
    if sent is None:
        return 422, [{"type": "missing", "loc": ["body", "file"], "msg": "Field required", "input": None}]
    try:
        _metadata(form)
    except msgspec.DecodeError:
        return 400, "[ERROR: Invalid metadata format]"
    if "uploads_refused" in faults:
        return 400, f"[ERROR: File type {sent.filename.rpartition('.')[2]} is not allowed]"
    if "files_too_large" in faults:
        return 413, answers.FILE_TOO_LARGE
    return None if sent.data else (400, answers.empty_file(release))


def _metadata(form: Mapping[str, _Field]) -> Any:
    return msgspec.json.decode(form["metadata"].data) if "metadata" in form else {}


def _new_file(exchange: Exchange, state: SimulatorState, email: str, form: Mapping[str, _Field]) -> UploadedFile:
    sent, faults, options = form["file"], _faults(state, email), state.options
    has_text, error = outcome(sent.content_type, sent.data, faults, options.release)
    never = "files_never_processed" in faults
    return UploadedFile(
        account=email,
        filename=sent.filename,
        content_type=sent.content_type,
        data=sent.data,
        metadata=_metadata(form),
        headers=shown_headers(exchange.headers, email),
        created=int(time.time()),
        process=exchange.query.get("process", "true") not in _NO,
        ready_at=None if never else time.monotonic() + options.file_processing_seconds,
        has_text=has_text,
        error=error,
    )


def _faults(state: SimulatorState, email: str) -> frozenset[str]:
    account = state.account(email)
    return frozenset(state.options.file_faults + (account.faults if account is not None else ()))


def _shown(file: UploadedFile, state: SimulatorState) -> dict[str, Any]:
    """A file as the list has it."""
    now, release = time.monotonic(), state.options.release
    status, text = file.status(now, release), file.text(now, release)
    shown = _new(file, release)
    if "no_file_status" in _faults(state, file.account):
        shown["data"] = {} if text is None else {"content": text}
    elif file.process:
        shown["data"] = {"status": status}
        if text is not None:
            shown["data"] |= {"content": text} | ({} if release == "0.6.28" else {"error": None})
        elif status == "failed":
            shown["data"]["error"] = file.error
    if text is not None:
        shown["hash"] = file.sha256
        shown["meta"]["collection_name"] = f"file-{file.id}"
    return shown


def _uploaded(file: UploadedFile, state: SimulatorState) -> dict[str, Any]:
    """What an upload is answered with: the file as it was before it was processed, but where that is done at once."""
    release = state.options.release
    if not file.process:
        return _new(file, release)
    if "no_file_status" in _faults(state, file.account):
        failed = {"error": file.error} if file.error else {}
        return {"status": True} | _shown(file, state) | failed
    path = {"path": _path(file)} | ({"access_control": None} if release == "0.6.28" else {})
    return _new(file, release) | {"data": {"status": "pending"}, "status": True} | path


def _new(file: UploadedFile, release: Release) -> dict[str, Any]:
    return {
        "id": file.id,
        "user_id": user_id(file.account),
        "hash": None,
        "filename": file.filename,
        "data": {},
        "meta": {
            "name": file.filename,
            "content_type": file.content_type,
            "size": len(file.data),
            **({} if release == "0.6.28" else {"file_hash": file.sha256}),
            "data": file.metadata,
        },
        "created_at": file.created,
        "updated_at": file.created,
    }


def _path(file: UploadedFile) -> str:
    return f"/srv/simulator/uploads/{file.id}_{file.filename}"
