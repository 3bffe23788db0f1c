"""The names of the declared tools, as a model may spell them. Nothing else is ever a call."""

from __future__ import annotations

from collections.abc import Sequence

from k2think.dialogue.prompt import Tool
from k2think.inband.toolcalls.tape import NotACall

NAMESPACE = "functions."
"""What OpenAI's own models put before a name."""


class Names:
    """Tells for a word whether it is a tool's name, or may still become one."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._properties = {tool.name: tuple(tool.parameters.get("properties") or ()) for tool in tools}
        self._alone = {tool.name for tool in tools if not tool.parameters.get("required")}
        self.spellings = {spelling: tool.name for tool in tools for spelling in (tool.name, NAMESPACE + tool.name)}
        self.longest = max(map(len, self.spellings), default=0)

    def of(self, spelling: str) -> str:
        """The tool of this name. Raises `NotACall`."""
        try:
            return self.spellings[spelling]
        except KeyError:
            raise NotACall from None

    def may_become(self, word: str) -> bool:
        """Whether a name begins like this."""
        return any(spelling.startswith(word) for spelling in self.spellings)

    def may_stand_alone(self, name: str) -> bool:
        """Whether a tool can be called without any argument."""
        return name in self._alone

    def properties(self, name: str) -> tuple[str, ...]:
        """The names of a tool's arguments, in the order of its schema."""
        return self._properties[name]
