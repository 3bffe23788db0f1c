"""Sees when the token file or the accounts file is edited.

It looks, and is not told: what tells of a file tells of all in its folder, where the gateway's own log may lie too, a
line for each request. And looking also works where nobody tells, in folders mounted from elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeAlias

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.4
"""Seconds between two looks. Between the first that sees an edit and the one that takes it up, editors may finish: they
write in several steps.
"""

_Mark: TypeAlias = tuple[int, int, int] | None


async def watch(files: Mapping[Path, Callable[[], Awaitable[None]]]) -> None:
    """Call what belongs to a file whenever that has changed; for as long as the gateway runs."""
    known = await asyncio.to_thread(_look, list(files))
    edited: set[Path] = set()
    while True:
        await asyncio.sleep(LOOK_EVERY)
        marks = await asyncio.to_thread(_look, list(files))
        for file, mark in marks.items():
            if mark == known[file]:
                edited.discard(file)
            elif file not in edited:
                edited.add(file)
            else:
                edited.remove(file)
                known[file] = mark
                logger.debug("%s has changed", file)
                await files[file]()


def _look(files: list[Path]) -> dict[Path, _Mark]:
    return {file: _mark(file) for file in files}


def _mark(file: Path) -> _Mark:
    """What becomes another when the file is written, or another is renamed into its place."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
