"""Documents in the accounts of K2-Think's web service: uploaded when a chat needs them, remembered, looked after.

A file belongs to the account that uploaded it, so what is remembered is where it lies for one credential. Nothing here
fails a chat that would do without: a document that cannot be had there is said to be so, and its text goes instead.
Only what is about the credential is an error, the same one that the chat would have met.

Files that nobody asks for any more stay in their accounts; deleting them is left to whoever owns these.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import closing
from typing import BinaryIO, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from k2think.credentials.credential import Credential
from k2think.dialogue.prompt import Document
from k2think.errors import CredentialRejected, QuotaExceeded, UpstreamError, UpstreamUnavailable
from k2think.library.content import opened
from k2think.together import Shared, together
from k2think.upstreams.exchange import MAX_ERROR_BODY
from k2think.upstreams.k2think import protocol
from k2think.upstreams.refusals import Speaker, error_of_status, read_refusal
from k2think.upstreams.transport import Transport

logger = logging.getLogger(__name__)

PIECE = 256 * 1024
"""Bytes of a file that are in memory at a time."""

MAX_KNOWN = 10_000
"""Documents that are remembered, for all credentials together."""

REFUSED_FOR = 600.0
"""Seconds for which a document that the service could not use is not tried again."""

TROUBLE_FOR = 60.0
"""The same where it was the service that failed."""

MAX_RECORD = 256 * 1024
"""Bytes of a file's record that are read; one that is longer holds a text for certain, for nothing else is long."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 3.0

_ID = re.compile(r"[\w-]{1,128}", re.ASCII)

_ABOUT_US = frozenset({401, 408, 429})
"""Statuses that say nothing about the file: the token, the time, the rate."""

State: TypeAlias = Literal["ready", "waiting", "failed", "gone"]

_STATES: Mapping[str, State] = {"completed": "ready", "failed": "failed", "not_found": "gone"}

_Key: TypeAlias = tuple[str, str, str]
"""Credential, digest and name."""

T = TypeVar("T")


class _Known(Struct, frozen=True):
    """What became of a document. `until`: good without another look (monotonic); an id alone does not make it ready."""

    id: str | None
    ready: bool
    until: float


class _Status(Struct):
    status: str = ""


class _Content(Struct):
    status: str = ""
    content: str | None = None


class _Record(Struct):
    id: str = ""
    data: _Content | None = None


class _Answer(Struct, frozen=True):
    """What came back: of a 200, or of a refusal that is about the file."""

    body: bytes
    refused: bool = False


