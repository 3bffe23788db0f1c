"""Whose turn it is among the tokens that are ready: one class a strategy, all with the same four verbs.

    take     choose one, or None if all that are ready are to be skipped
    add      it is ready (again)
    remove   it is not, for now
    changed  it is still ready, with another number of running requests

Each costs the same for ten tokens and for a hundred thousand, however many of them are not ready.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from k2think.credentials.credential import Credential

Strategy: TypeAlias = Literal["round_robin", "least_busy", "sticky"]
State: TypeAlias = Literal["active", "cooling", "disabled", "expired", "gone"]

NEIGHBOURS = 4
"""How many tokens are looked at for a conversation before it is anybody's."""
LOAD_BOUND = 1.25
"""A sticky choice stands as long as its token carries at most this many times the average load."""


@dataclass(slots=True, eq=False)
class Member:
    """A token in the pool and how it has been doing. Times are Unix seconds."""

    credential: Credential
    index: int = 0  # its place in the token file
    state: State = "active"
    failures: int = 0  # rejections since the last success
    limits: int = 0  # rate limits since the last success
    in_flight: int = 0
    places: float = math.inf  # requests that it may carry in this process
    available_at: float = 0.0
    last_used: float | None = None
    last_error: str | None = None  # an error's code
    reason: str | None = None  # why it is disabled

    @property
    def is_well(self) -> bool:
        """Whether there is nothing about it that is worth remembering."""
        return not (self.failures or self.limits or self.state in {"cooling", "disabled"})


class Rotation(Protocol):
    """The tokens that are ready."""

    def take(self, skip: AbstractSet[str], affinity: bytes, in_flight: int) -> Member | None:
        """Choose one whose id is not in `skip`. `in_flight`: requests running on all tokens together."""
        ...

    def add(self, member: Member) -> None: ...

    def remove(self, member: Member) -> None: ...

    def changed(self, member: Member) -> None:
        """One of them carries more or fewer requests than before."""
        ...

    def __contains__(self, member: Member) -> bool: ...

    def __len__(self) -> int: ...


class RoundRobin:
    """Each in turn. The ring is an `OrderedDict`, a linked list with an index: first out, last in."""

    def __init__(self) -> None:
        self._ring: OrderedDict[str, Member] = OrderedDict()

    def take(self, skip: AbstractSet[str], affinity: bytes, in_flight: int) -> Member | None:  # noqa: ARG002
        ring = self._ring
        for _ in range(min(len(ring), len(skip) + 1)):
            key = next(iter(ring))
            ring.move_to_end(key)
            if key not in skip:
                return ring[key]
        return None

    def add(self, member: Member) -> None:
        self._ring[member.credential.id] = member

    def remove(self, member: Member) -> None:
        self._ring.pop(member.credential.id, None)

    def changed(self, member: Member) -> None:
        """Nothing: load is no matter here."""

    def __contains__(self, member: Member) -> bool:
        return member.credential.id in self._ring

    def __len__(self) -> int:
        return len(self._ring)


class LeastBusy:
    """One of those with the fewest running requests, in turn. A ring for each number of requests."""

    def __init__(self) -> None:
        self._rings: dict[int, RoundRobin] = {}
        self._loads: dict[str, int] = {}  # in which ring each stands
        self._lowest = 0

    def take(self, skip: AbstractSet[str], affinity: bytes, in_flight: int) -> Member | None:
        if not self._rings:
            return None
        if found := self._rings[self._lowest].take(skip, affinity, in_flight):
            return found
        others = (self._rings[load] for load in sorted(self._rings) if load != self._lowest)
        return next((found for ring in others if (found := ring.take(skip, affinity, in_flight))), None)

    def add(self, member: Member) -> None:
        load = self._loads[member.credential.id] = member.in_flight
        if (ring := self._rings.get(load)) is None:
            ring = self._rings[load] = RoundRobin()
            self._lowest = load if len(self._rings) == 1 else min(load, self._lowest)
        ring.add(member)

    def remove(self, member: Member) -> None:
        if (load := self._loads.pop(member.credential.id, None)) is None:
            return
        ring = self._rings[load]
        ring.remove(member)
        if not ring:
            del self._rings[load]
            if load == self._lowest:
                self._lowest = min(self._rings, default=0)  # as many rings as there are different loads: few

    def changed(self, member: Member) -> None:
        self.remove(member)
        self.add(member)

    def __contains__(self, member: Member) -> bool:
        return member.credential.id in self._loads

    def __len__(self) -> int:
        return len(self._loads)


class Sticky(RoundRobin):
    """The same conversation to the same token, as long as that one is ready and not busier than the others.

    Tokens stand on a circle by the hash of their ids; an affinity names a place there, from where the first good one
    counts of the next few, else it is simply the next one's turn. So a token's illness moves only its own
    conversations, and another process would choose the same.
    """

    def __init__(self, members: Iterable[Member]) -> None:
        super().__init__()
        circle = sorted(
            ((_place(member.credential.id.encode()), member) for member in members), key=lambda pair: pair[0]
        )
        self._places = [place for place, _ in circle]
        self._members = [member for _, member in circle]

    def take(self, skip: AbstractSet[str], affinity: bytes, in_flight: int) -> Member | None:
        ring = self._ring
        if affinity and ring:
            bound = math.ceil(LOAD_BOUND * (in_flight + 1) / len(ring))
            start = bisect_left(self._places, _place(affinity))
            for place in range(start, start + NEIGHBOURS):
                member = self._members[place % len(self._members)]
                key = member.credential.id
                if key in ring and member.in_flight < bound and key not in skip:
                    ring.move_to_end(key)
                    return member
        return super().take(skip, affinity, in_flight)


def rotation(strategy: Strategy, members: Iterable[Member]) -> Rotation:
    """The rotation of a strategy, still without anyone in it; `members` are all that may come."""
    match strategy:
        case "round_robin":
            return RoundRobin()
        case "least_busy":
            return LeastBusy()
        case "sticky":
            return Sticky(members)


def _place(name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest())
