"""The process that reads one file: it may crash, hang or swell, and nothing else is hurt.

The file comes on the standard input, what to do in the first argument, and the answer leaves on the standard output.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from typing import BinaryIO

import msgspec
from msgspec import Struct

from k2think.library.reading.refusal import Refusal, too_complex


class Task(Struct, frozen=True):
    """`reader`: a module of this package. `limit` in characters, `memory` in bytes, `seconds` of processor time."""

    reader: str
    limit: int
    memory: int
    seconds: int


class Answer(Struct, frozen=True):
    """A text, or why there is none: then `code` is not empty."""

    text: str = ""
    left_out: int = 0
    code: str = ""
    why: str = ""


def main() -> None:
    """Read the standard input. Any error but a `Refusal` ends the process, which says enough."""
    task = msgspec.json.decode(sys.argv[1], type=Task)
    # Loaded before the bounds hold, so that Python can keep what it has compiled for the next time.
    module = importlib.import_module(f"k2think.library.reading.{task.reader}")
    _bind(task)
    try:
        found = module.read(_input(), task.limit)
        answer = Answer(found.text, found.left_out)
    except Refusal as refusal:
        answer = Answer(code=refusal.code, why=refusal.why)
    except (MemoryError, RecursionError):
        over = too_complex("needs more memory than a file may")
        answer = Answer(code=over.code, why=over.why)
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    sys.stdout.buffer.flush()
    os._exit(0)  # what libraries would still put in order dies with the process


def _input() -> BinaryIO:
    return sys.stdin.buffer if sys.stdin.buffer.seekable() else io.BytesIO(sys.stdin.buffer.read())


def _bind(task: Task) -> None:
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  only there where it works

    for kind, most in (
        (resource.RLIMIT_AS, task.memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # a stricter bound holds already, or macOS knows none
            resource.setrlimit(kind, (most, most))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (task.seconds, task.seconds + 1))  # the first ends it with a word
    os.nice(10)
