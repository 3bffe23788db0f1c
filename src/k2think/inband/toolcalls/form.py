"""What all forms of writing a call have in common: where they read, and where they tell what they have read."""

from __future__ import annotations

from k2think.inband.toolcalls.desk import CallDesk, Written
from k2think.inband.toolcalls.names import Names
from k2think.inband.toolcalls.tape import Tape


class Form:
    """Reads calls off the tape and hands them in at the desk."""

    def __init__(self, tape: Tape, desk: CallDesk, names: Names) -> None:
        self._tape = tape
        self._desk = desk
        self._names = names

    def begin(self, name: str) -> None:
        """It is a call of `name` for sure."""
        self._desk.begin(name)
        if self._desk.live:
            self._tape.recorded()  # it will not be given back

    def end(self, written: Written | None, *, mended: bool = False, cut: bool = False) -> None:
        """The call is complete: see `CallDesk.end`. What is taken from now on belongs to none."""
        self._desk.end(written, self._tape.recorded(), mended=mended, cut=cut)
        self._tape.record()
