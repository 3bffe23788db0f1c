"""One connection to an upstream: what comes on it, cut anywhere, is one answer; and when it may serve again."""

from __future__ import annotations

import asyncio
import gzip
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import PATIENCE

from k2think.errors import UpstreamTimeout, UpstreamUnavailable
from k2think.upstreams.connection import BUFFER_BYTES, MAX_BARE, WAITING_BYTES, Answer, PlainConnection

T = TypeVar("T")

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"content-length: 5\r\n\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class Line:
    """A connection on which comes what a test lets arrive; `left`: whether it may serve again, for each answer."""

    def __init__(self, connection: PlainConnection, peer: socket.socket, left: list[bool]) -> None:
        self.connection = connection
        self.peer = peer
        self.left = left

    def ask(self) -> Answer:
        return self.connection.send(REQUEST, None)

    def arrive(self, *pieces: bytes) -> None:
        for piece in pieces:
            for place in range(0, len(piece), WAITING_BYTES):
                part = piece[place : place + WAITING_BYTES]
                self.connection.get_buffer(-1)[: len(part)] = part
                self.connection.buffer_updated(len(part))


@asynccontextmanager
async def line() -> AsyncIterator[Line]:
    ours, theirs = socket.socketpair()
    left: list[bool] = []
    buffer = memoryview(bytearray(BUFFER_BYTES))
    transport, connection = await asyncio.get_running_loop().create_connection(
        lambda: PlainConnection(buffer, lambda _, serves: left.append(serves)), sock=ours
    )
    with theirs:
        yield Line(connection, theirs, left)
        transport.abort()


def on_a_line(act: Callable[[Line], Awaitable[T]]) -> T:
    async def run() -> T:
        async with line() as ours:
            return await act(ours)

    return asyncio.run(run())


class Told(NamedTuple):
    """What an answer told."""

    status: int
    body: bytes
    headers: dict[str, str]
    serves: bool


async def told(ours: Line, answer: Answer) -> Told:
    await answer.head()
    body = b""
    while chunk := await answer.read():
        body += chunk
    assert answer.has_ended
    answer.close()
    return Told(answer.status, body, answer.headers, ours.left[-1])


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(OK + b"Content-Type: a/b\r\n" + LENGTH + b"hello", (200, b"hello", True), id="length"),
        pytest.param(OK + CHUNKED + b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", (200, b"hello", True), id="chunked"),
        pytest.param(OK + CHUNKED + b"5\r\nhello\r\n0\r\nstatus: 9\r\n\r\n", (200, b"hello", True), id="trailer"),
        pytest.param(OK + b"connection: close\r\n" + LENGTH + b"hello", (200, b"hello", False), id="close"),
        pytest.param(b"HTTP/1.0 200 OK\r\n" + LENGTH + b"hello", (200, b"hello", False), id="1.0"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", True), id="204"),
        pytest.param(b"HTTP/1.1 200 OK\ncontent-length: 5\n\nhello", (200, b"hello", True), id="bare-line-ends"),
        pytest.param(OK + CHUNKED + b"5  \r\nhello\r\n0\r\n\r\n", (200, b"hello", True), id="blanks"),
        pytest.param(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", (503, b"", True), id="empty"),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK + LENGTH + b"hello",
            (200, b"hello", True),
            id="announced",
        ),
    ],
)
def test_an_answer_is_the_same_however_it_is_cut(raw: bytes, expected: tuple[int, bytes, bool]) -> None:
    async def read(*pieces: bytes) -> Told:
        async with line() as ours:
            answer = ours.ask()
            ours.arrive(*pieces)
            return await told(ours, answer)

    async def run() -> None:
        whole = await read(raw)
        assert (whole.status, whole.body, whole.serves) == expected
        assert not {"link", "status"} & whole.headers.keys()
        cuts: list[Sequence[bytes]] = [[raw[place : place + 1] for place in range(len(raw))]]
        cuts += [(raw[:place], raw[place:]) for place in range(1, len(raw))]
        for pieces in cuts:
            assert await read(*pieces) == whole

    asyncio.run(run())


@given(pieces=st.lists(st.binary(min_size=1, max_size=50), max_size=20), cuts=st.lists(st.integers(1, 60), max_size=40))
def test_a_chunked_body_comes_as_it_was_sent(pieces: list[bytes], cuts: list[int]) -> None:
    raw = OK + CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    async def act(ours: Line) -> Told:
        answer = ours.ask()
        rest = raw
        for cut in cuts:
            ours.arrive(rest[:cut])
            rest = rest[cut:]
        ours.arrive(rest)
        return await told(ours, answer)

    assert on_a_line(act).body == b"".join(pieces)


