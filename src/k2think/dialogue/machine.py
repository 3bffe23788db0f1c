"""A Machine turns items into items: no I/O, no clock, single-use.

Decoders, readers, encoders and the collector are Machines; a Chain of Machines is a Machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from k2think.dialogue.events import Event

In_contra = TypeVar("In_contra", contravariant=True)
Out_co = TypeVar("Out_co", covariant=True)


class Machine(Protocol[In_contra, Out_co]):
    """`feed` an item, get what came out; `close` at the end, get the rest.

    A reader that every event passes may also have a `feed_all`, for the events of one read: it gives the same text and
    events as `feed` would one by one, and costs less.
    """

    def feed(self, item: In_contra, /) -> Sequence[Out_co]:
        """Take one item."""
        ...

    def close(self) -> Sequence[Out_co]:
        """There are no more items."""
        ...


class Chain:
    """Readers one behind the other: what the first gives, the second takes."""

    __slots__ = ("_machines",)

    def __init__(self, *machines: Machine[Event, Event]) -> None:
        self._machines = [(machine, getattr(machine, "feed_all", None)) for machine in machines]

    def feed(self, item: Event) -> Sequence[Event]:
        """Take one event through all machines."""
        return self.feed_all((item,))

    def feed_all(self, events: Sequence[Event]) -> Sequence[Event]:
        """Take what one read brought through all machines, machine by machine: fewer calls than event by event."""
        for machine, feed_all in self._machines:
            if not events:
                break
            if len(events) == 1:
                events = machine.feed(events[0])
            elif feed_all is not None:
                events = feed_all(events)
            else:
                events = [out for event in events for out in machine.feed(event)]
        return events

    def close(self) -> Sequence[Event]:
        """Close the machines in order; what one still held goes through the ones behind it."""
        events: list[Event] = []
        for machine, _ in self._machines:
            events = [out for event in events for out in machine.feed(event)]
            events.extend(machine.close())
        return events
