"""One HTTP/1.1 connection: requests go out on it, and answers come in, one after the other.

llhttp parses (`httptools`), the event loop reads and writes. What stands here is what lies between: who waits for what
has come, when the server has to wait, and when a connection may serve again. It knows no hosts, time or retries.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import cast

import httptools

from k2think.errors import UpstreamError, UpstreamUnavailable

BUFFER_BYTES = 64 * 1024
"""Bytes that are read at once where somebody waits for them: what a burst brings is best taken together."""

WAITING_BYTES = 16 * 1024
"""Bytes that are read at once where nobody does. If more wait to be taken, nothing is read."""

TLS_WAITING_BYTES = 256 * 1024
"""The same below TLS: what its layer holds for a connection that is not read is lost where the server hangs up."""

MAX_BARE = 64 * 1024
"""Bytes that may come without any of a body among them: headers, as a rule, and far above any server's."""

INFORMATIONAL = range(100, 200)
"""Statuses of answers that only announce another."""

_PLAIN = frozenset({"", "identity"})
_INFLATED = frozenset({"gzip", "x-gzip", "deflate"})
_ANY_HEADER = zlib.MAX_WBITS | 32  # gzip's, or that of what HTTP calls deflate
_TEXT = ("utf-8", "surrogateescape")  # what headers are in, and what is done with bytes that are not


class Unanswered(UpstreamUnavailable):
    """The server hung up before it said anything: it may never have seen the request."""


class Answer:
    """The answer to a request that was sent, as it comes."""

    __slots__ = (
        "_connection",
        "_error",
        "_inflater",
        "_loop",
        "_pieces",
        "_waiter",
        "complete",
        "cookies",
        "headers",
        "status",
        "waiting",
    )

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0  # 0 until the head is there
        self.headers: dict[str, str] = {}  # names in lower case; of several with one name the last
        self.cookies: dict[str, str] = {}  # name → value
        self.complete = False  # the whole body has come
        self.waiting = 0  # bytes that came and were not taken
        self._pieces: list[bytes] = []
        self._inflater: zlib._Decompress | None = None
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._loop = loop
        self._connection: Connection | None = connection

    @property
    def has_ended(self) -> bool:
        """Whether the whole body has been taken."""
        return self.complete and not self._pieces

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for what comes next."""
        return self._waiter is not None

    async def head(self) -> None:
        """Wait until status and headers are there. Raises `UpstreamError`."""
        while not self.status:
            await self._more()

    async def read(self) -> bytes:
        """Give what has come of the body, b"" at its end. Raises `UpstreamError`, even if there is something left."""
        while True:
            if self._error is not None:
                raise self._error
            if self._pieces:
                chunk = self._taken()
                if self._inflater is not None:
                    chunk = self._inflated(chunk, self._inflater)
                if self._connection is not None:
                    self._connection.go_on(self.waiting)
                if chunk:
                    return chunk
            elif self.complete:
                return b""
            else:
                await self._more()

    def fail(self, error: UpstreamError) -> None:
        """Whoever waits, and whoever reads from now on, gets this error; the first one stands."""
        if self._error is None:
            self._error = error
        self.wake()

    def close(self) -> None:
        """Nothing more is wanted. The connection can serve again if the answer has ended, else it is hung up on."""
        self._error = None  # it holds whoever saw it, and so this
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.leave(self)

    # What the connection calls.

    def header(self, name: str, value: str) -> None:
        """A header has come."""
        name, value = name.lower(), value.strip()
        self.headers[name] = value
        if name == "set-cookie":
            cookie, _, said = value.partition(";")[0].partition("=")
            self.cookies[cookie.strip()] = said.strip(' \t"')

    def begin(self, status: int) -> None:
        """The head is there."""
        if status in INFORMATIONAL:
            self.headers.clear()
            return
        self.status = status
        coding = self.headers.get("content-encoding", "").lower()
        if coding in _INFLATED:
            self._inflater = zlib.decompressobj(_ANY_HEADER)
        elif coding not in _PLAIN:
            self.fail(
                UpstreamUnavailable(f"The upstream's answer is encoded as {coding[:20]}, which nobody asked for.")
            )

    def take(self, piece: bytes) -> None:
        """A piece of the body has come."""
        self._pieces.append(piece)
        self.waiting += len(piece)

    def wake(self) -> None:
        """Something has come, or nothing more will."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def ends_with_connection(self) -> bool:
        """Whether nothing else says where the body ends."""
        chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        return bool(self.status) and not chunked and "content-length" not in self.headers

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _taken(self) -> bytes:
        pieces = self._pieces
        chunk = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.waiting = 0
        return chunk

    def _inflated(self, chunk: bytes, inflater: zlib._Decompress) -> bytes:
        """As much of it as may wait, for a little may become very much; the rest comes again."""
        try:
            plain = inflater.decompress(chunk, BUFFER_BYTES)
        except zlib.error:
            raise UpstreamUnavailable("The upstream's answer is not compressed as it says.") from None
        rest = inflater.unconsumed_tail
        if inflater.eof:  # another part may follow, compressed by itself
            rest = inflater.unused_data
            self._inflater = zlib.decompressobj(_ANY_HEADER)
        if rest:
            self.take(rest)
        return plain