def test_several_answers_come_one_after_the_other() -> None:
    async def act(ours: Line) -> list[Told]:
        found = []
        for word in (b"hello", b"there"):
            answer = ours.ask()
            ours.arrive(OK + LENGTH + word)
            found.append(await told(ours, answer))
        return found

    assert [one.body for one in on_a_line(act)] == [b"hello", b"there"]


def test_headers_and_cookies_are_found() -> None:
    async def act(ours: Line) -> Answer:
        answer = ours.ask()
        cookies = b'Set-Cookie: token="a.b"; Path=/; Partitioned\r\nset-cookie: other=1=2\r\n'
        ours.arrive(OK + b"Retry-After: 5\r\nX-Odd: \xc3\xbc\xff\r\n" + cookies + LENGTH)
        await answer.head()
        return answer

    answer = on_a_line(act)
    assert (answer.headers["retry-after"], answer.headers["x-odd"]) == ("5", "ü\udcff")
    assert answer.cookies == {"token": "a.b", "other": "1=2"}


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="no HTTP"),
        pytest.param(OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", id="two lengths"),
        pytest.param(OK + b"content-length: -5\r\n\r\n", id="no length"),
        pytest.param(OK + CHUNKED + b"zz\r\n", id="no chunk"),
        pytest.param(b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", id="another protocol"),
        pytest.param(OK + b"a: " + b"x" * (MAX_BARE + WAITING_BYTES), id="endless header"),
        pytest.param(OK + b"a: b\r\n" * (MAX_BARE // 4), id="endless headers"),
        pytest.param(OK + CHUNKED + b"1;" + b"x" * (MAX_BARE + WAITING_BYTES), id="endless extension"),
    ],
)
def test_what_is_no_answer_is_refused_and_hung_up_on(raw: bytes) -> None:
    async def act(ours: Line) -> None:
        answer = ours.ask()
        ours.arrive(*(raw[place : place + WAITING_BYTES] for place in range(0, len(raw), WAITING_BYTES)))
        with pytest.raises(UpstreamUnavailable):
            await told(ours, answer)
        assert not ours.connection.is_open
        answer.close()
        assert ours.left == [False]

    on_a_line(act)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "closed the connection instead of answering"),
        (OK[:9], "closed the connection instead of answering"),
        (OK + LENGTH + b"hell", "cut off"),
        (OK + CHUNKED + b"5\r\nhello\r\n", "cut off"),
    ],
)
def test_an_answer_that_breaks_off_is_told_from_one_that_ends(raw: bytes, words: str) -> None:
    async def act(ours: Line) -> None:
        answer = ours.ask()
        ours.arrive(raw)
        ours.peer.close()
        with pytest.raises(UpstreamUnavailable, match=words):
            await told(ours, answer)
        answer.close()
        assert ours.left == [False]

    on_a_line(act)


@pytest.mark.parametrize("header", [b"", b"transfer-encoding: identity\r\n"])
def test_without_a_length_the_end_of_the_connection_is_that_of_the_body(header: bytes) -> None:
    async def act(ours: Line) -> Told:
        answer = ours.ask()
        ours.arrive(OK + header + b"\r\nhello")
        ours.peer.shutdown(socket.SHUT_WR)
        return await told(ours, answer)

    found = on_a_line(act)
    assert (found.body, found.serves) == (b"hello", False)


@pytest.mark.parametrize("more", [OK + LENGTH + b"there", b"HTTP/1.1 200 OK\r\nx: ", b"H", b"more"])
def test_what_comes_behind_an_answer_ends_the_connection_and_not_the_answer(more: bytes) -> None:
    async def act(ours: Line) -> Told:
        answer = ours.ask()
        waiting = asyncio.create_task(told(ours, answer))
        await asyncio.sleep(0)
        ours.arrive(OK + LENGTH + b"hello" + more)
        return await asyncio.wait_for(waiting, PATIENCE)

    found = on_a_line(act)
    assert (found.body, found.serves) == (b"hello", False)

    async def unasked(ours: Line) -> bool:
        ours.arrive(OK + LENGTH + b"hello")
        return ours.connection.is_open

    assert not on_a_line(unasked)


def test_who_leaves_before_the_end_hangs_up() -> None:
    async def act(ours: Line) -> bytes:
        answer = ours.ask()
        ours.arrive(OK + LENGTH + b"hell")
        answer.close()
        answer.close()  # once more is once too often, and does nothing
        assert ours.left == [False]
        ours.peer.setblocking(False)
        loop = asyncio.get_running_loop()
        return await loop.sock_recv(ours.peer, 100) + await loop.sock_recv(ours.peer, 100)

    assert on_a_line(act) == REQUEST


