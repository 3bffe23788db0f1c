"""Forms as clients send them, whole and broken, wherever the network cuts them."""

from __future__ import annotations

import asyncio
import io
import itertools
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from k2think.api.multipart import MAX_FIELDS_BYTES, Body, Form, file_name_of, parameters_of, receiving
from k2think.errors import BodyTooLarge, InvalidRequest
from k2think.library.shelf import Shelf


class Slip(io.BytesIO):
    """What a deposit is to a form."""

    def discard(self) -> None:
        self.close()


def part(disposition: str, content: bytes = b"", *more: str) -> bytes:
    headers = "\r\n".join([f"Content-Disposition: form-data; {disposition}", *more])
    return b"--B\r\n" + headers.encode() + b"\r\n\r\n" + content + b"\r\n"


PURPOSE = part('name="purpose"', b"user_data")
TRICKY = b"\r\n--\r\n--A\r\n--B" + b"x\r\n\r\n--BB--\r\r\n-\x00\xff\r\n"
FILE = part('name="file"; filename="a.bin"', TRICKY, "Content-Type: text/plain", "X-More: y")
END = b"--B--\r\n"


def parsed(body: bytes, size: int = 10**9) -> tuple[Form, bytes]:
    form = Form(b"B", Slip)  # type: ignore[arg-type]
    for start in range(0, len(body), size):
        form.feed(body[start : start + size])
    deposit = form.file()
    assert isinstance(deposit, Slip)
    return form, deposit.getvalue()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10**9])
@pytest.mark.parametrize(
    "body", [PURPOSE + FILE + END, FILE + PURPOSE + b"--B--", b"\r\n" + FILE + PURPOSE + END + b"epilogue"]
)
def test_a_form_is_the_same_wherever_it_is_cut(body: bytes, size: int) -> None:
    form, content = parsed(body, size)
    assert content == TRICKY
    assert form.fields == {"purpose": "user_data"}
    assert form.file_name == "a.bin"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "cut off"),
        (PURPOSE, "cut off"),
        (PURPOSE + FILE, "cut off"),
        (PURPOSE + FILE + b"--B-", "cut off"),
        (PURPOSE + END, "no field 'file'"),
        (b"not a form at all", "no multipart form"),
        (b'{"file": "x"}', "no multipart form"),
        (b"--OTHER\r\n\r\n", "no multipart form"),
        (b"--B\r\nContent-Disposition form-data\r\n\r\nx\r\n" + END, "no multipart form"),
        (b"--B\r\nX: y\r\n\r\nx\r\n" + END, "no Content-Disposition"),
        (part("x=y") + END, "no Content-Disposition"),
        (part('name="file"', b"/home/me/report.pdf") + END, "-F file=@PATH"),
        (FILE + FILE + END, "twice"),
        (PURPOSE + PURPOSE + END, "twice"),
        (part('name="purpose"', b"\xff") + END, "UTF-8"),
        (PURPOSE[:5] + b"X: " + b"y" * 9000 + b"\r\n\r\n", "no multipart form"),
        (PURPOSE[:5] + b"X: y\r\n" * 90 + b"\r\n", "no multipart form"),
        (b"".join(part(f'name="{n}"') for n in range(33)), "more than 32"),
        (part('name="x"', b"y" * 700_000) + part('name="z"', b"y" * 700_000), "more than 1 MB"),
    ],
)
def test_a_broken_form_is_refused_by_what_is_wrong(body: bytes, message: str) -> None:
    with pytest.raises((InvalidRequest, BodyTooLarge), match=message) as refusal:
        parsed(body)
    assert refusal.value.status in {400, 413}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ('filename="a b.txt"', "a b.txt"),
        ("filename=plain.txt", "plain.txt"),
        ('filename="数据.txt"', "数据.txt"),
        ('filename="say \\"hi\\" \\\\ there.txt"', 'say "hi" \\ there.txt'),
        ('filename="say %22hi%22%0D%0A 100%25.txt"', 'say "hi"\r\n 100%25.txt'),
        ('filename="C:\\dir\\a.txt"', "C:\\dir\\a.txt"),
        ('filename="a; name=b.txt"', "a; name=b.txt"),
        ("filename*=UTF-8''%E6%95%B0.txt", "数.txt"),
        ("filename=\"x.txt\"; filename*=utf-8'zh'%E6%95%B0.txt", "数.txt"),
        ("filename*=gb18030''%CA%FD.txt", "数.txt"),
        ("filename*=no-such''%E6%95%B0.txt", "数.txt"),
        ('filename="=?utf-8?B?5pWwLnR4dA==?="', "数.txt"),
        ('filename="=?utf-8?Q?=E6=95=B0.txt?="', "数.txt"),
        ("filename*=idna''a.txt; filename=plain.txt", "plain.txt"),
        ("filename*=no-such''%FF; filename=plain.txt", "plain.txt"),
        ("filename*=undefined''a.txt", "a.txt"),
        ("filename*=punycode''%ff.txt", "\ufffd.txt" if sys.version_info < (3, 13) else ""),
        ("filename*=a\0b''a.txt", "a.txt"),
        ('filename="=?ü?Q?a.txt?="', "=?ü?Q?a.txt?="),
        ('filename="=?idna?Q?=FF.txt?="', "=?idna?Q?=FF.txt?="),
        ('filename="=?no-such?B?5pWwLnR4dA==?="', "=?no-such?B?5pWwLnR4dA==?="),
        ('filename=""', ""),
        ("other=x", None),
    ],
)
def test_a_file_name_is_read_in_each_way_of_writing_it(parameters: str, expected: str | None) -> None:
    assert file_name_of(parameters_of(f'form-data; name="file"; {parameters}'.encode())) == expected


class Measured(bytes):
    """A piece that counts how often it is asked for its length."""

    asked = 0

    def __len__(self) -> int:
        Measured.asked += 1
        return super().__len__()


def received(pieces: Iterable[bytes], folder: Path) -> tuple[Body, Form]:
    """Take the pieces in as an upload without an announced length."""
    left = iter(pieces)

    async def receive() -> dict[str, Any]:
        piece = next(left, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def take() -> Form:
        scope = {"type": "http", "state": {"headers": {b"content-type": b"multipart/form-data; boundary=B"}}}
        async with receiving(scope, body, shelf) as (form, _):
            return form

    shelf = Shelf(folder, max_bytes=1024, quota_bytes=10**9, ttl=0)
    body = Body(receive)
    return body, asyncio.run(take())


def test_a_form_that_comes_byte_by_byte_costs_each_byte_once(tmp_path: Path) -> None:
    whole = PURPOSE + FILE + END
    body, form = received((Measured(whole[n : n + 1]) for n in range(len(whole))), tmp_path)
    assert (body.received, form.fields) == (len(whole), {"purpose": "user_data"})
    assert Measured.asked <= 2 * len(whole)


def test_what_comes_behind_the_end_is_not_taken_for_ever(tmp_path: Path) -> None:
    taken = 0

    def pieces() -> Iterable[bytes]:
        nonlocal taken
        for piece in itertools.chain([PURPOSE + FILE + END], itertools.repeat(bytes(65536), 100)):
            taken += len(piece)
            yield piece

    with pytest.raises(BodyTooLarge, match="behind its end"):
        received(pieces(), tmp_path)
    assert taken < 3 * MAX_FIELDS_BYTES
