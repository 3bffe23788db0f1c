"""Starts the process that reads one file, hands it over, and ends the process when its time is up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import BinaryIO

import msgspec

from k2think.dialogue.prompt import DocumentText
from k2think.library.reading.refusal import Refusal, too_complex, unreadable
from k2think.library.reading.worker import Answer, Task

# It gets neither the environment nor the folder it is started in, only where Python finds what we have found.
_START = "import sys; sys.path[:] = sys.argv[2:]; from k2think.library.reading.worker import main; main()"
_ENVIRONMENT = {"SYSTEMROOT": r"C:\Windows"} if sys.platform == "win32" else {}
_LONGEST_CHARACTER = 4
_TIME_IS_UP = getattr(signal, "SIGXCPU", 0)
_FRAME = 4096
"""Bytes of an answer beside its text."""


async def read_apart(task: Task, content: Path | bytes, patience: float) -> DocumentText:
    """The text of `content`, read in a new process. It is ended after `patience` seconds, or when we are cancelled.

    Raises `Refusal`, and `OSError` where there is no such file.
    """
    process = await _started(task, content)
    try:
        async with asyncio.timeout(patience):
            if isinstance(content, bytes):
                await _hand_over(process, content)
            answer = await _answer(process, task.limit * _LONGEST_CHARACTER + _FRAME)
            code = await process.wait()
    except TimeoutError:
        # A busy machine may be the reason.
        raise too_complex(f"could not be read in {patience:.0f} s", lasting=False) from None
    finally:
        if process.returncode is None:
            await _end(process)
    # A bound was reached, a library crashed, or the machine is short of memory.
    if code < 0:
        raise too_complex(
            "could not be read with the memory and time that a file may take", lasting=-code == _TIME_IS_UP
        )
    try:
        found = msgspec.json.decode(answer, type=Answer)
    except msgspec.DecodeError as error:
        raise unreadable(lasting=not code) from error
    if found.code:
        raise Refusal(found.code, found.why)
    return DocumentText(found.text, found.left_out)


async def _started(task: Task, content: Path | bytes) -> Process:
    arguments = (sys.executable, "-I", "-c", _START, msgspec.json.encode(task).decode(), *filter(None, sys.path))
    with contextlib.ExitStack() as stack:
        source: BinaryIO | int = PIPE
        if isinstance(content, Path):
            source = stack.enter_context(await asyncio.to_thread(content.open, "rb"))
        return await asyncio.create_subprocess_exec(
            *arguments,
            stdin=source,
            stdout=PIPE,
            stderr=DEVNULL,
            env=_ENVIRONMENT,
            start_new_session=True,  # so that it can be ended with all that it has started
        )


async def _hand_over(process: Process, data: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # how it ended will tell
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


async def _answer(process: Process, most: int) -> bytes:
    assert process.stdout is not None
    answer = bytearray()
    while chunk := await process.stdout.read(256 * 1024):
        answer += chunk
        if len(answer) > most:
            raise unreadable()
    return bytes(answer)


async def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    await process.wait()
