"""Hears when the token file or the accounts file is edited."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from watchfiles import Change, awatch

logger = logging.getLogger(__name__)

TOGETHER = 400
"""Milliseconds within which changes count as one: editors write in several steps."""


async def watch(files: Mapping[Path, Callable[[], Awaitable[None]]]) -> None:
    """Call what belongs to a file whenever that has changed; for as long as the gateway runs.

    Watched are the files' folders, because a file that is renamed into place is another one, and the files themselves,
    because one that is mounted by itself lives in a folder elsewhere. Folders that are missing now stay unwatched.
    """
    places: dict[Path, Path] = {}  # whatever may be named in a change → the file
    for file in files:
        for place in {file.absolute(), file.resolve()}:
            places[place] = file
    folders = {place.parent for place in places if place.parent.is_dir()}
    present = {place for place in places if place.is_file()}
    if not folders:
        return

    def concerns_us(_: Change, path: str) -> bool:
        return Path(path) in places

    try:
        async for changes in awatch(*folders, *present, watch_filter=concerns_us, recursive=False, debounce=TOGETHER):
            for file in {places[Path(path)] for _, path in changes}:
                logger.debug("%s has changed", file)
                await files[file]()
    except (OSError, RuntimeError) as error:
        logger.warning("edited files are not taken up by themselves (%s): POST /admin/tokens/reload does it", error)
