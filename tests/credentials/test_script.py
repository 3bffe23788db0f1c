"""A user's own script: run, heard, masked, and ended with all that it started when it takes too long."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from clocks import later

from k2think.credentials import script as module
from k2think.credentials.script import LONGEST, MAX_LINE, MAX_LINES, ScriptFailed, masked, run_script

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="process groups")

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJpZCI6IjEifQ.c2lnbmF0dXJl"
PATIENCE = 60.0


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """The project's log, also where another test has made it keep to itself."""
    monkeypatch.setattr(logging.getLogger("k2think"), "propagate", True)
    caplog.set_level("INFO", logger="k2think")
    return caplog


def run(folder: Path, code: str, *, patience: float = PATIENCE, secrets: tuple[str, ...] = ()) -> None:
    asyncio.run(running(folder, code, patience=patience, secrets=secrets))


async def running(folder: Path, code: str, *, patience: float = PATIENCE, secrets: tuple[str, ...] = ()) -> None:
    path = folder / "make.py"
    path.write_text(dedent(code))
    accounts, staged = folder / "accounts.txt", folder / "tokens.txt.tmp"
    await run_script(path, accounts, staged, patience=patience, secrets=secrets)


def started_in(folder: Path) -> int:
    """The process id that the grandchild tells; waits for it, and for the script to end if it says that it will."""
    while not (folder / "grandchild").exists():
        time.sleep(0.01)
    if (folder / "ends").exists():
        script = Path("/proc", (folder / "ends").read_text())
        while script.exists():  # until it is waited for
            time.sleep(0.01)
    return int((folder / "grandchild").read_text())


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, 0)
            return not Path("/proc/self/stat").exists()
        return False
    return state not in {"Z", "X"}


def ends(process: int) -> bool:
    """Whether it is gone soon; if not, it is ended here."""
    deadline = time.monotonic() + PATIENCE
    while is_running(process):
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            return False
        time.sleep(0.01)
    return True


