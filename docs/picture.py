"""Draws docs/picture.svg: the demo at work, as a terminal shows it. `python docs/picture.py` renews it.

Nothing in it is made up: the demo is started as `make demo` starts it, and the README's first program asks it. Only the
port that the system chose for it is shown as the usual one.
"""  # noqa: INP001 - a script, no part of a package

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "picture.svg"
USUAL_URL = "http://localhost:8001"
WIDTH = 100  # characters of a line
PATIENCE = 120.0  # seconds; only a hang takes so long
# Whoever looks at the picture fetches nothing: no font from elsewhere, but what is there.
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
TEMPLATE = (
    re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    .replace("Fira Code, monospace", FONTS)
    .replace("<svg ", '<svg xml:space="preserve" ')  # blanks in front of a text count
)


def drawn(banner: str, program: str) -> str:
    """The picture: what the demo printed, and what the program printed that asked it. Pure."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    prompt = ("$ ", "green")
    console.print(Text.assemble(prompt, ("make demo", "bold")))
    console.print(Text(banner.strip("\n")))
    console.print()
    console.print(Text.assemble(prompt, ("python ask.py", "bold"), ("   # the program below", "dim")))
    for line in program.strip().splitlines():
        found = re.match(r"\[\w+\]", line)
        field = found.group() if found else ""
        is_thinking = field == "[reasoning_content]"
        rest = (line.removeprefix(field), "dim" if is_thinking else "")
        console.print(Text.assemble((field, "yellow" if is_thinking else "cyan"), rest))
    svg = console.export_svg(
        title="K2Think API Proxy", code_format=TEMPLATE, font_aspect_ratio=0.6, unique_id="terminal"
    )
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def first_program(readme: str) -> str:
    """The README's first program."""
    found = re.search(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert found, "the README has no program"
    return found.group(1)


@contextmanager
def demo() -> Iterator[str]:
    """Run the demo; what it has printed of itself once it serves."""
    with subprocess.Popen(
        [sys.executable, "-m", "k2think", "demo", "--port", "0"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            lines = list(takewhile(lambda line: "Ctrl-C" not in line, process.stdout))
            watchdog.cancel()
            yield "".join(takewhile(lambda line: "another terminal" not in line, lines))
        finally:
            watchdog.cancel()
            process.terminate()


def main() -> None:
    """Run both, and draw."""
    with demo() as banner:
        found = re.search(r"http://127\.0\.0\.1:\d+", banner)
        assert found, f"the demo did not start: {banner!r}"
        program = first_program((ROOT / "README.md").read_text(encoding="utf-8"))
        asked = subprocess.run(
            [sys.executable, "-"],
            input=program.replace(USUAL_URL, found.group()),
            env=os.environ | {"PYTHONUTF8": "1"},
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            timeout=PATIENCE,
            check=True,
        )
    PICTURE.write_text(drawn(banner.replace(found.group(), USUAL_URL), asked.stdout), encoding="utf-8")


if __name__ == "__main__":
    main()
