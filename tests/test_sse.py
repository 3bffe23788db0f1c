"""The event decoder, fed whole, byte by byte and at every split."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2think.errors import UpstreamUnavailable
from k2think.sse import Decoder

CASES = [
    ("one event", b"data: a\n\n", [b"a"]),
    ("no blank after the colon", b"data:a\n\n", [b"a"]),
    ("only one blank is taken", b"data:  a\n\n", [b" a"]),
    ("several lines of one event", b"data: a\ndata: b\n\n", [b"a\nb"]),
    ("comments and other fields", b": ping\nevent: x\nid: 1\nretry: 5\ndata: a\n\n: end\n\n", [b"a"]),
    ("CRLF", b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    ("CR alone", b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    ("byte-order mark", b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    ("bare JSON line", b'{"error":"x"}\n\n', [b'{"error":"x"}']),
    ("no blank line at the end", b"data: a\n\ndata: b", [b"a", b"b"]),
    ("an empty event is none", b"\n\n\ndata: a\n\n\n\n", [b"a"]),
    ("an event without data is none", b"event: x\n\ndata: a\n\n", [b"a"]),
    ("characters of several bytes", "data: 你好 🙂\n\n".encode(), ["你好 🙂".encode()]),
    ("empty data", b"data:\n\n", [b""]),
]


def decoded(*chunks: bytes) -> list[bytes]:
    decoder = Decoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + decoder.close()


@pytest.mark.parametrize(("stream", "events"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_every_split_gives_the_same_events(stream: bytes, events: list[bytes]) -> None:
    assert decoded(stream) == events
    assert decoded(*(stream[i : i + 1] for i in range(len(stream)))) == events
    for cut in range(len(stream) + 1):
        assert decoded(stream[:cut], stream[cut:]) == events


@given(st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b"")), max_size=6), st.data())
def test_what_is_sent_arrives_however_it_is_cut(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(b"data: " + payload + b"\n\n" for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decoded(*chunks) == payloads


BLOCKS = [
    b"data: a\n\n",
    b"data:b\n\n",
    b": c\n\n",
    b"event: x\ndata: d\n\n",
    b"data: e\ndata: f\n\n",
    b"\n",
    b"data: g\r\n\r\n",
]


@given(st.lists(st.sampled_from(BLOCKS), max_size=8).map(b"".join), st.lists(st.integers(0, 80), max_size=4))
def test_plain_and_other_events_that_come_together_are_read_as_if_they_came_byte_by_byte(
    stream: bytes, places: list[int]
) -> None:
    cuts = [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    assert decoded(*(stream[a:b] for a, b in pairwise(cuts))) == decoded(*(bytes([byte]) for byte in stream))


def test_an_event_is_given_when_its_blank_line_arrives_and_not_before() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\n") == [b"a"]


@pytest.mark.parametrize("piece", [b"x", b"data: x\n"], ids=["one long line", "many lines"])
def test_an_event_over_the_limit_is_refused(piece: bytes) -> None:
    decoder = Decoder(max_event_bytes=100)
    fed = 0
    with pytest.raises(UpstreamUnavailable, match="100 bytes"):  # noqa: PT012 - which feed it is depends on the piece
        while fed < 200:
            fed += len(piece)
            decoder.feed(piece)
    assert 100 < fed <= 120
