"""What is wrong with the settings, one line for each fault: for a person at a terminal, not for a client."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to repair. `variable` names it, `problem` completes the sentence, `remedy` says what to write.

    Never holds the value of a secret.
    """

    variable: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        # A value may hold line breaks, and so may what is quoted of it.
        return " ".join(f"{self.variable} {self.problem} {self.remedy}".split())


class SettingsError(Exception):
    """The settings cannot be used. `faults` holds everything that is wrong, not only the first thing."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


def shown(value: str) -> str:
    """A value in quotes, short enough for one line."""
    return repr(value if len(value) <= 60 else value[:60] + "…")
