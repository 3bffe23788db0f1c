"""The watcher: what counts as an edit, and that each is taken up once."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import PATIENCE

from k2think.credentials import watcher


def taken_up(file: Path, *edits: Callable[[], object]) -> None:
    """Make the edits one after the other: each must be taken up, once, and nothing else."""
    calls: Counter[Path] = Counter()
    called = asyncio.Event()
    other = file.with_name("other")

    def take_up(which: Path) -> Callable[[], asyncio.Future[None]]:
        async def note() -> None:
            calls[which] += 1
            called.set()

        return lambda: asyncio.ensure_future(note())

    async def run() -> None:
        looks = asyncio.Event()

        def look(files: list[Path]) -> object:
            loop.call_soon_threadsafe(looks.set)
            return found(files)

        found, loop = watcher._look, asyncio.get_running_loop()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(watcher, "_look", look)
            patch.setattr(watcher, "LOOK_EVERY", 0.001)
            watching = asyncio.create_task(watcher.watch({file: take_up(file), other: take_up(other)}))
            await looks.wait()
            for count, edit in enumerate(edits, start=1):
                for _ in range(5):  # without an edit nothing happens, however often it looks
                    looks.clear()
                    await looks.wait()
                assert calls[file] == count - 1
                called.clear()
                edit()
                await called.wait()
            watching.cancel()
        assert calls == {file: len(edits)}

    asyncio.run(asyncio.wait_for(run(), PATIENCE))


# Each edit here is one step for the file system: one in two could be seen half done, and be taken up twice.


def append(file: Path) -> None:
    with file.open("ab") as end:
        end.write(b" more")


def test_writing_and_renaming_are_edits(tmp_path: Path) -> None:
    file, new = tmp_path / "tokens.txt", tmp_path / "new"
    file.write_text("one")

    def rename() -> None:
        new.write_text("two")
        os.utime(new, ns=(0, file.stat().st_mtime_ns))
        new.replace(file)

    taken_up(file, lambda: append(file), lambda: os.truncate(file, 3), rename, file.unlink)


def test_a_file_may_come_with_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "later" / "tokens.txt"

    made = tmp_path / "made"
    made.mkdir()
    (made / file.name).write_text("one")
    taken_up(file, lambda: made.rename(file.parent))


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_behind_a_link_its_target_counts(tmp_path: Path) -> None:
    one, two, link = tmp_path / "one", tmp_path / "two", tmp_path / "tokens.txt"
    for target in (one, two):
        target.write_text(target.name)
    link.symlink_to(one)

    def turn() -> None:
        (tmp_path / "link").symlink_to(two)
        (tmp_path / "link").replace(link)

    taken_up(link, lambda: append(one), turn)
