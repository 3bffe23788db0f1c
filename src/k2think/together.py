"""Several things done at once for one request, and one thing done once for several requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run them and give what they gave, in order; the first that fails ends the others, and its error is raised."""
    if len(work) == 1:
        return [await work[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


class Shared(Generic[K, T]):
    """Work that all share who want the same of it meanwhile. It goes on as long as one of them waits."""

    def __init__(self) -> None:
        self._running: dict[K, _Work[T]] = {}

    async def get(self, key: K, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Give what the work of this key gives, or raise what it raises; `begin` it if it is not going on."""
        work = self._running.get(key)
        if work is None:
            work = self._running[key] = _Work(asyncio.create_task(begin()))
        work.waiting += 1
        try:
            return await asyncio.shield(work.task)
        finally:
            work.waiting -= 1
            if not work.waiting:
                del self._running[key]
                work.task.cancel()  # of no effect on one that has ended


class _Work(Generic[T]):
    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.waiting = 0
