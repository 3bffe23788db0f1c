"""The board: questions that processes on one store ask each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from k2think.storage import board as module
from k2think.storage.base import StorageUnusable
from k2think.storage.board import ASKED, SAID, Board
from k2think.storage.memory import MemoryStorage


def saying(answer: bytes) -> Callable[[bytes], Awaitable[bytes]]:
    async def say(argument: bytes) -> bytes:
        return answer and answer + argument

    return say


@asynccontextmanager
async def boards(storage: MemoryStorage, *answers: bytes) -> AsyncIterator[Board]:
    """One that asks, and one more for each answer."""
    asker = Board(storage, others=len(answers))
    running = [asyncio.create_task(asker.run())]
    for answer in answers:
        other = Board(storage, others=len(answers))
        other.answer("what", saying(answer))
        running.append(asyncio.create_task(other.run()))
    try:
        yield asker
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def test_all_others_answer_and_nothing_is_left_on_the_board() -> None:
    storage = MemoryStorage()

    async def ask() -> None:
        async with boards(storage, b"one ", b"two ", b"") as asker:
            assert sorted(await asker.ask("what", b"x", patience=60)) == [b"one x", b"two x"]
            assert await asker.ask("unknown", patience=60) == []
        assert storage.keys() == []

    asyncio.run(ask())


def test_who_needs_one_answer_does_not_wait_for_all() -> None:
    async def ask() -> None:
        async with boards(MemoryStorage(), b"one ") as asker:
            asker._others = 2
            assert await asker.ask("what", patience=600, enough=1) == [b"one "]

    asyncio.run(ask())


def test_who_has_no_others_asks_nobody() -> None:
    storage = MemoryStorage()
    assert asyncio.run(Board(storage, others=0).ask("what", patience=60)) == []


def test_one_that_does_not_answer_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = 0.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + ahead))
    monkeypatch.setattr(module, "LEFTOVER", 3600.0)  # the answer that has come is not swept before it is read
    storage = MemoryStorage()

    async def ask() -> None:
        nonlocal ahead
        async with boards(storage, b"one ") as asker:
            asker._others = 2
            asking = asyncio.create_task(asker.ask("what", patience=600))
            while not (storage.keys(SAID) or asking.done()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert not asking.done()
            ahead = 600
            assert await asking == [b"one "]

    asyncio.run(ask())
    assert storage.keys() == []


def test_work_on_a_question_that_is_taken_down_is_stopped() -> None:
    storage = MemoryStorage()

    async def ask() -> None:
        begun, stopped = asyncio.Event(), asyncio.Event()

        async def work(_: bytes) -> bytes:
            begun.set()
            try:
                await asyncio.sleep(600)
            finally:
                stopped.set()
            return b"late"

        async with boards(storage) as other:
            other.answer("work", work)
            asking = asyncio.create_task(Board(storage, others=1).ask("work", patience=600))
            await asyncio.wait_for(begun.wait(), 60)
            asking.cancel()
            await asyncio.wait_for(stopped.wait(), 60)

    asyncio.run(ask())
    assert storage.keys() == []


def test_what_the_killed_have_left_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEFTOVER", 0.1)
    storage = MemoryStorage()
    storage.put(f"{ASKED}1", b"no question")
    storage.put(f"{SAID}2/one", b"an answer")
    storage.put("credentials/health", b"[]")

    async def look() -> None:
        async with boards(storage), asyncio.timeout(60):
            while len(storage.keys()) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    asyncio.run(look())
    assert storage.keys() == ["credentials/health"]


def test_a_store_that_fails_gives_no_answer_and_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage = MemoryStorage()

    def broken(*_: object, **__: object) -> None:
        raise StorageUnusable("The disk is full.")

    monkeypatch.setattr(storage, "put", broken)
    began = time.monotonic()
    assert asyncio.run(Board(storage, others=1).ask("what", patience=600)) == []
    assert time.monotonic() - began < 300
    assert "The disk is full" in caplog.text
