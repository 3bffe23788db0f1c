"""K2-Think's own stream form: each frame repeats the whole text so far. Gives what is new in each.

Not monotonic: while the thinking is open, the text ends with `</details>`; the next snapshot puts more thinking before
it, and when the thinking is over the block's attributes and its summary change too. So thinking and answer are found in
each snapshot and compared apart. Finding them costs two searches, comparing is a memory comparison: the cost is that of
receiving the snapshots.
"""

from __future__ import annotations

from k2think.dialogue.events import ReasoningDelta, TextDelta

_OPENER = "<details"
_CLOSER = "\n</details>"
_SUMMARY_END = "</summary>"
_SUMMARY_ROOM = 400  # characters within which the summary ends, if there is one


class SnapshotReader:
    """A Machine: `feed(whole text so far)` gives the new events."""

    def __init__(self) -> None:
        self._thinking = ""  # the lines as they stand in the block, each with its `> `
        self._answer = ""

    def feed(self, snapshot: str) -> list[ReasoningDelta | TextDelta]:
        """Take the next snapshot. One that does not continue what was given before adds nothing."""
        thinking, answer = _parts(snapshot)
        events: list[ReasoningDelta | TextDelta] = []
        if len(thinking) > len(self._thinking) and thinking.startswith(self._thinking):
            events.append(ReasoningDelta(self._unquoted(thinking[len(self._thinking) :])))
            self._thinking = thinking
        if len(answer) > len(self._answer) and answer.startswith(self._answer):
            events.append(TextDelta(answer[len(self._answer) :]))
            self._answer = answer
        return [event for event in events if event.text]

    def close(self) -> list[ReasoningDelta | TextDelta]:
        """Nothing is ever held."""
        return []

    def _unquoted(self, piece: str) -> str:
        """Take one `> ` from the start of each line; the first line of a later piece began in an earlier one."""
        first, *others = piece.split("\n")
        if not self._thinking:
            first = first.removeprefix("> ")
        return "\n".join([first, *(line.removeprefix("> ") for line in others)])


def _parts(snapshot: str) -> tuple[str, str]:
    """Split a snapshot into the thinking's lines and the answer after them."""
    if not snapshot.startswith(_OPENER):
        return "", snapshot
    body = snapshot.find(">") + 1
    if not body or 'type="reasoning"' not in snapshot[:body]:
        return "", snapshot
    summary_end = snapshot.find(_SUMMARY_END, body, body + _SUMMARY_ROOM)
    if summary_end >= 0:
        body = summary_end + len(_SUMMARY_END)
    end = snapshot.find(_CLOSER, body)
    if end < 0:
        return snapshot[body:].strip("\n"), ""
    return snapshot[body:end].strip("\n"), snapshot[end + len(_CLOSER) :].lstrip()
