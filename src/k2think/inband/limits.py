"""Stop sequences, for upstreams that do not know them: the answer ends before the first one.

Only the answer is read, never the thinking or a call's arguments: OpenAI's `stop` is about the text that a client sees.
Token limits are not kept here; the upstream has them natively.
"""

from __future__ import annotations

from collections.abc import Sequence

from k2think.dialogue.events import Event, Finish, TextDelta, ToolCallStart


class StopReader:
    """A Machine that ends the answer before the first stop sequence and says `Finish` itself.

    The sequence whose last character comes first ends the answer; of several that end with the same character, the
    longest. So the outcome does not depend on how the text was cut, and nobody waits for a longer sequence once a
    shorter one is complete. Held back is only what may still become a sequence. Time is linear in the length of the
    text for each sequence. `done` turns True at the end: whatever is fed after it gives nothing.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.done = False
        self._matchers = [_Matcher(stop) for stop in dict.fromkeys(stops) if stop]
        self._held = ""  # the sequence whose beginning is held back …
        self._length = 0  # … and how many of its characters are
        self._called = False

    def feed(self, event: Event) -> Sequence[Event]:
        """Take one event."""
        if self.done:
            return ()
        if type(event) is not TextDelta:
            if type(event) is ToolCallStart:
                self._called = True
            return (*self._release(), event) if self._length else (event,)
        text = event.text
        if not self._length:
            for matcher in self._matchers:
                if matcher.first in text:
                    break
            else:
                return (event,)
        return self._read(text)

    def close(self) -> Sequence[Event]:
        """The stream ended: what was held is text after all."""
        return self._release()

    def _read(self, text: str) -> Sequence[Event]:
        end = len(text)
        found: _Matcher | None = None
        for matcher in self._matchers:
            # Later matchers read no further than the earliest end so far; one that ends there too must be longer.
            place = matcher.find_end(text, end)
            if place and (found is None or place < end or len(matcher.stop) > len(found.stop)):
                end, found = place, matcher
        if found is None:
            longest = max(self._matchers, key=_Matcher.matched)
            out = self._take(text, self._length + end - longest.length)
            self._held, self._length = longest.stop, longest.length
            return (TextDelta(out),) if out else ()
        out = self._take(text, self._length + end - len(found.stop))
        self.done = True
        self._length = 0
        # A client that was given calls must learn that it is its turn, whatever the text after them was.
        finish = Finish("tool_calls" if self._called else "stop")
        return (TextDelta(out), finish) if out else (finish,)

    def _take(self, text: str, count: int) -> str:
        """Give the first `count` characters of what is held and the text behind it, without joining the two."""
        if count <= self._length:
            return self._held[:count]
        return self._held[: self._length] + text[: count - self._length]

    def _release(self) -> Sequence[Event]:
        if not self._length:
            return ()
        out = self._held[: self._length]
        self._length = 0
        for matcher in self._matchers:
            matcher.length = 0
        return (TextDelta(out),)


class _Matcher:
    """How much of one sequence the text so far ends with; Knuth, Morris and Pratt's way, so never read twice."""

    __slots__ = ("_borders", "_pair", "first", "length", "stop")

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.first = stop[0]
        self._pair = stop[:2]  # one character alone is in too many texts
        self.length = 0
        self._borders = [0]  # of each beginning of `stop`: its longest end that is a beginning too; made as needed

    def matched(self) -> int:
        return self.length

    def find_end(self, text: str, limit: int) -> int:
        """Read on; give where in `text[:limit]` the sequence is complete (behind its last character), or 0."""
        stop, borders, length = self.stop, self._borders, self.length
        place = 0
        while place < limit:
            if not length:
                place = text.find(self._pair, place, limit)
                if place < 0:
                    length = 1 if text[limit - 1] == self.first else 0
                    break
                length = len(self._pair)
                place += length
            else:
                character = text[place]
                while length and stop[length] != character:
                    length = borders[length - 1]
                if stop[length] == character:
                    length += 1
                place += 1
            if length == len(stop):
                return place
            while length > len(borders):
                self._learn()
        self.length = length
        return 0

    def _learn(self) -> None:
        """Add the border of the next longer beginning of the sequence."""
        stop, borders = self.stop, self._borders
        added = stop[len(borders)]
        border = borders[-1]
        while border and stop[border] != added:
            border = borders[border - 1]
        borders.append(border + 1 if stop[border] == added else 0)