class Connection(asyncio.BaseProtocol):
    """A connection to an HTTP server. `on_left` hears when a request is done with it: whether it may serve another."""

    def __init__(self, on_left: Callable[[Connection, bool], None], may_wait: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_left = on_left
        self._may_wait = may_wait
        self._parser = httptools.HttpResponseParser(self)
        # Small sins that other clients forgive.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._answer: Answer | None = None
        self._bare = 0  # bytes since anything of a body came
        self._paused = False
        self._keeps_alive = True

    @property
    def is_open(self) -> bool:
        """Whether nobody has hung up yet."""
        return not self._transport.is_closing()

    def send(self, head: bytes, body: bytes | None) -> Answer:
        """Send a request: its line and headers, to the empty line, and its body."""
        self._answer = answer = Answer(self, self._loop)
        self._bare = 0
        if body:
            self._transport.writelines((head, body))
        else:
            self._transport.write(head)
        return answer

    def go_on(self, waiting: int = 0) -> None:
        """So many bytes still wait: if they are few, there is room again."""
        if self._paused and waiting <= self._may_wait:
            self._paused = False
            self._transport.resume_reading()

    def leave(self, answer: Answer) -> None:
        """Nothing more of the answer is wanted."""
        self.go_on()
        serves = (
            answer.complete
            and self.is_open
            and self._keeps_alive
            and not self._transport.get_write_buffer_size()  # it answered before it had heard all
        )
        if not serves:
            self.hang_up()
        self._on_left(self, serves)

    def hang_up(self) -> None:
        """Close it, whatever is under way."""
        self._answer = None
        self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def arrived(self, data: bytes | memoryview) -> None:
        """So much was read."""
        answer = self._answer
        if answer is None:  # nobody has asked for this
            self.hang_up()
            return
        before = answer.waiting
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._give_up(answer, "The upstream's answer is not HTTP.")
            return
        if answer.waiting > before:
            self._bare = 0
        else:
            self._bare += len(data)
            if self._bare > MAX_BARE:
                self._give_up(answer, "The upstream's headers have no end.")
                return
        answer.wake()
        if answer.waiting > self._may_wait and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        del self._parser  # which holds this
        answer, self._answer = self._answer, None
        if answer is None:
            return
        if exc is None and answer.ends_with_connection() and not self._paused:  # else TLS may have lost some of it
            answer.complete = True
            answer.wake()
        elif answer.status:
            answer.fail(UpstreamUnavailable("The upstream's answer was cut off."))
        else:
            answer.fail(Unanswered("The upstream closed the connection instead of answering."))

    def _give_up(self, answer: Answer, message: str) -> None:
        self.hang_up()
        if answer.complete:  # it is what follows that is wrong
            answer.wake()
        else:
            answer.fail(UpstreamUnavailable(message))

    # What the parser calls. What is raised here it makes an error of its own.

    def on_message_begin(self) -> None:
        self._asked()

    def on_header(self, name: bytes, value: bytes) -> None:
        answer = self._asked()
        if not answer.status:  # else it is a trailer
            answer.header(name.decode(*_TEXT), value.decode(*_TEXT))

    def on_headers_complete(self) -> None:
        self._asked().begin(self._parser.get_status_code())

    def on_body(self, piece: bytes) -> None:
        self._asked().take(piece)

    def on_message_complete(self) -> None:
        answer = self._asked()
        if answer.status:
            answer.complete = True
            self._keeps_alive = self._parser.should_keep_alive()
            self._answer = None

    def _asked(self) -> Answer:
        if self._answer is None:
            raise LookupError("an answer that nobody has asked for")
        return self._answer


class PlainConnection(Connection, asyncio.BufferedProtocol):
    """`buffer` is where reads go: many may share one, for what was read is parsed before the next read."""

    def __init__(self, buffer: memoryview, on_left: Callable[[Connection, bool], None]) -> None:
        super().__init__(on_left, WAITING_BYTES)
        self._buffer = buffer

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the event loop's signature
        answer = self._answer
        return self._buffer if answer is None or answer.is_awaited else self._buffer[:WAITING_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        self.arrived(self._buffer[:nbytes])


class SecureConnection(Connection, asyncio.Protocol):
    """Takes all that TLS holds at once: what is left there when the server hangs up would be lost."""

    def __init__(self, on_left: Callable[[Connection, bool], None]) -> None:
        super().__init__(on_left, TLS_WAITING_BYTES)

    def data_received(self, data: bytes) -> None:
        self.arrived(data)
