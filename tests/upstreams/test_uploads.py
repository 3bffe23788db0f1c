"""Documents at the web service: over real HTTP, before the simulator and before odd servers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2 as httpx
import pytest
from clocks import later
from conftest import client_of
from serving import serving

from k2think import errors
from k2think.credentials.credential import Credential
from k2think.dialogue.events import TextDelta
from k2think.dialogue.prompt import Document, DocumentText, Message, Prompt
from k2think.simulator.app import SimulatorOptions, create_simulator, mint_token
from k2think.simulator.options import RELEASES, Release
from k2think.simulator.options import Account as User
from k2think.upstreams.k2think.files import PIECE, Uploads
from k2think.upstreams.k2think.upstream import K2ThinkUpstream
from k2think.upstreams.patience import Patience
from k2think.upstreams.transport import Transport

T = TypeVar("T")

MODEL = "MBZUAI-IFM/K2-Think"
FACT = b"The secret word is xylophone.\n"
SPOILT = ("uploads_refused", "files_too_large", "files_never_processed", "files_fail")
TROUBLED = ("no_file_status",)


@dataclass
class Service:
    """A simulator of one release."""

    url: str
    release: Release
    http: httpx.Client

    @property
    def chat_url(self) -> str:
        return f"{self.url}/api/chat/completions"

    def token(self, email: str) -> Credential:
        return Credential.of(mint_token(email, release=self.release))

    def files(self, email: str) -> list[dict[str, Any]]:
        found = self.http.get("/simulator/files").json()["files"]
        return [file for file in found if file["account"] == email]

    def last_chat(self) -> dict[str, Any]:
        return self.chats()[-1]

    def chats(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.http.get("/simulator/requests").json()["requests"]
        return found

    def post(self, path: str, **body: str) -> None:
        assert self.http.post(f"/simulator/{path}", json=body).status_code == 200


@pytest.fixture(scope="module", params=RELEASES)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    users = {f"{name}@example.com": User() for name in ("one", "two")}
    users |= {f"{fault}@example.com": User(faults=(fault,)) for fault in (*SPOILT, *TROUBLED)}
    options = SimulatorOptions(release=request.param, models=(MODEL,), accounts=users)
    with serving(create_simulator(options)) as url, client_of(base_url=url) as http:
        yield Service(url, request.param, http)


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest) -> None:
    if "service" in request.fixturenames:
        service: Service = request.getfixturevalue("service")
        service.post("reset")
        service.post("forget_files")


def document(data: bytes = FACT, name: str = "notes.txt", path: Path | None = None) -> Document:
    """One in memory, or at a path where it is put."""
    if path is not None:
        path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return Document(name, "text/plain", digest, len(data), path, None if path else data)


def prompt(*documents: Document) -> Prompt:
    return Prompt(MODEL, (Message("user", "What is the secret word?", attachments=documents),))


def using(act: Callable[[Transport], Awaitable[T]], patience: Patience | None = None) -> T:
    async def run() -> T:
        transport = Transport(patience=patience or Patience(60, 60, 60, 60), max_connections=20)
        await transport.start()
        try:
            return await act(transport)
        finally:
            await transport.close()

    return asyncio.run(run())


async def text_of(document: Document, limit: int) -> DocumentText:
    assert limit == 1000
    return DocumentText(f"our own text of {document.name}")


async def ask(upstream: K2ThinkUpstream, credential: Credential, *documents: Document) -> str:
    async with aclosing(upstream.open(prompt(*documents), MODEL, credential)) as batches:
        events = [event async for batch in batches for event in batch]
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def upstream_of(transport: Transport, service: Service, **how: float) -> K2ThinkUpstream:
    uploads = Uploads(transport, service.chat_url, **how)  # type: ignore[arg-type]
    return K2ThinkUpstream(transport, service.chat_url, text_of, 1000, uploads=uploads)


def test_a_document_is_uploaded_once_and_named_in_each_chat(service: Service, tmp_path: Path) -> None:
    here = document(FACT * 30_000, 'my "ünï" notes.txt', tmp_path / "file")
    other = document(b"Something else.", "other.txt")
    one = service.token("one@example.com")

    async def act(transport: Transport) -> None:
        upstream = upstream_of(transport, service)
        assert await ask(upstream, one, here, other, here)
        assert here.size > 3 * PIECE
        (tmp_path / "file").unlink()  # nobody needs it any more
        assert await ask(upstream, one, here)

    using(act)
    first, second = sorted(service.files("one@example.com"), key=lambda file: -int(file["size"]))
    assert (first["sha256"], second["sha256"]) == (here.digest, other.digest)
    assert (first["filename"], first["content_type"]) == ("my %22ünï%22 notes.txt", "text/plain")
    assert "transfer-encoding" not in first["headers"]
    records = service.chats()
    assert [record["body"]["files"] for record in records] == [
        [{"type": "file", "id": first["id"]}, {"type": "file", "id": second["id"]}],
        [{"type": "file", "id": first["id"]}],
    ]
    assert "our own text" not in json.dumps(records[0]["body"])
    assert "xylophone" in json.dumps(records[0]["seen"])


def test_each_account_gets_its_own_and_one_that_dies_costs_one_upload(service: Service) -> None:
    one, two = service.token("one@example.com"), service.token("two@example.com")

    async def act(transport: Transport) -> None:
        upstream = upstream_of(transport, service)
        await ask(upstream, one, document())
        service.post("revoke", email="one@example.com")
        with pytest.raises(errors.CredentialRejected):
            await ask(upstream, one, document())
        await ask(upstream, two, document())
        with pytest.raises(errors.CredentialRejected):
            await ask(upstream, one, document(b"Another file."))  # the upload itself meets it

    using(act)
    assert len(service.files("one@example.com")) == 1
    [theirs] = service.files("two@example.com")
    assert service.last_chat()["body"]["files"] == [{"type": "file", "id": theirs["id"]}]


@pytest.mark.parametrize("fault", SPOILT)
def test_where_the_service_cannot_use_it_its_text_goes_instead_and_it_is_not_tried_again_soon(
    service: Service, fault: str
) -> None:
    email = f"{fault}@example.com"
    credential = service.token(email)

    async def act(transport: Transport) -> None:
        upstream = upstream_of(transport, service, patience=0.3)
        for _ in range(2):
            await ask(upstream, credential, document())
            body = service.last_chat()["body"]
            assert "our own text of notes.txt" in body["messages"][-1]["content"]
            assert "files" not in body

    using(act)
    assert len(service.files(email)) == (0 if fault in SPOILT[:2] else 1)


def test_what_holds_no_text_for_the_service_is_not_taken_for_ready(service: Service) -> None:
    async def act(transport: Transport) -> str | None:
        picture = Document("scan.png", "image/png", "d" * 64, 4, data=b"\x89PNG")
        return await Uploads(transport, service.chat_url).ensure(service.token("one@example.com"), picture)

    assert using(act) is None


def test_a_release_without_a_status_route_is_asked_for_the_text(service: Service) -> None:
    email = "no_file_status@example.com"
    found = using(lambda transport: Uploads(transport, service.chat_url).ensure(service.token(email), document()))
    assert [found] == [file["id"] for file in service.files(email)]


def test_a_file_that_is_gone_there_is_uploaded_anew_and_one_that_is_there_is_not(service: Service) -> None:
    one = service.token("one@example.com")

    async def act(transport: Transport) -> list[str | None]:
        uploads = Uploads(transport, service.chat_url, confirm_after=0)
        found = [await uploads.ensure(one, document()) for _ in range(2)]
        service.post("forget_files")
        return [*found, await uploads.ensure(one, document())]

    first, again, anew = using(act)
    assert first == again != anew
    assert [file["id"] for file in service.files("one@example.com")] == [anew]


def test_a_file_that_is_gone_here_is_left_to_its_text(service: Service, tmp_path: Path) -> None:
    gone = document(path=tmp_path / "file")
    (tmp_path / "file").unlink()
    uploads = using(
        lambda transport: Uploads(transport, service.chat_url).ensure(service.token("one@example.com"), gone)
    )
    assert uploads is None


def test_requests_at_once_share_an_upload_and_one_that_leaves_does_not_end_it(service: Service) -> None:
    one = service.token("one@example.com")

    async def act(transport: Transport) -> set[str | None]:
        uploads = Uploads(transport, service.chat_url)
        waiting = [asyncio.create_task(uploads.ensure(one, document())) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        found = await asyncio.gather(*waiting[1:])
        assert waiting[0].cancelled()
        return set(found)

    found = using(act)
    assert found == {file["id"] for file in service.files("one@example.com")}
    assert len(found) == 1


# Before odd servers


class OddServer:
    """Answers uploads with one status and body after reading `reads` of their bytes; keeps what it read.

    `pause`: seconds that pass after the first byte, by the clock of the loop alone.
    """

    def __init__(self, status: int = 200, body: bytes = b"", *, reads: int | None = None, pause: float = 0.0) -> None:
        self.status, self.body, self.reads, self.pause = status, body, reads, pause
        self.uploads = 0
        self.left = asyncio.Event()  # the test is over

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        self.uploads += 1
        [length] = [int(line.partition(":")[2]) for line in head.split("\r\n") if line.startswith("content-length:")]
        try:
            await reader.readexactly(1)
            later(self.pause)
            await reader.readexactly((length if self.reads is None else self.reads) - 1)
            if self.status:
                kind = "text/html" if self.body.startswith(b"<") else "application/json"
                lines = f"HTTP/1.1 {self.status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(self.body)}\r\n\r\n"
                writer.write(lines.encode())
                await asyncio.sleep(0.02)  # as a rule the body comes a little later
                writer.write(self.body)
            await self.left.wait()
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the client has left
        finally:
            writer.close()


@asynccontextmanager
async def before(server: OddServer) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)  # else megabytes are on their way, read by nobody
    async with await asyncio.start_server(server.serve, sock=listener):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api/chat/completions"
        server.left.set()


ME = Credential.of("a-token")


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, b'{"detail":"401 Unauthorized"}', errors.CredentialRejected),
        (429, b'{"detail":"API rate limit exceeded"}', errors.QuotaExceeded),
        (401, b'{"detail":"You do not have permission to access this resource."}', None),
        (403, b'{"detail":"You do not have permission to access this resource."}', None),
        (403, b"<html>firewall</html>", None),
        (413, b"<html>too large</html>", None),
        (405, b'{"detail":"Method Not Allowed"}', None),
        (500, b"", None),
        (200, b"<html>a page</html>", None),
        (200, b'{"id":"../../etc"}', None),
        (200, b"null", None),
    ],
)
def test_only_what_is_about_the_token_is_raised_for_all_that_wait(
    status: int, body: bytes, error: type[errors.UpstreamError] | None
) -> None:
    server = OddServer(status, body)

    async def act(transport: Transport) -> list[str | BaseException | None]:
        async with before(server) as url:
            uploads = Uploads(transport, url)
            here = document()
            both = await asyncio.gather(*(uploads.ensure(ME, here) for _ in range(2)), return_exceptions=True)
            if error is None:
                assert await uploads.ensure(ME, here) is None
            assert server.uploads == 1
            if error is not None:
                with pytest.raises(error):
                    await uploads.ensure_all(ME, [here, document(b"other")])
            return both

    assert [type(found) for found in using(act)] == [error or type(None)] * 2


LARGE = 8 * 1024 * 1024  # more than the buffers of a connection hold


@pytest.mark.parametrize(("status", "reads"), [(413, 70_000), (0, 70_000)])
def test_an_upload_that_is_answered_early_or_not_taken_ends(tmp_path: Path, status: int, reads: int) -> None:
    large = document(bytes(LARGE), path=tmp_path / "large")

    async def act(transport: Transport) -> str | None:
        async with before(OddServer(status, b"{}", reads=reads)) as url:
            return await Uploads(transport, url).ensure(ME, large)

    assert using(act, Patience(60, 60, 0.3, 60)) is None


def test_the_wait_for_the_answer_begins_when_all_is_sent(tmp_path: Path) -> None:
    large = document(bytes(LARGE), path=tmp_path / "large")

    async def act(transport: Transport) -> None:
        async with before(OddServer(400, b'{"detail":"no"}', pause=1000)) as url:
            with large.path.open("rb") as file:  # type: ignore[union-attr]

                async def pieces() -> AsyncIterator[bytes]:
                    while piece := file.read(PIECE):
                        yield piece

                headers = {"Content-Length": str(LARGE)}
                async with await transport.request("POST", url, headers=headers, body=pieces()) as reply:
                    assert reply.status == 400
                    assert await reply.read_whole() == b'{"detail":"no"}'

    using(act, Patience(60, first_event=1000, silence=10_000, total=10_000))


def test_a_file_that_has_become_shorter_ends_the_upload(tmp_path: Path) -> None:
    large = document(bytes(LARGE), path=tmp_path / "large")
    (tmp_path / "large").write_bytes(b"short")

    async def act(transport: Transport) -> str | None:
        async with before(OddServer()) as url:
            return await Uploads(transport, url).ensure(ME, large)

    assert using(act) is None
