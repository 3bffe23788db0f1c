"""A board on which processes that share a store ask each other: short-lived keys, looked for several times a second.

    board/ask/<question>             what is asked
    board/say/<question>/<process>   one's answer

Whoever asks takes its question and the answers down again. What is left of a process that was killed, the others sweep.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable

import msgspec
from msgspec import Struct

from k2think.places import Places
from k2think.storage.base import Storage, StorageUnusable

logger = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that an answer is waited for, unless told otherwise."""
LOOK_EVERY = 0.2
"""Seconds between two looks for questions."""
ANSWER_EVERY = 0.05
"""Seconds between two looks for answers."""
LEFTOVER = 30.0
"""Seconds after which what nobody has taken down is swept."""
MAX_AT_ONCE = 32
"""Questions that one process asks at once, and that it works on at once."""
MAX_ARGUMENT = 4096
"""Bytes of a question's argument."""

ASKED = "board/ask/"
SAID = "board/say/"

Handler = Callable[[bytes], Awaitable[bytes]]
"""Gives the answer to a question's argument; an empty one says that it has nothing to say. Raises nothing."""


class Question(Struct, frozen=True):
    """What is asked: `patience` as told by whoever asks."""

    kind: str
    argument: bytes
    patience: float


class Board:
    """The board of `others` more processes. Belongs to one event loop; without others nothing ever happens on it."""

    def __init__(self, storage: Storage, others: int) -> None:
        self._storage = storage
        self._others = others
        self._name = secrets.token_hex(8)
        self._handlers: dict[str, Handler] = {}
        self._mine: set[str] = set()  # questions of our own
        self._work: dict[str, asyncio.Task[None]] = {}  # by question, as long as it stands there
        self._sweep_at: dict[str, float] = {}  # by key
        self._places = Places(MAX_AT_ONCE, wait=PATIENCE, full="Too many such questions at once. Ask again.")
        self._complained = False

    def answer(self, kind: str, handler: Handler) -> None:
        """Have the others' questions of this kind answered so."""
        self._handlers[kind] = handler

    async def ask(
        self, kind: str, argument: bytes = b"", *, patience: float | None = None, enough: int | None = None
    ) -> list[bytes]:
        """Give what the others have to say, once all have answered, `enough` had something to say, or time is up.

        Raises `Overloaded` where too much is asked at once.
        """
        if not self._others:
            return []
        assert len(argument) <= MAX_ARGUMENT
        question = secrets.token_hex(8)
        patience = PATIENCE if patience is None else patience
        value = msgspec.json.encode(Question(kind, argument, patience))
        async with self._places:
            self._mine.add(question)
            try:
                await asyncio.to_thread(self._storage.put, ASKED + question, value, durable=False)
                return await self._answers(question, patience, enough or self._others)
            except StorageUnusable as error:
                self._complain(error)
                return []
            finally:
                try:
                    await asyncio.to_thread(self._take_down, question)
                finally:
                    self._mine.discard(question)

    async def run(self) -> None:
        """Answer for as long as the gateway runs."""
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY)
                try:
                    self._look(await asyncio.to_thread(self._storage.keys, "board/"))
                    await self._sweep()
                    self._complained = False
                except StorageUnusable as error:
                    self._complain(error)
        finally:
            for work in self._work.values():
                work.cancel()

    async def _answers(self, question: str, patience: float, enough: int) -> list[bytes]:
        answers: dict[str, bytes] = {}
        end = time.monotonic() + patience
        while True:
            await asyncio.sleep(ANSWER_EVERY if patience <= PATIENCE else LOOK_EVERY)
            await asyncio.to_thread(self._gather, question, answers)
            said = [answer for answer in answers.values() if answer]
            if len(said) >= enough or len(answers) >= self._others or time.monotonic() >= end:
                return said

    def _gather(self, question: str, answers: dict[str, bytes]) -> None:
        for key in self._storage.keys(f"{SAID}{question}/"):
            if key not in answers and (answer := self._storage.get(key)) is not None:
                answers[key] = answer

    def _take_down(self, question: str) -> None:
        try:
            self._storage.delete(ASKED + question)
            for key in self._storage.keys(f"{SAID}{question}/"):
                self._storage.delete(key)
        except StorageUnusable as error:
            self._complain(error)

    def _look(self, keys: list[str]) -> None:
        """Take up what is new on the board, and stop working on what is gone."""
        asked = {key.removeprefix(ASKED) for key in keys if key.startswith(ASKED)}
        for question in self._work.keys() - asked:
            self._work.pop(question).cancel()
        at_work = sum(not work.done() for work in self._work.values())
        for question in sorted(asked - self._mine - self._work.keys())[: MAX_AT_ONCE - at_work]:
            work = self._work[question] = asyncio.create_task(self._serve(question))
            work.add_done_callback(_tell_of_its_end)
        now = time.monotonic()
        self._sweep_at = {
            key: self._sweep_at.get(key, now + LEFTOVER)
            for key in keys
            if key.removeprefix(ASKED) not in self._mine and key.removeprefix(SAID).partition("/")[0] not in self._mine
        }

    async def _serve(self, question: str) -> None:
        try:
            value = await asyncio.to_thread(self._storage.get, ASKED + question)
            if value is None:
                return
            asked = msgspec.json.decode(value, type=Question)
            self._sweep_at[ASKED + question] = time.monotonic() + asked.patience + LEFTOVER
            handler = self._handlers.get(asked.kind)
            answer = await handler(asked.argument) if handler else b""
            await asyncio.to_thread(self._say, question, answer)
        except (StorageUnusable, msgspec.MsgspecError, UnicodeDecodeError) as error:
            logger.warning("a question of another worker stays without an answer: %s", error)

    def _say(self, question: str, answer: bytes) -> None:
        if self._storage.get(ASKED + question) is not None:
            self._storage.put(f"{SAID}{question}/{self._name}", answer, durable=False)

    async def _sweep(self) -> None:
        now = time.monotonic()
        for key in [key for key, at in self._sweep_at.items() if at <= now]:
            await asyncio.to_thread(self._storage.delete, key)

    def _complain(self, error: StorageUnusable) -> None:
        if not self._complained:
            logger.warning("the workers cannot ask each other: %s", error)
        self._complained = True


def _tell_of_its_end(work: asyncio.Task[None]) -> None:
    if not work.cancelled() and (error := work.exception()):
        logger.error("a question of another worker could not be answered", exc_info=error)
