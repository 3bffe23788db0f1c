"""What an upstream is to the engine: it answers a prompt with events, and says which models it has.

What stands in a prompt's `tools` and `output` is for the upstream to do by itself; what the gateway does in its place
has been written into the messages before, and taken out there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from msgspec import Struct

from k2think.credentials.credential import Credential
from k2think.dialogue.events import Event
from k2think.dialogue.prompt import Prompt


class Listed(Struct, frozen=True):
    """A model as an upstream lists it. `sees`: whether it takes images; None where the list does not say."""

    id: str
    sees: bool | None = None


class Upstream(Protocol):
    """A service that hosts the model.

    Everything it raises is an `UpstreamError`, but `UnusableFile` for a document that nobody can read.
    """

    def open(self, prompt: Prompt, model: str, credential: Credential) -> AsyncGenerator[Sequence[Event], None]:
        """Ask `model` (the upstream's id); iterate over what each read brought.

        Closing the generator before its end hangs up, which stops the generation upstream.
        """
        ...

    async def models(self, credential: Credential) -> tuple[Listed, ...]:
        """List the models, in the upstream's order."""
        ...
