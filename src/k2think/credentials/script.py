"""Runs a user's own script that makes the tokens: `python SCRIPT ACCOUNTS_FILE TOKENS_FILE.tmp`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

logger = logging.getLogger(__name__)

MAX_LINES = 1000
MAX_LINE = 500
"""What is logged of its output, in lines and characters; the rest is read and forgotten."""
LONGEST = 4096
"""Bytes of a line; of a longer one nothing is shown, for a cut may fall into a secret and so hide it from the mask."""
READ_AT_ONCE = 64 * 1024
KILL_AFTER = 5.0
"""Seconds between asking it to end and ending it."""

_TOKEN = re.compile(r"[A-Za-z0-9_\-.+/=]{24,}")
_PASSWORD = re.compile(r"(password[\"']?\s*[:=]\s*[\"']?)[^\s\"',}]+", re.IGNORECASE)
_EMAIL = re.compile(r"([^\s@\"'<>:,;=]{1})[^\s@\"'<>:,;=]{0,63}@")


class ScriptFailed(Exception):
    """The script could not be run, ended with an error, or took too long."""


async def run_script(script: Path, accounts: Path, staged: Path, *, patience: float, secrets: Iterable[str]) -> None:
    """Run it and log what it says, with `secrets`, tokens and e-mails masked; end it after `patience` seconds.

    Raises `ScriptFailed`.
    """
    hidden = sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(script),
            str(accounts),
            str(staged),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # so that it can be ended with all that it has started
        )
    except OSError as error:
        raise ScriptFailed(f"{script} cannot be run: {error.strerror}.") from error
    code: int | None = None
    try:
        async with asyncio.timeout(patience):
            await _log(process, hidden)
            code = await process.wait()
    except TimeoutError:
        raise ScriptFailed(f"{script} took longer than {patience:.0f} s and was ended.") from None
    finally:
        if code is None:
            await _end(process)
    if code:
        raise ScriptFailed(f"{script} ended with exit code {code}; its output is in the log.")


def masked(line: str, secrets: Iterable[str]) -> str:
    """A line of output without what must not be seen."""
    for secret in secrets:
        line = line.replace(secret, "…")
    line = _PASSWORD.sub(r"\1…", line)
    return _TOKEN.sub("…", _EMAIL.sub(r"\1…@", line))


async def _log(process: asyncio.subprocess.Process, secrets: list[str]) -> None:
    assert process.stdout is not None
    rest = b""
    lines = 0
    while chunk := await process.stdout.read(READ_AT_ONCE):
        *whole, rest = (rest + chunk).split(b"\n")
        rest = rest[: LONGEST + 1]
        for line in whole:
            lines += 1
            if lines <= MAX_LINES:
                _log_line(line, secrets)
    if rest and lines < MAX_LINES:
        _log_line(rest, secrets)


def _log_line(line: bytes, secrets: list[str]) -> None:
    if len(line) > LONGEST:
        logger.info("token script: (a line of more than %d bytes)", LONGEST)
    elif text := _shown(line.decode("utf-8", "replace")):
        logger.info("token script: %s", masked(text, secrets)[:MAX_LINE])


def _shown(text: str) -> str:
    return "".join(c for c in text if c.isprintable()).strip()


def _forms(secret: str) -> set[str]:
    """How a secret may look in the output: as it is, or as it stands in the accounts file."""
    inside = (json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False))
    return {shown for form in (secret, *inside) if (shown := _shown(form))}


async def _end(process: asyncio.subprocess.Process) -> None:
    """End it and all that it has started, some of which may outlive it."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
            os.killpg(process.pid, how)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_AFTER):
                await process.wait()