def test_an_answer_before_the_end_of_the_question_ends_the_connection() -> None:
    async def act(ours: Line) -> bool:
        answer = ours.connection.send(REQUEST, bytes(8 * 1024 * 1024))  # more than its buffers hold
        ours.arrive(OK + LENGTH + b"hello")
        return (await told(ours, answer)).serves

    assert not on_a_line(act)


def test_what_nobody_takes_is_not_read() -> None:
    async def act(ours: Line) -> None:
        answer = ours.ask()
        assert len(ours.connection.get_buffer(-1)) == WAITING_BYTES  # nobody waits yet
        waiting = asyncio.create_task(answer.head())
        await asyncio.sleep(0)
        assert len(ours.connection.get_buffer(-1)) == BUFFER_BYTES
        ours.arrive(OK + CHUNKED + b"100000\r\n")
        await waiting
        loop = asyncio.get_running_loop()
        ours.peer.setblocking(False)
        sending = asyncio.create_task(loop.sock_sendall(ours.peer, bytes(0x100000) + b"\r\n0\r\n\r\n"))
        turns = 0  # since anything came
        held = 0
        while turns < 1000 or not held:
            await asyncio.sleep(0)
            turns = turns + 1 if answer.waiting == held else 0
            held = answer.waiting
        assert WAITING_BYTES < held <= 2 * WAITING_BYTES
        assert not sending.done()
        size = 0
        while chunk := await answer.read():
            assert len(chunk) <= BUFFER_BYTES + WAITING_BYTES
            size += len(chunk)
        await sending
        assert size == 0x100000

    on_a_line(act)


def test_an_error_goes_to_who_waits_and_to_who_reads_next() -> None:
    async def act(ours: Line) -> None:
        answer = ours.ask()
        waiting = asyncio.create_task(answer.head())
        await asyncio.sleep(0)
        answer.fail(UpstreamTimeout("too slow"))
        answer.fail(UpstreamUnavailable("another"))
        with pytest.raises(UpstreamTimeout):
            await waiting
        with pytest.raises(UpstreamTimeout):
            await answer.read()

    on_a_line(act)


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        pytest.param("gzip", gzip.compress(b"hello"), id="gzip"),  # its bytes tell the time
        pytest.param("GZIP ", gzip.compress(b"he") + gzip.compress(b"llo"), id="two parts"),
        pytest.param("deflate", zlib.compress(b"hello"), id="deflate"),
        pytest.param("identity", b"hello", id="identity"),
    ],
)
def test_a_body_is_plain_however_it_is_encoded(coding: str, packed: bytes) -> None:
    async def act(ours: Line) -> Told:
        answer = ours.ask()
        head = OK + b"content-encoding: %b\r\ncontent-length: %d\r\n\r\n" % (coding.encode(), len(packed))
        ours.arrive(head, *(packed[place : place + 1] for place in range(len(packed))))
        return await told(ours, answer)

    assert on_a_line(act).body == b"hello"


def test_an_encoding_that_nobody_asked_for_is_told() -> None:
    async def act(ours: Line) -> None:
        answer = ours.ask()
        ours.arrive(OK + b"content-encoding: br\r\n" + LENGTH + b"hello")
        with pytest.raises(UpstreamUnavailable, match="encoded as br"):
            await told(ours, answer)

    on_a_line(act)


def test_what_is_compressed_does_not_pile_up() -> None:
    packed = gzip.compress(bytes(100 * 1024 * 1024))
    assert len(packed) > 4 * WAITING_BYTES

    async def act(ours: Line) -> None:
        answer = ours.ask()
        loop = asyncio.get_running_loop()
        ours.peer.setblocking(False)
        head = OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
        sending = asyncio.create_task(loop.sock_sendall(ours.peer, head + packed))
        size = 0
        while chunk := await answer.read():
            size += len(chunk)
            assert answer.waiting <= 2 * BUFFER_BYTES
            await asyncio.sleep(0)
        await sending
        assert size == 100 * 1024 * 1024

    on_a_line(act)


def test_gzip_is_inflated_by_and_by() -> None:
    plain = bytes(40 * BUFFER_BYTES)
    packed = gzip.compress(plain)
    assert len(packed) < WAITING_BYTES

    async def act(ours: Line) -> int:
        answer = ours.ask()
        ours.arrive(OK + b"content-encoding: GZIP\r\ncontent-length: %d\r\n\r\n" % len(packed) + packed)
        size = 0
        while chunk := await answer.read():
            assert len(chunk) <= BUFFER_BYTES
            size += len(chunk)
        return size

    assert on_a_line(act) == len(plain)


def test_what_is_no_gzip_is_refused() -> None:
    async def act(ours: Line) -> None:
        answer = ours.ask()
        ours.arrive(OK + b"content-encoding: gzip\r\n" + LENGTH + b"hello")
        with pytest.raises(UpstreamUnavailable, match="compressed"):
            await answer.read()

    on_a_line(act)
