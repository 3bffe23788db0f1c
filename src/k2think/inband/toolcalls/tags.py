"""The tags that calls are written with, found in a text that arrives cut anywhere."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

from msgspec import Struct

from k2think.inband.toolcalls.tape import Reading, Tape

MAX_TAG = 256
"""Characters of a tag."""

WRAPPERS = frozenset({"tool_call", "tool_calls", "function_call", "function_calls", "toolcall", "functioncall"})
"""What stands around calls. Models pair them wrongly, so one is as good as another."""

OPENERS = WRAPPERS | {"function", "invoke"}
"""What may begin a call in the middle of a text."""

INNER_OPENERS = OPENERS | {"tool", "tool_name", "name"}
"""What may begin it between a wrapper's tags."""

PREFIX = r"(?:ifm\||minimax:|antml:|[|｜]DSML[|｜])?"
_PREFIXES = ("", "ifm|", "minimax:", "antml:", "|DSML|", "｜DSML｜")

CLOSER = re.compile(
    rf"</{PREFIX}(?:(?:tool|function)_?calls?|function|invoke|tool|args|args_json|arguments|parameters)\s*>"
)
"""What may stand behind a call."""

_NAMED = frozenset({"function", "invoke", "parameter"})
_HEAD = re.compile(r"<[^\s<>=/]*")
_ATTRIBUTE = re.compile(r"\s*(?:name\s*)?=\s*(?:\"([^\"<>]+)\"|'([^'<>]+)'|([^\s\"'<>]+))")
_ATTRIBUTE_BEGINS = re.compile(r"\s*(?:=.*|n(?:a(?:m(?:e.*)?)?)?)?", re.DOTALL)
_IS_STRING = re.compile(r"\sstring\s*=\s*[\"']?true")


class Tag(Struct, frozen=True):
    """An opening tag: its `kind` without the prefix, the `name` in it (`<function=NAME>`, `<parameter name="KEY">`).

    `is_string`: it says that its value is one.
    """

    kind: str
    name: str = ""
    is_string: bool = False


def read_tag(tape: Tape, kinds: AbstractSet[str] | None) -> Reading[Tag | None]:
    """At `<`: take an opening tag of one of these kinds (None: of any). Takes nothing if there is none."""
    while True:
        text, place = tape.text, tape.place
        head = _HEAD.match(text, place)
        assert head is not None
        kind = _kind(head[0])
        if head.end() == len(text) and len(head[0]) < MAX_TAG:
            if kinds is not None and not _may_become(head[0], kinds):
                return None
        elif not kind or (kinds is not None and kind not in kinds):
            return None
        else:
            end = text.find(">", head.end(), place + MAX_TAG)
            rest = text[head.end() : end if end >= 0 else place + MAX_TAG]
            if "<" in rest or (end < 0 and len(text) - place >= MAX_TAG):
                return None
            if kinds is None or kind not in _NAMED:
                if kinds is not None and rest.strip():
                    return None
                tag = Tag(kind)
            elif _ATTRIBUTE_BEGINS.fullmatch(rest) is None:
                return None
            else:
                tag = _named(kind, rest)
            if end >= 0:
                if kinds is not None and kind in _NAMED and not tag.name:
                    return None
                tape.take(end + 1)
                return tag
        if not (yield from tape.more()):
            return None


def _kind(head: str) -> str:
    for prefix in _PREFIXES[1:]:
        if head.startswith(prefix, 1):
            return head[1 + len(prefix) :]
    return head[1:]


def _may_become(head: str, kinds: AbstractSet[str]) -> bool:
    return any(f"<{prefix}{kind}".startswith(head) for prefix in _PREFIXES for kind in kinds)


def _named(kind: str, rest: str) -> Tag:
    attribute = _ATTRIBUTE.match(rest)
    name = next(filter(None, attribute.groups()), "") if attribute else ""
    return Tag(kind, name, is_string=_IS_STRING.search(rest) is not None)
