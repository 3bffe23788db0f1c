"""Kills a process that fills a shelf, and looks at what is left. A program of its own, so that it can fork cheaply.

    killed_uploads.py FOLDER DEATHS

DEATHS: a number of kills at random instants, or `steps`: one before each thing that keeping and deleting do to the
disk. Of those at random there are more, later and later, until files were kept and enough remains were left. Prints
`{"deaths": …, "files": …, "remains": …}`: how many, how many files were listed after them all, and how many of the
deaths left something to be swept.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from k2think.library.shelf import Shelf

OWNER = "0" * 32
LATER = 2 * 3600.0
ENOUGH = 6
"""Deaths that left remains."""
TOUCHES = {"open", "os.rename", "os.remove", "os.mkdir"}
chance = random.Random(1)


def shelf_at(folder: Path) -> Shelf:
    return Shelf(folder, max_bytes=1 << 20, quota_bytes=1 << 30, ttl=0)


def add(shelf: Shelf, number: int) -> str:
    deposit = shelf.begin()
    for piece in range(number % 4 + 1):
        deposit.write(f"{number % 7} {piece} ".encode() * 2000)
    return shelf.keep(deposit, owner=OWNER, name=f"{number}.txt", purpose="user_data", now=time.time()).id


def work(folder: Path) -> Iterator[None]:
    """Keep files, some with contents that others have, and delete every other one; a step at a time."""
    shelf = shelf_at(folder)
    for number in itertools.count():
        file_id = add(shelf, number)
        yield
        if number % 2:
            shelf.delete(OWNER, file_id)
            yield


def check(folder: Path) -> tuple[int, bool]:
    """See that all files are whole, also after a sweep; gives how many, and whether there was anything to sweep."""
    shelf = shelf_at(folder)
    before = whole_files(shelf)
    left = names_below(folder)
    shelf.sweep(time.time() + LATER)
    assert whole_files(shelf) == before, "the sweep changed the list"
    swept = names_below(folder)
    uses = {name for name in swept if name.startswith("use")}
    contents = {name for name in swept if len(name) == 64}
    assert len(uses) == len(before), "a use without a file"
    assert contents == set(before.values()), "a content without a use"
    assert len(swept) == 2 * len(before) + len(contents), f"garbage: {swept}"
    return len(before), left != swept


def whole_files(shelf: Shelf) -> dict[str, str]:
    found = {}
    for record in shelf.page(OWNER, time.time())[0]:
        path = shelf.document(record).path
        assert path is not None
        content = path.read_bytes()
        assert len(content) == record.size, "half a file"
        assert hashlib.sha256(content).hexdigest() == record.digest, "another file"
        found[record.id] = record.digest
    return found


def names_below(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def killed(child: Callable[[int], None], wait: float) -> bool:
    """Let the child work until it kills itself, or for so many seconds from when it says that it begins."""
    hears, says = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            child(says)
        finally:
            os._exit(1)
    os.close(says)
    os.read(hears, 1)
    os.close(hears)
    if wait:
        time.sleep(wait)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the work failed by itself"
    return os.WIFSIGNALED(status)


def at_random(folder: Path, deaths: int) -> Iterator[None]:
    def child(says: int) -> None:
        os.write(says, b"!")
        for _ in work(folder):
            pass

    for death in range(50 * deaths):
        killed(child, chance.uniform(0.001, 0.03 * (1 + death // deaths)))
        yield


def at_each_step(folder: Path) -> Iterator[None]:
    for step in itertools.count(1):
        left = step

        def die(event: str, _: Any) -> None:
            nonlocal left
            if event in TOUCHES:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        def child(says: int) -> None:
            steps = work(folder)
            sys.addaudithook(die)
            for _ in range(3):  # keep, keep the same, delete
                next(steps)
            os.write(says, b"!")
            os._exit(0)

        if not killed(child, 0):
            return
        yield


def unhurried(_: int) -> None:
    """In place of `fsync`, which is slow and for power cuts: no kill undoes what was written."""


def main(folder: str, deaths: str) -> None:
    os.fsync = unhurried  # type: ignore[assignment]
    seen = Counter(deaths=0, files=0, remains=0)
    shelf = Path(folder) / "files"
    for _ in at_each_step(shelf) if deaths == "steps" else at_random(shelf, int(deaths)):
        files, remains = check(shelf)
        seen["deaths"] += 1
        seen["files"] = files
        seen["remains"] += remains
        if deaths != "steps" and seen["deaths"] >= int(deaths) and files and seen["remains"] >= ENOUGH:
            break
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
