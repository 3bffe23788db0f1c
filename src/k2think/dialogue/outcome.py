"""What became of a call, or of an answer that had to be JSON."""

from __future__ import annotations

from typing import Literal, TypeAlias

Outcome: TypeAlias = Literal["parsed", "repaired", "reasked", "failed"]
"""It was right; it was mended; the model was asked again; the client got none that can be used."""
