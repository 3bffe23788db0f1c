"""OpenAI's Files API: `/v1/files`. Each client key has files of its own, and sees no others."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any, BinaryIO, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from k2think.api.event_stream import STUCK_AFTER, HungUp
from k2think.api.failures import error_response
from k2think.api.multipart import Body, LastWord, in_thread, receiving
from k2think.errors import FileNotFound, GatewayError, InvalidRequest
from k2think.library.deposit import on_disk
from k2think.library.records import FileRecord
from k2think.library.shelf import FILE_ID, Shelf

MAX_PAGE = 10_000
MAX_PURPOSE = 64
LIFETIMES = (3600, 2_592_000)
"""Seconds: what `expires_after` may ask for."""
READ_SIZE = 256 * 1024

_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "maxLength": MAX_PURPOSE, "example": "user_data"},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": LIFETIMES[0],
                            "maximum": LIFETIMES[1],
                        },
                    },
                }
            }
        },
    }
}


def files_router(shelf: Shelf) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1/files", tags=["files"])

    async def found(request: Request, file_id: str) -> FileRecord:
        record = await asyncio.to_thread(shelf.find, _owner(request), file_id, time.time())
        if record is None:
            raise FileNotFound(file_id)
        return record

    @router.post("", summary="Upload a file", openapi_extra=_UPLOAD)
    async def upload(request: Request) -> Response:
        body = Body(request.receive)
        try:
            async with receiving(request.scope, body, shelf) as (form, deposit):
                record = await in_thread(
                    shelf.keep,
                    deposit,
                    owner=_owner(request),
                    name=form.file_name,
                    purpose=_purpose(form.fields),
                    now=time.time(),
                    lifetime=_lifetime(form.fields),
                )
        except HungUp:
            return Response(status_code=499)  # for the log; nobody hears it
        except GatewayError as error:
            answer = error_response(error)
            return answer if body.over else LastWord(answer, body)
        return JSONResponse(_shown(record))

    @router.get("", summary="List your files")
    async def list_files(
        request: Request,
        after: str = "",
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
        order: Literal["asc", "desc"] = "desc",
        purpose: str = "",
    ) -> Response:
        if after and not FILE_ID.fullmatch(after):
            raise InvalidRequest("after must be the id of a file.", param="after", code="invalid_value")
        records, has_more = await asyncio.to_thread(
            shelf.page,
            _owner(request),
            time.time(),
            after=after or None,
            limit=limit,
            order=order,
            purpose=purpose or None,
        )
        return JSONResponse(
            {
                "object": "list",
                "data": [_shown(record) for record in records],
                "first_id": records[0].id if records else "",
                "last_id": records[-1].id if records else "",
                "has_more": has_more,
            }
        )

    @router.get("/{file_id}", summary="Describe one file")
    async def get_file(request: Request, file_id: str) -> Response:
        return JSONResponse(_shown(await found(request, file_id)))

    @router.get("/{file_id}/content", summary="Download one file")
    async def get_content(request: Request, file_id: str) -> Response:
        record = await found(request, file_id)
        document = shelf.document(record)
        assert document.path is not None
        with on_disk():
            try:
                file = await asyncio.to_thread(document.path.open, "rb")
            except FileNotFoundError:  # deleted this moment
                raise FileNotFound(file_id) from None
        headers = {
            "content-length": str(record.size),
            # Whatever it is, no browser shall show or run it as a page of this server.
            "content-disposition": _attachment(record.name),
            "x-content-type-options": "nosniff",
        }
        return Download(file, headers)

    @router.delete("/{file_id}", summary="Delete one file")
    async def delete_file(request: Request, file_id: str) -> Response:
        record = await found(request, file_id)
        await asyncio.to_thread(shelf.delete, record.owner, record.id)
        return JSONResponse({"id": record.id, "object": "file", "deleted": True})

    return router


class Download(StreamingResponse):
    """An open file for a client; closed also if the client stops taking it, which nobody waits for in the end."""

    def __init__(self, file: BinaryIO, headers: dict[str, str]) -> None:
        super().__init__(_pieces(file), headers=headers, media_type="application/octet-stream")
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, or give up after `STUCK_AFTER` seconds in which the client took nothing."""

        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(STUCK_AFTER):
                    await send(message)
            except TimeoutError:
                raise HungUp from None

        with self._file, suppress(HungUp):
            await super().__call__(scope, receive, send_in_time)


def _owner(request: Request) -> str:
    owner: str = request.scope["state"]["owner"]
    return owner


def _purpose(fields: dict[str, str]) -> str:
    purpose = fields.get("purpose", "")
    if not 1 <= len(purpose) <= MAX_PURPOSE or not purpose.isprintable():
        raise InvalidRequest(
            f"The form needs a field 'purpose' of 1 to {MAX_PURPOSE} characters, such as user_data.", param="purpose"
        )
    return purpose


def _lifetime(fields: dict[str, str]) -> int | None:
    known = ("expires_after[anchor]", "expires_after[seconds]")
    anchor, seconds = map(fields.get, known)
    if other := next((name for name in fields if name.startswith("expires_after") and name not in known), None):
        raise InvalidRequest(
            "Write it as the fields expires_after[anchor] and expires_after[seconds].", param=other[:100]
        )
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise InvalidRequest("expires_after[anchor] must be created_at.", param="expires_after[anchor]")
    lowest, highest = LIFETIMES
    if not seconds or not re.fullmatch("[0-9]{1,9}", seconds) or not lowest <= int(seconds) <= highest:
        raise InvalidRequest(
            f"expires_after[seconds] must be a whole number from {lowest} to {highest}.", param="expires_after[seconds]"
        )
    return int(seconds)


def _shown(record: FileRecord) -> dict[str, Any]:
    expires = {} if record.expires_at is None else {"expires_at": record.expires_at}
    return {
        "id": record.id,
        "object": "file",
        "bytes": record.size,
        "created_at": record.created_at,
        **expires,
        "filename": record.name,
        "purpose": record.purpose,
        "status": "processed",
    }


def _attachment(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9 ._()-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(READ_SIZE):
        yield piece
