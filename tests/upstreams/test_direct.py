"""The short way upstream: which connection a request gets, and what becomes of it, before servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from clocks import later

from k2think.errors import UpstreamTimeout, UpstreamUnavailable
from k2think.upstreams import direct
from k2think.upstreams.direct import Direct
from k2think.upstreams.patience import Patience
from k2think.upstreams.transport import Transport

T = TypeVar("T")

LONG = Patience(60, 60, 60, 60)


class Server:
    """Answers each request with its number and that of its connection, once it may; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.connections = 0
        self.ended = asyncio.Semaphore(0)  # one for each connection that the client has closed
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.closes = False  # behind an answer, without having said so

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        mine = self.connections
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.asked.append(head)
                await self.may_answer.wait()
                body = b"%d on %d" % (len(self.asked), mine)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended.release()
        finally:
            writer.close()


@asynccontextmanager
async def before(server: Server, **options: Any) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    async with await asyncio.start_server(server.serve, sock=listener, **options):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/a chat?b=c"


def client(patience: Patience = LONG, max_connections: int = 10) -> Direct:
    return Direct(
        patience=patience,
        max_connections=max_connections,
        headers={"User-Agent": "test"},
        make_socket=lambda wanted: socket.socket(*wanted[:3]),
    )


def running(act: Callable[[Server, str], Awaitable[T]]) -> T:
    async def run() -> T:
        server = Server()
        async with before(server) as url:
            return await act(server, url)

    return asyncio.run(run())


async def said(ours: Direct, url: str, headers: dict[str, str] | None = None) -> str:
    answer = await ours.send("GET", url, headers or {}, None)
    try:
        await answer.head()
        return (await answer.read()).decode()
    finally:
        answer.close()


def test_a_connection_serves_one_request_after_the_other() -> None:
    async def act(server: Server, url: str) -> list[str]:
        ours = client()
        found = [await said(ours, url) for _ in range(3)]
        server.may_answer.clear()
        both = [asyncio.create_task(said(ours, url)) for _ in range(2)]
        while len(server.asked) < 5:  # noqa: ASYNC110 - what is waited for is on the wire
            await asyncio.sleep(0)
        server.may_answer.set()
        found += sorted([await one for one in both], key=lambda text: text[-1])
        ours.close()
        for _ in range(2):
            await server.ended.acquire()
        return found

    assert [text.partition(" on ")[2] for text in running(act)] == ["1", "1", "1", "1", "2"]


def test_a_request_is_written_as_it_should_be() -> None:
    async def act(server: Server, url: str) -> None:
        answer = await client().send("POST", url, {"Authorization": "Bearer x"}, b"{}")
        await answer.head()
        answer.close()
        host = url.split("/")[2]
        assert server.asked == [
            f"POST /a%20chat?b=c HTTP/1.1\r\nHost: {host}\r\nUser-Agent: test\r\n"
            "Authorization: Bearer x\r\nContent-Length: 2\r\n\r\n".encode()
        ]

    running(act)


@pytest.mark.parametrize("value", ["x\r\nHost: elsewhere", "x\nHost: elsewhere", "x\rHost: elsewhere"])
def test_no_header_can_bring_another(value: str) -> None:
    async def act(server: Server, url: str) -> None:
        with pytest.raises(ValueError, match="line end"):
            await said(client(), url, {"Cookie": value})
        assert not server.asked

    running(act)


def test_a_kept_connection_that_is_closed_or_old_is_not_used() -> None:
    async def act(server: Server, url: str) -> list[str]:
        ours = client()
        server.closes = True
        found = [await said(ours, url)]
        server.closes = False
        [[(kept, _)]] = ours._kept.values()
        while kept.is_open:  # noqa: ASYNC110 - what is waited for is on the wire
            await asyncio.sleep(0)
        found.append(await said(ours, url))
        later(direct.KEPT_SECONDS + 1)
        found.append(await said(ours, url))
        ours.close()
        return found

    assert [text.partition(" on ")[2] for text in running(act)] == ["1", "2", "3"]


def test_what_waits_too_long_is_closed() -> None:
    async def act(server: Server, url: str) -> None:
        ours = client()
        await said(ours, url)
        later(direct.KEPT_SECONDS + 1)
        await server.ended.acquire()

    running(act)


def test_only_so_many_connections_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(server: Server, url: str) -> None:
        ours = client(Patience(connect=60, first_event=0.05, silence=60, total=60), max_connections=1)
        answer = await ours.send("GET", url, {}, None)
        with pytest.raises(UpstreamTimeout, match="MAX_CONNECTIONS"):
            await said(ours, url)
        answer.close()
        assert await said(ours, url)
        assert await said(ours, url)  # a place was given back each time

    running(act)