class Uploads:
    """Sees to it that documents are where the chat route `url` can find them.

    `patience`: seconds for the service to make out a document's text. `confirm_after`: seconds after which it is asked
    whether it still has a document, because a chat ignores one that is gone without a word.
    """

    def __init__(
        self, transport: Transport, url: str, *, patience: float = 60.0, confirm_after: float = 300.0, at_once: int = 8
    ) -> None:
        self._transport = transport
        self._url = url
        self._patience = patience
        self._confirm_after = confirm_after
        self._places = asyncio.Semaphore(at_once)
        self._known: dict[_Key, _Known] = {}  # the oldest first
        self._uploads: Shared[_Key, str | None] = Shared()

    async def ensure(self, credential: Credential, document: Document) -> str | None:
        """Give the document's id in the credential's account; None: it cannot be had there, so its text must do.

        Raises `CredentialRejected`, `QuotaExceeded`.
        """
        if not document.size:
            return None
        # The service shows the name to whoever asks about the file, so it must be this client's own.
        key = (credential.id, document.digest, document.name)
        known = self._known.get(key)
        if known is not None and time.monotonic() < known.until:
            return known.id if known.ready else None
        return await self._uploads.get(key, lambda: self._settle(key, credential, document))

    async def ensure_all(self, credential: Credential, documents: Sequence[Document]) -> dict[str, str | None]:
        """Do the same for several at once: digest → id, in their order."""
        each = {document.digest: document for document in documents}
        ids = await together([self.ensure(credential, document) for document in each.values()])
        return dict(zip(each, ids, strict=True))

    async def _settle(self, key: _Key, credential: Credential, document: Document) -> str | None:
        known = self._known.get(key)
        file_id = known.id if known else None
        try:
            state = await self._state(credential, file_id) if file_id else "gone"
            if state in {"failed", "gone"}:
                file_id = None  # not to be asked for again if the upload fails
                async with self._places:
                    file_id = await self._upload(credential, document)
                state = await self._processed(credential, file_id) if file_id else "failed"
        except (CredentialRejected, QuotaExceeded):
            raise
        except UpstreamError as error:
            # Whether the service as a whole is down the chat will tell, which comes next; what it meets is counted and
            # tried again as ever. Where nothing but uploads fails, the text is as good.
            logger.warning("A file could not be uploaded, so its text is used: %s", error.message)
            self._remember(key, file_id, ready=False, keep=TROUBLE_FOR)
            return None
        except OSError:
            return None  # the file has been deleted meanwhile: no matter of the service, so nothing to remember
        ready = state == "ready"
        if not ready:
            logger.info("The service made nothing of an uploaded file (%s), so its text is used.", state)
        self._remember(
            key,
            file_id if state in {"ready", "waiting"} else None,
            ready=ready,
            keep=self._confirm_after if ready else REFUSED_FOR,
        )
        return file_id if ready else None

    def _remember(self, key: _Key, file_id: str | None, *, ready: bool, keep: float) -> None:
        self._known.pop(key, None)
        self._known[key] = _Known(file_id, ready, time.monotonic() + keep)
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

    async def _upload(self, credential: Credential, document: Document) -> str | None:
        """Give the new file's id; None: the service does not take it. Raises `OSError` if it cannot be read."""
        boundary = secrets.token_hex(16)
        head, tail = protocol.upload_ends(document.name, document.media_type, boundary)
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(head) + document.size + len(tail)),
        }
        with closing(await asyncio.to_thread(opened, document)) as file:
            body = _pieces(head, file, document.size, tail)
            answer = await self._ask(credential, "POST", headers=headers, body=body)
        if answer.refused:
            return None
        record = _decoded(answer.body, _Record)
        if record is None or not _ID.fullmatch(record.id):
            raise UpstreamUnavailable("The upstream took a file and did not say its id (K2THINK_API_URL?).")
        return record.id

    async def _processed(self, credential: Credential, file_id: str) -> State:
        """Wait until the service has made out the file's text; `waiting`: it has not, as long as we care to wait."""
        pause = FIRST_PAUSE
        try:
            async with asyncio.timeout(self._patience):
                while (state := await self._state(credential, file_id)) == "waiting":
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                # Some releases are done with a file of which they can read nothing. A chat would leave it out.
                if state == "ready" and await self._recorded(credential, file_id) == "waiting":
                    return "failed"
                return state
        except TimeoutError:
            return "waiting"

    async def _state(self, credential: Credential, file_id: str) -> State:
        answer = await self._ask(credential, "GET", f"{file_id}/process/status")
        found = None if answer.refused else _decoded(answer.body, _Status)
        if found is not None and found.status:
            return _STATES.get(found.status, "waiting")
        # An unknown file, or a release that has no such route: some of them give their web page then.
        return await self._recorded(credential, file_id)

    async def _recorded(self, credential: Credential, file_id: str) -> State:
        """What the file's record says; it is ready as soon as it has a text."""
        answer = await self._ask(credential, "GET", file_id)
        if answer.refused:
            return "gone"
        if len(answer.body) == MAX_RECORD:
            return "ready"
        record = _decoded(answer.body, _Record)
        if record is None or record.data is None:
            raise UpstreamUnavailable("The upstream did not describe a file that it has (K2THINK_API_URL?).")
        if record.data.content and record.data.content.strip():
            return "ready"
        return "failed" if record.data.status == "failed" else "waiting"

    async def _ask(
        self,
        credential: Credential,
        method: Literal["GET", "POST"],
        path: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        body: AsyncIterator[bytes] | None = None,
    ) -> _Answer:
        """Raises `UpstreamError`, but not for what is refused on account of the file."""
        head = {**protocol.headers(credential.secret), "Accept": "application/json", **(headers or {})}
        url = protocol.files_url(self._url, path)
        async with await self._transport.request(method, url, headers=head, body=body) as reply:
            if reply.status == 200:
                # The answer to an upload holds the whole text where that is made out at once.
                return _Answer(await (reply.read_beginning(MAX_RECORD) if method == "GET" else reply.read_whole()))
            said = await reply.read_beginning(MAX_ERROR_BODY)
            if (400 <= reply.status < 500 and reply.status not in _ABOUT_US) or _forbids(reply.status, said):
                return _Answer(said, refused=True)
            raise error_of_status(reply.status, reply.headers, said, owns_tokens=Speaker.SERVICE, now=time.time())


def _forbids(status: int, said: bytes) -> bool:
    """Whether the account may not have files. A user who may do nothing at all hears the same, of the chat too."""
    return status == 401 and read_refusal(said).message.startswith("You do not have permission")


def _decoded(body: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


async def _pieces(head: bytes, file: BinaryIO, size: int, tail: bytes) -> AsyncIterator[bytes]:
    yield head
    while size:
        piece = await asyncio.to_thread(file.read, min(PIECE, size))
        if not piece:
            raise OSError("The file is shorter than it was.")
        size -= len(piece)
        yield piece
    yield tail
