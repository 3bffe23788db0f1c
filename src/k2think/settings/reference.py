"""All settings as a page of the documentation, docs/configuration.md: `python -m k2think.settings.reference` writes it.

It comes from the list that `.env.example` comes from, so neither page can tell of a setting that is not read.
"""

from __future__ import annotations

import re
import sys
from itertools import groupby

from k2think.settings.example import SECTIONS, Variable, variables

_BEGINNING = """\
# Configuration

This page is generated from the source. Do not edit it: run `make docs` after a setting has changed.

## Where settings come from

- From the environment, and from lines `NAME=value` in `.env`. The environment wins.
- `.env` is the one in the working directory, else the one beside the script that was started. Relative paths are meant
  from the folder of `.env`; where there is none, from the working directory.
- An empty value counts as not set. A value may end in a comment: `PORT=8001 # as always`.
- They are read once, at the start. Change one, then restart. The token file and the accounts file are different: edits
  of these are taken up at once.
- Everything that is wrong is told at once, and nothing starts. `k2think check` tells it without starting anything, and
  `k2think check --example` prints a complete `.env`.
- `STREAM_DELAY`, `STREAM_CHUNK_SIZE` and `MAX_STREAM_TIME` are accepted and ignored. They shaped a simulated stream;
  streams are real here.

Only `VALID_API_KEY` must be set.
"""

_MARKDOWN = re.compile(r"[<*|]")
_ENTITIES = {"<": "&lt;", "*": "\\*", "|": "\\|"}


def reference() -> str:
    """The page: a table for each section, in the order of `.env.example`."""
    lines = [_BEGINNING]
    for title, section in groupby(variables(), lambda variable: variable.section):
        lines += [
            f"## {title.capitalize()}",
            "",
            _plain(SECTIONS[title].__doc__ or ""),
            "",
            "| setting | default | meaning | what may stand there |",
            "|---|---|---|---|",
            *map(_row, section),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _row(variable: Variable) -> str:
    default = f"`{variable.default}`" if variable.default else ""
    return f"| `{variable.name}` | {default} | {_plain(variable.description)} | {_plain(variable.allowed)} |"


def _plain(text: str) -> str:
    """The text with nothing in it that Markdown would take for markup."""
    return _MARKDOWN.sub(lambda sign: _ENTITIES[sign[0]], text)


if __name__ == "__main__":
    sys.stdout.buffer.write(reference().encode())
