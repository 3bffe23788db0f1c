"""Server-sent events, read from bytes.

Lenient where real servers are sloppy: any line ending, `data:` with or without its blank, a byte-order mark, comments,
bare JSON lines without a field name, a last event without its blank line. Works on bytes, so a character cut in two by
the network is whole again before anybody decodes it. Source: WHATWG HTML, section 9.2.6.
"""

from __future__ import annotations

from k2think.errors import UpstreamUnavailable

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""A snapshot repeats the whole answer, so this must hold the longest one: about 4 M tokens of English."""


class Decoder:
    """A Machine: `feed(bytes)` gives the data of each event that became complete, `close()` that of a cut-off last one.

    Raises `UpstreamUnavailable` for an event over `MAX_EVENT_BYTES`.
    """

    __slots__ = ("_after_cr", "_data", "_data_size", "_limit", "_pieces", "_pieces_size", "_started")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._pieces: list[bytes] = []  # of the line not yet ended
        self._pieces_size = 0
        self._data: list[bytes] = []  # data lines of the event not yet ended
        self._data_size = 0
        self._after_cr = False
        self._started = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes, cut anywhere."""
        if not self._started:
            chunk = self._without_byte_order_mark(chunk)
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_plain_line_endings(chunk)
        if self._pieces and b"\n" in chunk:
            chunk = b"".join((*self._pieces, chunk))
            self._pieces.clear()
            self._pieces_size = 0
        events: list[bytes] = []
        end = chunk.rfind(b"\n\n")
        if end >= 0 and not self._data and chunk.startswith(b"data: "):
            events, rest = chunk[6:end].split(b"\n\ndata: "), chunk[end + 2 :]
        else:
            rest = chunk
        # Nearly all that comes are events of one line each. A line end that is left tells others.
        if b"\n" in rest or b"\n" in b"".join(events):
            events = []
            *complete, rest = chunk.split(b"\n")
            self._take_lines(complete, events)
        if rest:
            self._pieces.append(rest)
            self._pieces_size += len(rest)
        if self._pieces_size + self._data_size > self._limit:
            raise UpstreamUnavailable(f"The upstream sent an event of more than {self._limit} bytes.")
        return events

    def close(self) -> list[bytes]:
        """The stream has ended: give what stands without its blank line."""
        events: list[bytes] = []
        last = b"".join(self._pieces)
        self._pieces.clear()
        self._take_lines([last, b""], events)
        return events

    def _take_lines(self, lines: list[bytes], events: list[bytes]) -> None:
        data = self._data
        for line in lines:
            if not line:
                if data:
                    events.append(data[0] if len(data) == 1 else b"\n".join(data))
                    data.clear()
                    self._data_size = 0
            elif line.startswith(b"data:"):
                data.append(line[6:] if line[5:6] == b" " else line[5:])
                self._data_size += len(line)
            elif line[0] == 0x7B:  # "{": a JSON line without its field name
                data.append(line)
                self._data_size += len(line)
            # Comments, `event:`, `id:`, `retry:` and unknown fields mean nothing to us.

    def _without_byte_order_mark(self, chunk: bytes) -> bytes:
        if self._pieces:
            chunk = b"".join(self._pieces) + chunk
            self._pieces.clear()
            self._pieces_size = 0
        mark = b"\xef\xbb\xbf"
        if len(chunk) < len(mark) and mark.startswith(chunk):
            if chunk:
                self._pieces.append(chunk)
                self._pieces_size = len(chunk)
            return b""
        self._started = True
        return chunk.removeprefix(mark)

    def _with_plain_line_endings(self, chunk: bytes) -> bytes:
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]  # the second half of a CRLF whose first half ended the last chunk
            self._after_cr = False
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