def test_a_request_that_waits_for_a_connection_gets_the_next() -> None:
    async def act(server: Server, url: str) -> None:
        ours = client(max_connections=1)
        answer = await ours.send("GET", url, {}, None)
        await answer.head()
        await answer.read()
        waiting = asyncio.create_task(said(ours, url))
        await asyncio.sleep(0)
        answer.close()
        assert await waiting == "2 on 1"

    running(act)


def test_a_place_comes_back_when_no_connection_could_be_made(closed_port: int) -> None:
    async def run() -> None:
        ours = client(max_connections=1)
        for _ in range(3):
            with pytest.raises(UpstreamUnavailable, match="No connection to the upstream: Connect"):
                await said(ours, f"http://127.0.0.1:{closed_port}/")
        with pytest.raises(UpstreamUnavailable, match="No connection to the upstream"):
            await said(ours, "http://no-such-host.invalid/")

    asyncio.run(run())


@pytest.mark.parametrize("url", ["ftp://host/", "//host/", "", "http://", "http://host:99999/"])
def test_a_url_that_names_no_server_is_told(url: str) -> None:
    async def run() -> None:
        with pytest.raises(UpstreamUnavailable, match="K2THINK_API_URL"):
            await said(client(), url)

    asyncio.run(run())


def test_another_address_is_tried_and_a_name_is_looked_up_once(
    monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    async def act(server: Server, url: str) -> None:
        port = int(url.split(":")[2].partition("/")[0])
        names: list[str] = []

        async def found(name: str, asked: int, **_: Any) -> list[Any]:
            names.append(name)
            await asyncio.sleep(0)
            addresses = [("127.0.0.1", closed_port), ("127.0.0.1", port)]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
        ours = client()
        far = f"http://somewhere:{port}/"
        assert len(await asyncio.gather(*(said(ours, far) for _ in range(5)))) == 5
        assert names == ["somewhere"]
        later(direct.ADDRESSES_SECONDS + 1)
        await said(ours, far)
        assert names == ["somewhere"] * 2

    running(act)


def test_only_what_may_be_asked_twice_is_asked_again_where_nothing_was_answered() -> None:
    class Sleepy(Server):
        """Hangs up on the second request of each connection."""

        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            with contextlib.suppress(asyncio.IncompleteReadError):
                self.asked.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.close()

    async def run() -> None:
        server = Sleepy()
        async with before(server) as url:
            transport = Transport(patience=LONG, max_connections=1)
            await transport.start()

            async def whole(method: str) -> bytes:
                async with await transport.request(method, url, headers={}) as reply:
                    return await reply.read_whole()

            assert await whole("GET") == b"ok"
            assert await whole("GET") == b"ok"
            assert server.connections == 2
            with pytest.raises(UpstreamUnavailable, match="instead of answering"):
                await whole("POST")
            assert (server.connections, len(server.asked)) == (2, 4)
            await transport.close()

    asyncio.run(run())


def tls_of(folder: Path) -> ssl.SSLContext:
    """A server's, with a certificate for 127.0.0.1 that nobody has signed: `certificate.pem` in the folder."""
    pair = ("-keyout", folder / "key.pem", "-out", folder / "certificate.pem")
    kind = (
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=here",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    )
    subprocess.run(["openssl", "req", "-x509", *kind, *pair], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return tls


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("head", [b"content-length: 100000\r\n", b""])
def test_over_tls_nothing_is_lost_where_the_server_hangs_up_on_a_slow_reader(
    head: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = tls_of(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))

    listener = socket.create_server(("127.0.0.1", 0))

    def answer_and_leave() -> None:
        with tls.wrap_socket(listener.accept()[0], server_side=True) as connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n" + head + b"\r\n" + bytes(100_000))
            connection.shutdown(socket.SHUT_WR)  # without a word of TLS, and without waiting for one
            with contextlib.suppress(OSError):
                connection.recv(1)  # until it is hung up on

    async def run() -> int:
        serving = asyncio.create_task(asyncio.to_thread(answer_and_leave))
        ours = client()
        answer = await ours.send("GET", f"https://127.0.0.1:{listener.getsockname()[1]}/", {}, None)
        await answer.head()
        size = 0
        while chunk := await answer.read():
            size += len(chunk)
            await asyncio.sleep(0.01)  # as a client does who is slow
        answer.close()
        await serving
        return size

    with listener:
        assert asyncio.run(run()) == 100_000


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_certificate_must_be_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = tls_of(tmp_path)

    async def run() -> None:
        server = Server()
        async with before(server, ssl=tls) as plain:
            url = plain.replace("http:", "https:")
            with pytest.raises(UpstreamUnavailable, match="certificate"):
                await said(client(), url)
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
            ours = client()
            found = [await said(ours, url) for _ in range(2)]
            assert [text[-1] for text in found] == [found[0][-1]] * 2  # on one connection
            with pytest.raises(UpstreamUnavailable, match="certificate"):
                await said(client(), url.replace("127.0.0.1", "localhost"))
            ours.close()

    asyncio.run(run())
