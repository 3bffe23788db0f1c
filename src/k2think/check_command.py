"""The command `k2think check`: findings as lines, coloured where somebody looks, and an exit code. No secret in them.

Exit codes: 0 nothing is wrong, 1 something is.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k2think.settings import Fault, Settings, SettingsError
from k2think.settings.example import example

if TYPE_CHECKING:
    from k2think.checkup.finding import Finding, State

COLOURS = {"ok": typer.colors.GREEN, "note": typer.colors.YELLOW, "wrong": typer.colors.RED}
INDENT = 6
"""Characters of a finding's word and of the blanks behind it."""
KEY = "VALID_API_KEY"


def check(
    context: typer.Context,
    *,
    example_only: Annotated[bool, typer.Option("--example", help="Print a complete example configuration.")] = False,
    online: Annotated[
        bool, typer.Option("--online", help="Ask the service too: a sign-in or a token, and one word of the model.")
    ] = False,
) -> None:
    """Check the settings, the files they name and the network; say what is wrong and what to do."""
    if example_only:
        typer.echo(example(), nl=False)
        return
    from k2think.checkup import Finding, findings  # noqa: PLC0415 - the server, which other commands do not need

    logging.getLogger("k2think").addHandler(logging.NullHandler())  # what went wrong is told once, as a finding
    settings, faults = _load(context.obj)
    found: Iterable[Finding] = (Finding("wrong", f"{fault.variable} {fault.problem}", fault.remedy) for fault in faults)
    if settings is not None:
        without = [fault.variable for fault in faults]
        told = _tell if online else None
        found = itertools.chain(found, findings(settings, time.time(), told=told, without=without))
    states: set[State] = set()
    for finding in found:
        states.add(finding.state)
        _show(finding)
    if settings is None:
        typer.echo("The rest is looked at once this is right.")
    if "wrong" in states:
        typer.echo("Something is wrong: see above.")
    else:
        typer.echo("Nothing is wrong; see the notes above." if "note" in states else "All is well.")
    raise typer.Exit(int("wrong" in states))


def _load(beside: Path | None) -> tuple[Settings | None, tuple[Fault, ...]]:
    """The settings, or what is wrong with them; both, where only the key is wrong that clients would use."""
    try:
        return Settings.load(beside=beside), ()
    except SettingsError as error:
        faults = error.faults
    if any(fault.variable != KEY for fault in faults):
        return None, faults
    return Settings.load(beside=beside, overrides={KEY: "none"}), faults


def _show(finding: Finding) -> None:
    word = typer.style(finding.state, fg=COLOURS[finding.state])
    blanks = " " * (INDENT - len(finding.state))
    typer.echo(f"{word}{blanks}{_line(finding.text)}")
    if finding.remedy:
        typer.echo(" " * INDENT + _line(finding.remedy))


def _tell(doing: str) -> None:
    typer.echo(f"{'...':<{INDENT}}{doing}")


def _line(text: str) -> str:
    """A value may hold line breaks, and so may what is quoted of it."""
    return " ".join(text.split())
