"""What every test of a reader needs: one text cut in all ways, and outcomes that can be compared.

A reader may cut its output where it likes, so outcomes are compared after `merged`. Not a test itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from k2think.dialogue.events import Event, ReasoningDelta, TextDelta, ToolCallDelta
from k2think.dialogue.machine import Machine


def merged(events: Iterable[Event]) -> list[Event]:
    """Put neighbouring deltas of one kind together, and leave empty ones out: what a client has seen at the end."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        match event, last:
            case (TextDelta("") | ReasoningDelta(""), _):
                pass
            case TextDelta(text), TextDelta(before):
                out[-1] = TextDelta(before + text)
            case ReasoningDelta(text), ReasoningDelta(before):
                out[-1] = ReasoningDelta(before + text)
            case ToolCallDelta(index, arguments), ToolCallDelta(same, before) if index == same:
                out[-1] = ToolCallDelta(index, before + arguments)
            case _:
                out.append(event)
    return out


def every_split(text: str) -> Iterator[list[str]]:
    """The text whole, character by character, and cut in two at every place (empty pieces included)."""
    yield [text]
    yield list(text)
    for place in range(len(text) + 1):
        yield [text[:place], text[place:]]


def run(machine: Machine[Event, Event], events: Iterable[Event]) -> list[Event]:
    """All that a machine gives for these events and for its end, merged."""
    out: list[Event] = []
    for event in events:
        out += machine.feed(event)
    out += machine.close()
    return merged(out)


def outcomes(make: Callable[[], Machine[Event, Event]], text: str, after: Sequence[Event] = ()) -> list[list[Event]]:
    """One fresh machine for each split of a text, sent as TextDeltas, and then `after`: all outcomes must be equal."""
    return [run(make(), [*map(TextDelta, pieces), *after]) for pieces in every_split(text)]
