"""Fetching from strangers: what comes, what is refused, and that nobody reaches through us what is not public.

In these tests 127.0.0.1 is the public internet and 127.0.0.2 a private place that counts its visitors.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import shutil
import ssl
import subprocess
import threading
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from random import Random
from typing import Any

import pytest
from clocks import later

from k2think.errors import Overloaded, UnusableUrl
from k2think.upstreams import public_web
from k2think.upstreams.door import is_own
from k2think.upstreams.public_web import Fetched, PublicWeb

PUBLIC = IPv4Address("127.0.0.1")
LIMIT = 100_000
PATIENCE = 120.0
"""Seconds for a fetch, and for a place: no machine stands still so long. Their end is brought about by `later`."""
SECRET = "token-9f2c"
BOMB = gzip.compress(bytes(32 * 1024 * 1024), 1)

Play = Callable[["Place", asyncio.StreamWriter], Awaitable[None]]


def answer(head: str = "", body: bytes = b"", *, status: str = "200 OK") -> Play:
    async def play(place: Place, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)

    return play


def redirect(location: str, status: str = "302 Found") -> Play:
    async def play(place: Place, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status}\r\nLocation: {location.format(port=place.port)}\r\n\r\n"
        writer.write(head.encode("utf-8", "surrogateescape"))

    return play


def stall(beginning: bytes) -> Play:
    async def play(place: Place, writer: asyncio.StreamWriter) -> None:
        writer.write(beginning)
        await asyncio.Event().wait()

    return play


def endless(beginning: bytes, piece: bytes, *, pause: float = 0) -> Play:
    async def play(place: Place, writer: asyncio.StreamWriter) -> None:
        writer.write(beginning)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return play


@dataclass
class Place:
    """A server at one address: what each path plays, and who came."""

    plays: dict[str, Play]
    port: int = 0
    visits: int = 0
    heads: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            await self.plays[head.split(" ")[1].partition("?")[0]](self, writer)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.transport.abort()


class Scene:
    """A public and a private place, both at the same port, and the names that lead to them, one list a look-up."""

    def __init__(self, names: dict[str, list[list[str]]]) -> None:
        self.names = names
        self.public = Place({})
        self.private = Place({"/": answer(body=b"the private thing")})

    def find(self, name: str) -> list[str]:
        answers = self.names.get(name)
        if not answers:
            raise OSError(f"{name} is not known")
        return answers.pop(0)

    def web(self) -> PublicWeb:
        return PublicWeb(patience=PATIENCE, may_connect=lambda a: a == PUBLIC, find=self.find)


def on_stage(
    play: Callable[[Scene, PublicWeb], Coroutine[Any, Any, Any]],
    plays: dict[str, Play] | None = None,
    *,
    names: dict[str, list[list[str]]] | None = None,
) -> Scene:
    """Run a scene and give it back. Nobody may have come to the private place."""

    async def run() -> Scene:
        scene = Scene(names or {})
        scene.public.plays = plays or {}
        async with listening(scene.public, "127.0.0.1", 0), listening(scene.private, "127.0.0.2", scene.public.port):
            web = scene.web()
            await web.start()
            try:
                await play(scene, web)
            finally:
                await web.close()
        return scene

    scene = asyncio.run(run())
    assert scene.private.visits == 0
    return scene


@contextlib.asynccontextmanager
async def listening(place: Place, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    serving: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(place.serve(reader, writer)))

    server = await asyncio.start_server(connected, host, port, ssl=tls)
    place.port = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)  # the connections are taken down in the loop's next turn


def fetched(play: Play, path: str = "/", *, until_too_late: bool = False) -> Fetched:
    """What comes from a public place that plays this, also `until_too_late`: until the time is up."""
    came: list[Fetched] = []

    async def run(scene: Scene, web: PublicWeb) -> None:
        url = f"http://127.0.0.1:{scene.public.port}{path}?{SECRET}"
        fetching = asyncio.create_task(web.fetch(url, limit=LIMIT))
        if until_too_late:
            while not (scene.public.heads or fetching.done()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)  # some of it has come, as a rule
            later(PATIENCE)
        came.append(await fetching)

    on_stage(run, {path: play, "/again": play, "/file": answer(body=b"the file")})
    return came[0]


# What comes


def test_a_file_comes_with_its_name_and_nothing_of_ours_is_sent() -> None:
    async def run(scene: Scene, web: PublicWeb) -> None:
        url = f"http://Files.Example.com:{scene.public.port}/deep/a%20b%E5%9B%BE.png?{SECRET}#part"
        got = await web.fetch(url, limit=LIMIT)
        assert got == Fetched(data=b"bytes", name="a b图.png")

    play = answer("Content-Type: image/png; charset=x\r\nSet-Cookie: a=b\r\nContent-Length: 5\r\n", b"bytes")
    path = "/deep/a%20b%E5%9B%BE.png"
    scene = on_stage(run, {path: play}, names={"files.example.com": [["127.0.0.1"]]})
    first, *lines = scene.public.heads[0].strip().split("\r\n")
    assert first == f"GET {path}?{SECRET} HTTP/1.1"
    sent = dict(line.split(": ", 1) for line in lines)
    assert sent.pop("User-Agent").startswith("k2think-api-proxy/")
    assert sent == {
        "Host": f"files.example.com:{scene.public.port}",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="report 1.pdf"', "report 1.pdf"),
        ("attachment; filename*=UTF-8''%E6%8A%A5%E5%91%8A.pdf", "报告.pdf"),
        ('attachment; filename="报告.pdf"', "报告.pdf"),
        ("inline", "last"),
        ("attachment; filename*=nonsense'x'%FF%FE; ===;;", "ÿþ"),
        ('attachment; filename="' + "a" * 5000, '"' + "a" * 5000),
        ("attachment; filename*=idna''a", "last"),
        ("attachment; filename*=undefined''a", "last"),
        ("attachment; filename*=punycode''%ff", "last"),
        ("attachment; filename*=a%00''x", "last"),
        ("attachment; filename*=raw_unicode_escape''%5Cud800", "last"),
        (f"attachment; filename*{'9' * 5000}=a", "last"),
        ("attachment; filename*=a; filename*0=b", "last"),
    ],
)
def test_the_name_is_the_servers_or_the_paths(header: str, name: str) -> None:
    got = fetched(answer(f"Content-Disposition: {header}\r\n", b"x"), "/some/last")
    assert got.name == name


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
def test_a_redirect_is_followed(status: str) -> None:
    assert fetched(redirect("/file", status)).data == b"the file"


@pytest.mark.parametrize("head", ["Content-Length: 100000\r\n", ""])
def test_a_file_of_exactly_the_limit_comes(head: str) -> None:
    assert fetched(answer(head, b"x" * LIMIT)).data == b"x" * LIMIT


# What is refused


REFUSED: dict[str, tuple[Play, str, str]] = {
    "not found": (answer(status="404 Not Found"), "url_unreachable", "status 404"),
    "no content": (answer(status="204 No Content"), "url_unreachable", "status 204"),
    "a part": (answer(status="206 Partial Content", body=b"x"), "url_unreachable", "status 206"),
    "too large, as said": (stall(b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n"), "url_too_large", "100,000"),
    "too large, as counted": (answer(body=b"x" * (LIMIT + 1)), "url_too_large", "100,000"),
    "endless": (endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536), "url_too_large", "100,000"),
    "endless, in chunks": (
        endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"),
        "url_too_large",
        "100,000",
    ),
    "shorter than said": (answer("Content-Length: 50\r\n", b"x" * 49), "url_unreachable", "cannot be read"),
    "no length": (answer("Content-Length: many\r\n", b"x"), "url_unreachable", "cannot be read"),
    "two lengths": (answer("Content-Length: 1\r\nContent-Length: 2\r\n", b"xx"), "url_unreachable", "cannot be read"),
    "a length of 5,000 digits": (answer(f"Content-Length: {'9' * 5000}\r\n"), "url_unreachable", "cannot be read"),
    "headers without end": (endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000), "url_unreachable", "cannot be read"),
    "one header without end": (endless(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65536), "url_unreachable", "cannot be read"),
    "no HTTP": (answer(status="what"), "url_unreachable", "cannot be read"),
    "silence": (stall(b""), "url_unreachable", "within"),
    "compressed": (answer("Content-Encoding: gzip\r\n", BOMB), "url_unreachable", "compressed"),
    "stalled head": (stall(b"HTTP/1.1 200 OK\r\n"), "url_unreachable", "within"),
    "stalled body": (stall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"), "url_unreachable", "within"),
    "a byte now and then": (endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x", pause=0.05), "url_unreachable", "within"),
    "news without end": (endless(b"", b"HTTP/1.1 102 Processing\r\n\r\n", pause=0.01), "url_unreachable", "within"),
    "redirects in a circle": (redirect("/again"), "url_unreachable", "redirects again"),
    "redirects to itself": (redirect("/"), "url_unreachable", "redirects again"),
    "redirect to nowhere": (redirect(""), "url_unreachable", "redirects again"),
    "redirect to private": (redirect("http://127.0.0.2:{port}/"), "url_not_allowed", "http://127.0.0.2 has no public"),
    "redirect to mapped": (redirect("http://[::ffff:7f00:2]:{port}/"), "url_not_allowed", "public"),
    "redirect to a user": (redirect("http://x@127.0.0.2:{port}/"), "url_not_allowed", "redirects to"),
    "redirect to a file": (redirect("file:///etc/passwd"), "url_not_allowed", "redirects to"),
    "redirect to nonsense": (redirect("http://[::1"), "url_not_allowed", "not valid"),
    "redirect to bytes": (redirect("/\udcff"), "url_not_allowed", "redirects to"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_file_is_refused_in_time(name: str) -> None:
    play, code, words = REFUSED[name]
    with pytest.raises(UnusableUrl) as refusal:
        fetched(play, until_too_late=words == "within")
    assert (refusal.value.code, refusal.value.status) == (code, 400)
    assert words in refusal.value.message
    assert "http://127.0.0." in refusal.value.message or "public" in refusal.value.message
    assert SECRET not in refusal.value.message


def test_a_compressed_bomb_is_not_unpacked() -> None:
    assert len(BOMB) < 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(UnusableUrl):
            fetched(answer("Content-Encoding: gzip\r\n", BOMB))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_headers_of_any_bytes_do_no_harm() -> None:
    random = Random(5)  # the same noise each time
    names = ("Content-Type", "Content-Disposition", "Location", "Content-Encoding", "Set-Cookie", "Content-Length")

    async def noise(place: Place, writer: asyncio.StreamWriter) -> None:
        writer.write(random.choice([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 302 Found\r\n"]))
        for name in random.sample(names, 3):
            value = bytes(random.choice(b"\x80\xff\xc3\xa9;=\"'*%/: ,abchtp09[]@") for _ in range(random.randrange(40)))
            writer.write(name.encode() + b": " + value + b"\r\n")
        writer.write(b"\r\n")

    async def run(scene: Scene, web: PublicWeb) -> None:
        for _ in range(60):
            with contextlib.suppress(UnusableUrl):
                await web.fetch(f"http://127.0.0.1:{scene.public.port}/", limit=LIMIT)
        assert scene.public.visits >= 60

    on_stage(run, {"/": noise})


def test_an_unverified_certificate_is_refused(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    pair = ["-keyout", f"{tmp_path}/key.pem", "-out", f"{tmp_path}/cert.pem"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=files.example.com"]
    subprocess.run(["openssl", "req", "-x509", *kind, *pair], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def run(scene: Scene, web: PublicWeb) -> None:
        place = Place({"/": answer(body=b"x")})
        async with listening(place, "127.0.0.1", 0, tls=tls):
            with pytest.raises(UnusableUrl) as refusal:
                await web.fetch(f"https://files.example.com:{place.port}/", limit=LIMIT)
        assert refusal.value.code == "url_unreachable"
        assert place.heads == []

    on_stage(run, names={"files.example.com": [["127.0.0.1"]]})


# Addresses


def test_a_name_that_changes_its_address_gains_nothing() -> None:
    """One look-up a connection, and what it gave is what is connected to."""
    names = {"files.example.com": [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2", "127.0.0.1"], ["::1", "::ffff:7f00:2"]]}

    async def run(scene: Scene, web: PublicWeb) -> None:
        url = f"http://files.example.com:{scene.public.port}/"
        assert (await web.fetch(url, limit=LIMIT)).data == b"public"
        assert len(names["files.example.com"]) == 3
        with pytest.raises(UnusableUrl) as refusal:
            await web.fetch(url, limit=LIMIT)
        assert refusal.value.code == "url_not_allowed"
        assert (await web.fetch(url, limit=LIMIT)).data == b"public"
        with pytest.raises(UnusableUrl) as refusal:
            await web.fetch(url, limit=LIMIT)
        assert refusal.value.code == "url_not_allowed"

    on_stage(run, {"/": answer(body=b"public")}, names=names)


def test_nobody_learns_which_internal_names_there_are() -> None:
    told: list[tuple[str, str]] = []

    async def run(scene: Scene, web: PublicWeb) -> None:
        for name in ("inside.example.com", "nowhere.example.com"):
            with pytest.raises(UnusableUrl) as refusal:
                await web.fetch(f"http://{name}:{scene.public.port}/", limit=LIMIT)
            told.append((refusal.value.code, refusal.value.message.replace(name, "…")))

    on_stage(run, names={"inside.example.com": [["127.0.0.2"]]})
    assert told[0] == told[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "files.example.com"])
def test_our_own_address_is_not_connected_to_even_if_it_is_public(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_web, "is_public", lambda _: True)

    async def run(scene: Scene, _: PublicWeb) -> None:
        web = PublicWeb(find=scene.find)
        await web.start()
        try:
            with pytest.raises(UnusableUrl) as refusal:
                await web.fetch(f"http://{host}:{scene.public.port}/", limit=LIMIT)
        finally:
            await web.close()
        assert refusal.value.code == "url_not_allowed"

    scene = on_stage(run, {"/": answer(body=b"x")}, names={"files.example.com": [["127.0.0.1"]]})
    assert scene.public.visits == 0


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("2001:db8::1", False),
    ],
)
def test_own_is_what_this_machine_has(address: str, own: bool) -> None:
    assert is_own(ip_address(address)) is own


def test_a_name_server_that_never_answers_holds_up_nobody_else() -> None:
    asked: list[str] = []
    answered = threading.Event()
    before = set(threading.enumerate())

    def find(name: str) -> list[str]:
        if name == "files.example.com":
            return ["127.0.0.1"]
        asked.append(name)
        answered.wait()
        return [name]

    async def run(scene: Scene, _: PublicWeb) -> None:
        web = PublicWeb(patience=PATIENCE, may_connect=lambda a: a == PUBLIC, find=find)
        await web.start()
        try:
            silent = asyncio.gather(
                *(web.fetch("https://silent.example.com/", limit=LIMIT) for _ in range(public_web.MAX_AT_ONCE)),
                return_exceptions=True,
            )
            while len(asked) < public_web.MAX_AT_ONCE:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            later(PATIENCE)
            refused = await silent
            assert {getattr(error, "code", error) for error in refused} == {"url_unreachable"}
            got = await web.fetch(f"http://files.example.com:{scene.public.port}/", limit=LIMIT)
            assert got.data == b"x"
        finally:
            await web.close()

    try:
        on_stage(run, {"/": answer(body=b"x")})
        left = set(threading.enumerate()) - before
        assert all(thread.daemon for thread in left)  # the process does not wait for them at its end
    finally:
        answered.set()


# Many at once


def test_fetches_wait_for_a_place_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_web, "MAX_AT_ONCE", 2)
    full = {2: asyncio.Event(), 4: asyncio.Event()}
    gate = asyncio.Event()

    async def held(place: Place, writer: asyncio.StreamWriter) -> None:
        if place.visits in full:
            full[place.visits].set()
        await gate.wait()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nx")

    async def run(scene: Scene, web: PublicWeb) -> None:
        url = f"http://127.0.0.1:{scene.public.port}/"
        running = [asyncio.create_task(web.fetch(url, limit=LIMIT)) for _ in range(2)]
        await full[2].wait()
        later(PATIENCE / 2)
        waiting = [asyncio.create_task(web.fetch(url, limit=LIMIT)) for _ in range(3)]
        await asyncio.sleep(0)
        later(PATIENCE / 2)  # for those that run all of their time, for those that wait half
        results = await asyncio.gather(*running, return_exceptions=True)
        assert {type(result) for result in results} == {UnusableUrl}  # nothing came in time
        await asyncio.wait_for(full[4].wait(), PATIENCE)
        *served, late = waiting
        assert not any(task.done() for task in waiting)
        later(PATIENCE / 2)
        with pytest.raises(Overloaded):
            await late
        assert scene.public.visits == 4
        gate.set()
        assert [(await task).data for task in served] == [b"x"] * 2
        assert (await web.fetch(url, limit=LIMIT)).data == b"x"

    on_stage(run, {"/": held})
