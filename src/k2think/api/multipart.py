"""Takes uploads in as they come: the file goes to the disk piece by piece, the fields beside it stay small."""

from __future__ import annotations

import asyncio
import email.errors
import email.header
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from k2think.api.access import header
from k2think.api.event_stream import HungUp
from k2think.errors import BodyTooLarge, BodyTooSlow, InvalidRequest, UnsupportedMediaType
from k2think.library.deposit import Deposit, file_too_large
from k2think.library.shelf import Shelf

SILENCE = 60.0
"""Seconds that a client may send nothing."""
SLOWEST = 1024
"""Bytes a second that it must send all in all: less is no slow line, but somebody who wants to hold a place."""
PIECE = 128 * 1024
"""Bytes that are collected before a thread writes them."""

FILE_FIELD = "file"
MAX_PARTS = 32
MAX_FIELDS_BYTES = 1024 * 1024

DRAIN_SECONDS = 10.0
DRAIN_BYTES = 64 * 1024 * 1024
"""How long, and how much, a client that has its answer already may go on sending."""

_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.DOTALL)
_ENCODED_WORD = re.compile(r"=\?[\w-]+\?[bqBQ]\?[^?]*\?=")

P = ParamSpec("P")
T = TypeVar("T")


class Body:
    """A request's body on its way. `over`: there is no more of it; `received`: bytes that came."""

    def __init__(self, receive: Receive) -> None:
        self.over = False
        self.received = 0
        self._receive = receive
        self._begun_at = time.monotonic()

    async def read(self) -> bytes:
        """Give what comes next. Raises `HungUp`, and `BodyTooSlow` after too long a silence, or all in all."""
        due = min(SILENCE, self._begun_at + SILENCE + self.received / SLOWEST - time.monotonic())
        try:
            async with asyncio.timeout(due):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlow(f"The upload stopped for {SILENCE:.0f} s, or came too slowly. Send it again.") from None
        if message["type"] == "http.disconnect":
            self.over = True
            raise HungUp
        piece: bytes = message.get("body", b"")
        self.over = not message.get("more_body", False)
        self.received += len(piece)
        return piece


