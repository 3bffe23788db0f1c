"""Kills updates of the token file, and looks at what is left. A program of its own, so that it can fork cheaply.

    killed_updates.py FOLDER KIND DEATHS

KIND: `renamed`; `mounted`, where no rename over the file is possible; `careless`, which writes as nobody should.
DEATHS: a number of kills at random instants, or `steps`: one before each thing that an update does to the disk. Prints
`{"deaths": …, "old": …, "new": …, "pending": …}`: how many, how many of them left the tokens of before and of after
the update, and how many left an update to be finished.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from k2think.credentials.token_file import TokenFile

chance = random.Random(1)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
LONG, SHORT = (
    tuple("".join(chance.choices(LETTERS, k=chance.randint(150, 430))) for _ in range(count)) for count in (300, 211)
)
KNOWN = {*LONG, *SHORT}
WHOLE = {frozenset(LONG), frozenset(SHORT)}
TOUCHES = {"open", "os.rename", "os.link", "os.remove", "os.chmod", "os.chown", "os.truncate"}


class Careless(TokenFile):
    def write(self, secrets: Any) -> None:
        with self._path.open("w") as file:
            for secret in secrets:
                file.write(f"{secret}\n")
                file.flush()


def refuse(_: Path, target: Path) -> NoReturn:
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(target))


def token_file(kind: str, path: Path) -> TokenFile:
    if kind == "mounted":
        return TokenFile(path, replace=refuse)
    return Careless(path) if kind == "careless" else TokenFile(path)


def check(kind: str, path: Path, *, amid_writes: bool) -> tuple[frozenset[str], bool]:
    """See that the file is whole now, and after recovery; gives its tokens then, and whether there was any to do.

    `amid_writes`: the kill may have come while the kernel wrote, which then stops, at one place in the file.
    """
    file = token_file(kind, path)
    pending = path.with_name(f"{path.name}.pending")
    interrupted = pending.exists()
    lines = [line for line in path.read_text().splitlines() if line]
    strange = [line for line in lines if line not in KNOWN]
    assert lines, "the file is empty"
    if interrupted:
        assert kind == "mounted", "an update was pending that needed not be"
        assert frozenset(pending.read_text().splitlines()) in WHOLE, "what counts is torn"
    if interrupted and amid_writes:
        assert len(strange) <= 1, "the file is torn in more than one place"
    else:
        assert not strange, "the file has a torn line"
        assert frozenset(lines) in WHOLE, "the file is a mixture"
    counted = frozenset(token.secret for token in file.read())
    assert counted in WHOLE, "the tokens that are read are a mixture"
    file.recover()
    assert not pending.exists()
    recovered = path.read_text().splitlines()
    assert recovered in (list(LONG), list(SHORT)), "recovery left the file torn"
    assert frozenset(recovered) == counted, "recovery changed the tokens"
    backup = path.with_name(f"{path.name}.backup")
    assert not backup.exists() or frozenset(backup.read_text().splitlines()) in WHOLE, "the backup is torn"
    return counted, interrupted


def fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    return pid


def killed_at_random(kind: str, path: Path, deaths: int) -> Iterator[frozenset[str]]:
    """Kill updates that follow one another, after 0 to 20 ms. Gives the tokens of before each."""
    for _ in range(deaths):
        before = frozenset(path.read_text().splitlines())
        hears, says = os.pipe()

        def update(says: int = says, before: frozenset[str] = before) -> None:
            file = token_file(kind, path)
            os.write(says, b"!")
            for secrets in itertools.cycle((SHORT, LONG) if before == set(LONG) else (LONG, SHORT)):
                file.write(secrets)

        pid = fork(update)
        os.read(hears, 1)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), "the update failed by itself"
        os.close(hears)
        os.close(says)
        yield before


def killed_at_each_step(kind: str, path: Path, before: Sequence[str], after: Sequence[str]) -> Iterator[frozenset[str]]:
    """Kill an update before its first touch of the disk, before its second, and so on until one comes through."""
    for step in itertools.count(1):
        token_file(kind, path).write(before)
        left = step

        def die(event: str, _: object) -> None:
            nonlocal left
            if event in TOUCHES:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        def update() -> None:
            file = token_file(kind, path)
            sys.addaudithook(die)
            file.write(after)
            os._exit(0)

        _, status = os.waitpid(fork(update), 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "the update failed by itself"
            return
        yield frozenset(before)


def main(folder: str, kind: str, deaths: str) -> None:
    path = Path(folder) / "tokens.txt"
    TokenFile(path).write(LONG)
    seen = Counter(deaths=0, old=0, new=0, pending=0)
    steps = deaths == "steps"
    ways = (killed_at_each_step(kind, path, *way) for way in ((LONG, SHORT), (SHORT, LONG)))
    for before in itertools.chain.from_iterable(ways) if steps else killed_at_random(kind, path, int(deaths)):
        after, interrupted = check(kind, path, amid_writes=not steps)
        seen["deaths"] += 1
        seen["old" if after == before else "new"] += 1
        seen["pending"] += interrupted
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
