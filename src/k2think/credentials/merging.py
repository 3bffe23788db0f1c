"""What several processes have learned of the same tokens, made one: a three-way merge, pure.

`base` is what both sides once knew alike, `mine` and `theirs` what each knows now. What one side has not changed it
leaves to the other; where both have, counts add up, the longer rest and the stronger reason count.
"""

from __future__ import annotations

from collections.abc import Mapping

from k2think.credentials.health import Health
from k2think.credentials.pool import BY_HAND


def merge(base: Mapping[str, Health], mine: Mapping[str, Health], theirs: Mapping[str, Health]) -> dict[str, Health]:
    """The health of all tokens, by id, sorted. What has no entry is well, and gets none."""
    merged: dict[str, Health] = {}
    for key in sorted(mine.keys() | theirs.keys()):
        well = Health(key)
        health = _one(base.get(key, well), mine.get(key, well), theirs.get(key, well))
        if health != well:
            merged[key] = health
    return merged


def _one(base: Health, mine: Health, theirs: Health) -> Health:
    if mine == base:
        return theirs
    if theirs == base:
        return mine
    return Health(
        id=base.id,
        failures=max(0, theirs.failures + mine.failures - base.failures),
        limits=max(0, theirs.limits + mine.limits - base.limits),
        until=_until(base.until, mine.until, theirs.until),
        disabled=_disabled(base.disabled, mine.disabled, theirs.disabled),
        error=theirs.error if mine.error == base.error else mine.error,
        failing=theirs.failing if mine.failing == base.failing else mine.failing,
    )


def _until(base: float, mine: float, theirs: float) -> float:
    if mine == base:
        return theirs
    return mine if theirs == base else max(mine, theirs)


def _disabled(base: str, mine: str, theirs: str) -> str:
    if mine == base:
        return theirs
    if theirs == base:
        return mine
    return BY_HAND if BY_HAND in (mine, theirs) else mine or theirs
