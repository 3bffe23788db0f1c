"""How fast the reader of tool calls is: plain text, text full of what might open a call, and calls.

    python bench/calls.py

Prints megabytes a second (of characters), whole and in pieces of 4 characters as a model sends them: the best of
several rounds. Hostile texts come in two sizes: as time is linear, the rates of both are the same.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from k2think.dialogue.events import TextDelta
from k2think.dialogue.prompt import Tool, Toolbox
from k2think.inband.checking import ArgumentChecker
from k2think.inband.toolcalls.desk import CallDesk, Handling
from k2think.inband.toolcalls.names import Names
from k2think.inband.toolcalls.reader import CallReader

ROUNDS = 5
MEGABYTE = 1_000_000
TOOLS = tuple(Tool(name, parameters={"properties": {"city": {}}}) for name in ("get_weather", "search", "say_hello"))
PLAIN = "The quick brown fox jumps over the lazy dog, and so on. It is plain text.\n"
CODE = 'def f(x):\n    return {"a": [x, 1], **g(x)} if x < 3 else [h(y) for y in x]\n'
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'


def seconds(text: str, size: int) -> float:
    """The best time for one reading."""
    pieces = [TextDelta(text[place : place + size]) for place in range(0, len(text), size)]
    best = float("inf")
    for _ in range(ROUNDS):
        desk = CallDesk(Toolbox(TOOLS), ArgumentChecker(TOOLS), Handling(live=True, may_ask=False, undo=False))
        reader = CallReader(Names(TOOLS), desk)
        began = time.perf_counter()
        for piece in pieces:
            reader.feed(piece)
        reader.close()
        best = min(best, time.perf_counter() - began)
    return best


def report(name: str, unit: str, megabytes: float, size: int) -> None:
    text = unit * int(megabytes * MEGABYTE / len(unit))
    shown = "whole" if size >= len(text) else f"by {size}"
    print(f"{name:<12} {megabytes:>5} MB {shown:>6} {len(text) / MEGABYTE / seconds(text, size):>9.2f} MB/s")


def main() -> None:
    report("plain text", PLAIN, 10, 10 * MEGABYTE)
    report("plain text", PLAIN, 1, 4)
    report("code", CODE, 1, MEGABYTE)
    report("code", CODE, 1, 4)
    report("calls", CALL, 0.2, MEGABYTE)
    report("calls", CALL, 0.2, 4)
    for unit in ("<", "{", "`"):
        report(repr(unit), unit, 5, 10 * MEGABYTE)
        report(repr(unit), unit, 10, 10 * MEGABYTE)
    for unit in ('{"', "<tool_call>", '{"name": ', "```\n"):
        report(repr(unit), unit, 0.1, MEGABYTE)
        report(repr(unit), unit, 0.2, MEGABYTE)


if __name__ == "__main__":
    main()