class Form:
    """A multipart body being taken apart: `fields` by name, and what is in `file` as a deposit with its `file_name`.

    Plain calls that write to the disk. Raises `InvalidRequest`, and what `begin` and the deposit raise.
    """

    def __init__(self, boundary: bytes, begin: Callable[[], Deposit]) -> None:
        self.fields: dict[str, str] = {}
        self.file_name = ""
        self._begin = begin
        self._deposit: Deposit | None = None
        self._whole = False
        self._parts = 0
        self._room = MAX_FIELDS_BYTES
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._field: str | None = None  # None while it is the file
        self._content = bytearray()
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": self._header_comes,
                    "on_header_value": self._value_comes,
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._content_begins,
                    "on_part_data": self._content_comes,
                    "on_part_end": self._part_ends,
                    "on_end": self._ends,
                },
            )
        except FormParserError:
            raise InvalidRequest("The boundary in the Content-Type is too long. 70 characters are the most.") from None
        self._parser.logger = logging.Logger("silent", logging.CRITICAL)  # noqa: LOG001 - the client is told

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the body."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise InvalidRequest(f"The body is no multipart form: {error}.") from None

    def file(self) -> Deposit:
        """Give the file, when everything was fed."""
        if not self._whole:
            raise InvalidRequest("The upload is cut off: the form's closing boundary is missing. Send it again.")
        if self._deposit is None:
            raise InvalidRequest(f"The form has no field '{FILE_FIELD}' with a file.", param=FILE_FIELD)
        return self._deposit

    def discard(self) -> None:
        """Leave nothing behind of a file that nobody has kept."""
        if self._deposit is not None:
            self._deposit.discard()

    def _part_begins(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidRequest(f"The form has more than {MAX_PARTS} fields.")
        self._disposition = b""

    def _header_comes(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _value_comes(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _content_begins(self) -> None:
        parameters = parameters_of(self._disposition)
        name = parameters.get("name")
        if name is None:
            raise InvalidRequest("A part of the form has no Content-Disposition with a name.")
        if name in self.fields or (name == FILE_FIELD and self._deposit is not None):
            raise InvalidRequest(f"The form has the field '{name[:100]}' twice.", param=name[:100])
        if name != FILE_FIELD:
            self._field = name
            self._reserve(len(name))
            return
        self._field = None
        file_name = file_name_of(parameters)
        if file_name is None:
            raise InvalidRequest(
                "The field 'file' must be a file with a name. With curl: -F file=@PATH, with the '@'.", param=FILE_FIELD
            )
        self.file_name = file_name
        self._deposit = self._begin()

    def _content_comes(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            assert self._deposit is not None
            self._deposit.write(memoryview(data)[start:end])
        else:
            self._reserve(end - start)
            self._content += data[start:end]

    def _reserve(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise BodyTooLarge(f"The fields beside the file have more than {MAX_FIELDS_BYTES // 1024 // 1024} MB.")

    def _part_ends(self) -> None:
        if self._field is not None:
            try:
                self.fields[self._field] = self._content.decode()
            except UnicodeDecodeError:
                field = self._field[:100]
                raise InvalidRequest(f"The field '{field}' is not in UTF-8.", param=field) from None
        self._content.clear()

    def _ends(self) -> None:
        self._whole = True


@asynccontextmanager
async def receiving(scope: Scope, body: Body, shelf: Shelf) -> AsyncIterator[tuple[Form, Deposit]]:
    """Take a form with a file in; what the block inside does not keep is discarded.

    Raises `UnsupportedMediaType`, `InvalidRequest`, `BodyTooLarge` and its kinds, `BodyTooSlow`, `HungUp`.
    """
    form = Form(_boundary(scope), shelf.begin)
    most = shelf.max_bytes + 2 * MAX_FIELDS_BYTES  # headers and boundaries too
    announced = header(scope, b"content-length") or b"0"
    if announced.isdigit() and int(announced) > most:
        raise file_too_large(shelf.max_bytes)
    try:
        while not body.over:
            piece = bytearray()
            while not body.over and len(piece) < PIECE:
                piece += await body.read()
            if body.received > most:  # of which the form need not know: something may follow its end
                raise BodyTooLarge("The form is larger than a file and its fields can be. Send nothing behind its end.")
            await in_thread(form.feed, bytes(piece))
        yield form, form.file()
    finally:
        await in_thread(form.discard)


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do it in a thread. Whoever is cancelled leaves when the thread is done: two never work on one file."""
    task = asyncio.create_task(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


class LastWord(Response):
    """An answer to a client that is still sending: closing at once would reset the connection before it is read."""

    def __init__(self, answer: Response, body: Body) -> None:
        super().__init__(answer.body, answer.status_code, media_type=answer.media_type)
        self.raw_headers = [*answer.raw_headers, (b"connection", b"close")]
        self._rest = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - `_rest` receives
        """Say it, then throw away what still comes, for a while."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        left = DRAIN_BYTES
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while left > 0 and not self._rest.over:
                    left -= len(await self._rest.read())
        except (TimeoutError, HungUp, BodyTooSlow):
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def parameters_of(value: bytes) -> dict[str, str]:
    """The parameters of a header such as `form-data; name="file"; filename="a.txt"`."""
    found: dict[str, str] = {}
    for name, text in _PARAMETER.findall(value.decode(errors="replace")):
        quoted = re.sub(r'\\(["\\])', r"\1", text[1:-1]) if text.startswith('"') and len(text) > 1 else text.strip()
        found.setdefault(name.lower(), quoted)
    return found


def file_name_of(parameters: dict[str, str]) -> str | None:
    """The file's name, as RFC 5987, RFC 2047 or HTML have it written; None without one."""
    extended = parameters.get("filename*")
    if extended is not None and extended.count("'") >= 2:
        charset, _, quoted = extended.split("'", 2)
        data = unquote_to_bytes(quoted)
        try:
            return data.decode(charset, errors="replace")
        except (LookupError, ValueError):  # no charset, or one that cannot be had so, such as idna
            fallback = data.decode(errors="replace")
    else:
        fallback = None
    name = parameters.get("filename")
    if name is None:
        return fallback
    if _ENCODED_WORD.search(name):
        try:
            return str(email.header.make_header(email.header.decode_header(name)))
        except (ValueError, LookupError, email.errors.MessageError):
            return name
    for escape, character in (("%22", '"'), ("%0D", "\r"), ("%0A", "\n")):  # what browsers do, and nothing else
        name = name.replace(escape, character)
    return name


def _boundary(scope: Scope) -> bytes:
    value = header(scope, b"content-type") or b""
    if value.partition(b";")[0].strip().lower() != b"multipart/form-data":
        raise UnsupportedMediaType("A file is uploaded as a form: 'Content-Type: multipart/form-data; boundary=...'.")
    boundary = parameters_of(value).get("boundary")
    if not boundary:
        raise InvalidRequest("The Content-Type names no boundary: multipart/form-data; boundary=...")
    return boundary.encode()
