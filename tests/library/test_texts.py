"""The texts of files, read in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hostile_files import CODES, HOSTILE, STRANGE, forms_in_a_circle
from PIL import Image, ImageDraw
from samples import FACT, SAMPLES, image, pdf, sheets
from waiting import until

from k2think.dialogue.prompt import Document, DocumentText
from k2think.errors import Overloaded, UnusableFile
from k2think.library.sniffing import media_type_of
from k2think.library.texts import Texts, can_see_text

COSTLY = ("pdf-bomb", "pdf-forms-in-a-circle")
"""Hostile files that use up all the time they get; the others go through the whole house."""
PROCESSES = Path("/proc/self/task")
needs_proc = pytest.mark.skipif(not PROCESSES.is_dir(), reason="this system does not show its processes")


def document(name: str, data: bytes) -> Document:
    kind = media_type_of(io.BytesIO(data), name)
    return Document(name, kind, hashlib.sha256(data).hexdigest(), len(data), data=data)


def children() -> list[str]:
    found = ""
    for file in PROCESSES.glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile
            found += f" {file.read_text()}"
    return found.split()


async def outcome(texts: Texts, file: Document) -> DocumentText | UnusableFile:
    try:
        return await texts.of(file, 1000)
    except UnusableFile as error:
        return error


def read_all(files: Mapping[str, tuple[str, bytes]], *, effort: int = 60) -> dict[str, DocumentText | UnusableFile]:
    """What becomes of each, read two at a time, with more time than any slow machine needs."""

    async def read() -> list[DocumentText | UnusableFile]:
        texts = Texts(patience=3000, effort=effort)
        return await asyncio.gather(*(outcome(texts, document(*file)) for file in files.values()))

    return dict(zip(files, asyncio.run(read()), strict=True))


def test_the_facts_in_files_are_found() -> None:
    samples = {name: make() for name, make in SAMPLES.items()}
    found = read_all({name: (file_name, data) for name, (file_name, data, _) in samples.items()})
    for name, (_, _, fact) in samples.items():
        result = found[name]
        assert isinstance(result, DocumentText), (name, result)
        assert fact in result.text
        assert result.left_out == 0


def test_a_file_that_takes_all_the_time_it_gets_is_refused() -> None:
    for name, result in read_all({name: HOSTILE[name]() for name in COSTLY}, effort=1).items():
        assert isinstance(result, UnusableFile), (name, result)
        assert result.code == CODES.get(name, result.code)


def test_a_strange_file_gives_text() -> None:
    for name, result in read_all({name: make() for name, make in STRANGE.items()}).items():
        assert isinstance(result, DocumentText), (name, result)
        assert "root:" not in result.text
        result.text.encode()


def test_a_long_file_is_cut() -> None:
    long = document("a.xlsx", sheets([[f"row {n}"] for n in range(300)]))
    texts = asyncio.run(Texts(patience=300, effort=60).of(long, 100))
    assert len(texts.text) == 100
    assert texts.text.startswith("# Sheet: Stock\nrow 0\nrow 1\n")
    assert texts.left_out == -1


def test_a_file_on_disk_is_read_once_and_remembered(tmp_path: Path) -> None:
    path = tmp_path / "stored"
    path.write_bytes(data := pdf(FACT))
    stored = Document("a.pdf", "application/pdf", hashlib.sha256(data).hexdigest(), len(data), path=path)

    async def read() -> None:
        texts = Texts(workers=1, patience=300, effort=60)
        first = await asyncio.gather(*(texts.of(stored, 500) for _ in range(5)))
        assert all(text is first[0] for text in first)
        assert FACT in first[0].text
        path.unlink()
        assert await texts.of(stored, 500) is first[0]
        with pytest.raises(UnusableFile, match="Upload it again") as caught:
            await texts.of(stored, 501)
        assert caught.value.code == "file_gone"
        path.write_bytes(data)
        assert await texts.of(stored, 501) == first[0]

    asyncio.run(read())


def test_what_is_remembered_is_bounded_and_refusals_are_too() -> None:
    async def read() -> None:
        texts = Texts(remembered=3000)
        first = document("a.txt", b"a" * 1000)
        kept = await texts.of(first, 5000)
        assert await texts.of(first, 5000) is kept
        for n in range(2):
            await texts.of(document("b.txt", b"b" * (700 + n)), 5000)
        assert await texts.of(first, 5000) is not kept
        for _ in range(2):
            with pytest.raises(UnusableFile, match=f"'{'x' * 100}…' is empty"):
                await texts.of(document("x" * 1000, b""), 10)

    asyncio.run(read())


@pytest.fixture
def endless() -> Iterator[Document]:
    yield document("endless.pdf", forms_in_a_circle())
    if PROCESSES.is_dir():
        assert children() == []


@needs_proc
def test_a_process_sees_no_secrets_and_ends_with_the_last_request_for_it(
    endless: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "sesame")

    def of(pid: str, what: str) -> bytes:
        return Path("/proc", pid, what).read_bytes()

    async def read() -> None:
        texts = Texts(patience=300, effort=300)  # only we end it
        waiting = [asyncio.create_task(texts.of(endless, 10)) for _ in range(2)]
        await asyncio.to_thread(until, children)
        (pid,) = children()
        await asyncio.to_thread(until, lambda: b"worker" in of(pid, "cmdline"))
        assert b"endless" not in of(pid, "cmdline")
        assert b"sesame" not in of(pid, "environ")
        waiting[0].cancel()
        await asyncio.sleep(0)
        assert children() == [pid]
        waiting[1].cancel()
        await asyncio.to_thread(until, lambda: not children())
        for task in waiting:
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(read())


def test_patience_ends_for_the_file_and_for_those_behind_it(endless: Document) -> None:
    async def read() -> None:
        texts = Texts(workers=1, patience=1)
        first = asyncio.create_task(texts.of(endless, 10))
        await asyncio.sleep(0.2)
        behind = [asyncio.create_task(texts.of(document("a.pdf", pdf(str(n))), 10)) for n in range(8)]
        with pytest.raises(UnusableFile) as caught:
            await first
        assert caught.value.code == "file_too_complex"
        results = await asyncio.gather(*behind, return_exceptions=True)
        assert all(isinstance(each, (DocumentText, Overloaded, UnusableFile)) for each in results)

    asyncio.run(read())


def test_nobody_waits_for_ever_for_a_process(endless: Document) -> None:
    async def read() -> None:
        texts = Texts(workers=0, patience=0.4)
        with pytest.raises(Overloaded):
            await texts.of(endless, 10)

    asyncio.run(read())


@pytest.mark.skipif(can_see_text(), reason="the extra is installed")
def test_without_the_extra_no_text_is_seen_in_an_image() -> None:
    assert asyncio.run(Texts().in_image("x", image())) == ""


@pytest.mark.skipif(importlib.util.find_spec("rapidocr_onnxruntime") is None, reason="the extra is not installed")
def test_with_the_extra_text_in_an_image_is_seen() -> None:
    picture = Image.new("RGB", (600, 120), "white")
    ImageDraw.Draw(picture).text((20, 30), "BLUE WHALE 4711", "black", font_size=48)
    out = io.BytesIO()
    picture.save(out, "PNG")
    assert "4711" in asyncio.run(Texts().in_image("x", out.getvalue()))
