"""What a check-up says, line by line: what was found, how bad it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

State: TypeAlias = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. Holds no secret.

    `wrong`: somebody must do something before it is used; `note`: it works, but somebody should know. Both have a
    `remedy`, what is `ok` has none.
    """

    state: State
    text: str
    remedy: str = ""
