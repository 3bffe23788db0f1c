"""Reads a `.env` file: `NAME=value` lines, as python-dotenv understands them, but for three things.

A comment may stand where the value would (`PROXY_URL= # none` is empty), nothing is interpolated (a `$` in a password
is a `$`), and what cannot be understood is a fault with its line instead of a line in a log.
"""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

from dotenv.parser import parse_stream

from k2think.settings.faults import Fault

# Older releases of python-dotenv take such a comment for the value.
_ONLY_A_COMMENT = re.compile(r"[^=]*=[^\S\r\n]+#")


def read_env_file(path: Path) -> tuple[dict[str, str], list[Fault]]:
    """The variables of the file, and what could not be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except IsADirectoryError:
        problem, remedy = (
            "is a folder.",
            "Remove it and write a file (Docker makes a folder of a file it does not find).",
        )
        return {}, [Fault(str(path), problem, remedy)]
    except UnicodeDecodeError:
        return {}, [Fault(str(path), "is not UTF-8 text.", "Save it as UTF-8.")]
    except OSError as error:
        return {}, [Fault(str(path), f"cannot be read ({error.strerror}).", "Let this user read it.")]
    values: dict[str, str] = {}
    faults: list[Fault] = []
    for binding in parse_stream(StringIO(text)):
        if binding.error:
            # The line itself may hold a secret, so only its number is told.
            blank = len(text_of := binding.original.string) - len(text_of.lstrip())
            line = binding.original.line + text_of[:blank].count("\n")
            faults.append(Fault(f"{path}, line {line},", "is not understood.", "Write NAME=value; close every quote."))
        elif binding.key and binding.value is not None:
            empty = _ONLY_A_COMMENT.match(binding.original.string.lstrip())
            values[binding.key] = "" if empty else binding.value
    return values, faults
