"""How commands show what they found and how far they are: tables, and a bar where somebody is looking."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 1000
"""Characters of a line where no terminal is: whoever reads it there wants a row to be one line."""

STYLES = {"good": "green", "rejected": "red", "refused": "red"}


class Terminal:
    """The standard output, which may be none."""

    def __init__(self) -> None:
        on_terminal = sys.stdout.isatty()
        self._console = Console(
            force_terminal=on_terminal,
            width=None if on_terminal else PIPE_WIDTH,
            markup=False,  # brackets in foreign words are brackets
            emoji=False,
            highlight=False,
        )

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; only a column `reason` may take several lines a row."""
        table = Table(box=box.SIMPLE)
        for heading in headings:
            table.add_column(heading, no_wrap=heading != "reason", overflow="fold")
        for row in rows:
            table.add_row(*(Text(plain(cell), style=STYLES.get(cell, "")) for cell in row))
        self._console.print(table)

    @contextmanager
    def following(self, doing: str, total: int) -> Iterator[Callable[[str], None]]:
        """Show how far it is: a bar, or the line of each step that is given to what this yields."""
        if not self._console.is_terminal:
            count = itertools.count(1)

            def step(line: str) -> None:
                self._console.print(f"{doing}, {next(count)} of {total}: {plain(line)}", soft_wrap=True)

            yield step
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(doing, total=total)
            yield lambda _: progress.advance(task)


def plain(text: str) -> str:
    """Foreign words, without what a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text)