def test_it_is_called_with_the_accounts_and_the_staged_file_and_hears_nothing(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        import sys
        accounts, staged = sys.argv[1:]
        assert sys.stdin.read() == ""
        open(staged, "w").write(accounts)
        """,
    )
    assert (tmp_path / "tokens.txt.tmp").read_text() == str(tmp_path / "accounts.txt")


def test_an_exit_code_is_a_failure_and_what_it_said_is_in_the_log(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ScriptFailed, match=r"make\.py ended with exit code 3; its output is in the log"):
        run(tmp_path, "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)")
    assert sorted(log.messages) == ["token script: one", "token script: two"]


def test_a_script_that_is_not_there_fails(tmp_path: Path) -> None:
    with pytest.raises(ScriptFailed, match="exit code 2"):
        asyncio.run(run_script(tmp_path / "none.py", tmp_path, tmp_path, patience=PATIENCE, secrets=()))


def test_an_interpreter_that_cannot_be_started_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(ScriptFailed, match="cannot be run: No such file"):
        run(tmp_path, "")


# Each starts a grandchild, which tells its process id in a file named `grandchild` and sleeps.
GRANDCHILD = """
import os, pathlib, signal, subprocess, sys, time
folder = pathlib.Path(__file__).parent
code = '''
import os, pathlib, signal, sys, time
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
new = pathlib.Path(sys.argv[1], "new")
new.write_text(str(os.getpid()))
new.rename(new.with_name("grandchild"))
time.sleep(600)
'''
def start(how=""):
    subprocess.Popen([sys.executable, "-c", code, str(folder), how])
    while not (folder / "grandchild").exists():
        time.sleep(0.01)
"""

ENDINGS = {
    "both wait": "start(); time.sleep(600)",
    "only the grandchild holds on": "(folder / 'ends').write_text(str(os.getpid())); start()",
    "the grandchild is deaf": "start('deaf'); time.sleep(600)",
    "both are deaf": "signal.signal(signal.SIGTERM, signal.SIG_IGN); start('deaf'); time.sleep(600)",
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_one_that_is_given_up_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(module, "KILL_AFTER", 0.3)

    async def cancel() -> bool:
        task = asyncio.create_task(running(tmp_path, GRANDCHILD + ending))
        process = await asyncio.to_thread(started_in, tmp_path)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ended = await asyncio.to_thread(ends, process)
        for _ in range(10):  # what it had open is closed in the loop's next turns
            await asyncio.sleep(0)
        return ended

    assert asyncio.run(cancel())


def test_one_that_takes_too_long_fails_and_is_ended(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    async def outlast() -> None:
        code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
        task = asyncio.create_task(running(tmp_path, code, patience=200))
        while not (log.messages or task.done()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        later(200)
        with pytest.raises(ScriptFailed, match="took longer than 200 s and was ended"):
            await task

    asyncio.run(outlast())
    [message] = log.messages
    assert ends(int(message.split()[-1]))


# What it says


def test_passwords_tokens_and_e_mails_are_masked(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    secrets = ("hunter2", "hunter2 long", " blank ends ", 'quo"te\\', "h\u00fcnter", "tab\tbed\u00a0", "")
    said = "\n".join([*secrets, *map(json.dumps, secrets), TOKEN, f"Bearer {TOKEN}", "someone@example.com"])
    (tmp_path / "said").write_text(said, encoding="utf-8")
    run(
        tmp_path,
        "import pathlib, sys; sys.stdout.buffer.write(pathlib.Path(__file__).with_name('said').read_bytes())",
        secrets=secrets,
    )
    shown = [message.removeprefix("token script: ") for message in log.messages]
    quoted = ['"…"', '"…"', '" … "', *['"…"'] * 3, '""']
    assert shown == ["…"] * 6 + quoted + ["…", "Bearer …", "s…@example.com"]


def test_the_mask_lets_ordinary_words_be() -> None:
    line = "Signed in 3 of 4 accounts, a@b failed: HTTP 401 at 12:00:01"
    assert masked(line, ["hunter2"]) == line.replace("a@", "a…@")


LEFTOVERS: dict[str, Callable[[str], str]] = {
    "a line that never ends": lambda secret: f"w('x ' * 10**6 + {secret!r} + ' y' * 32_758)",
    "a token cut by the bound": lambda secret: f"w('- ' * {LONGEST // 2 - 2} + {secret!r} + chr(10))",
    "a line cut by a read": lambda secret: f"w('x ' * 32_765); sys.stdout.flush(); w({secret!r} + chr(10))",
}


@pytest.mark.parametrize("code", LEFTOVERS.values(), ids=LEFTOVERS)
def test_no_cut_lets_a_part_of_a_secret_through(
    tmp_path: Path, log: pytest.LogCaptureFixture, code: Callable[[str], str]
) -> None:
    secret = "abc def ghi jkl mno pqr stu"
    run(tmp_path, f"import sys; w = sys.stdout.write; {code(secret)}", secrets=(secret,))
    assert len(log.messages) == 1
    assert not re.search("abc|def|ghi|jkl|mno|pqr|stu", log.text)


def test_what_is_logged_is_bounded_and_all_is_read(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    run(tmp_path, f"print('word ' * {MAX_LINE}); print('a line\\n' * 400_000)")
    assert len(log.messages) == MAX_LINES
    assert max(map(len, log.messages)) <= MAX_LINE + len("token script: ")


def test_lines_are_put_together_however_they_are_written(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    code = "import os\nfor part in (b'on', b'e\\r', b'\\n\\n  t', b'wo\\nthree'): os.write(1, part)"
    run(tmp_path, code)
    assert log.messages == ["token script: one", "token script: two", "token script: three"]


def test_any_bytes_are_read_and_none_reaches_the_terminal_as_a_command(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    code = "import os, sys; sys.stdout.buffer.write(bytes(range(256)) * 50 + b'\\n\\x1b[31mred\\x07\\n')"
    run(tmp_path, code)
    assert log.messages[-1] == "token script: [31mred"
    assert all(message.isprintable() for message in log.messages)


@pytest.fixture(autouse=True)
def no_leftovers(tmp_path: Path) -> Iterator[None]:
    """A failing test leaves no process behind."""
    yield
    path = tmp_path / "grandchild"
    if path.exists() and is_running(process := int(path.read_text())):
        os.kill(process, signal.SIGKILL)
