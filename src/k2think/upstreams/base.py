"""What an upstream is to the engine: it answers a prompt with events, and says which models it has.

What stands in a prompt's `tools` and `output` is for the upstream to do by itself; what the gateway does in its place
has been written into the messages before, and taken out there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from k2think.credentials.credential import Credential
from k2think.dialogue.events import Event
from k2think.dialogue.prompt import Prompt


class Upstream(Protocol):
    """A service that hosts the model. Everything it raises is an `UpstreamError`."""

    def open(
        self, prompt: Prompt, model: str, credential: Credential
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Event]]]:
        """Ask `model` (the upstream's id); inside the context, iterate over what each read brought.

        Leaving the context before the end hangs up, which stops the generation upstream.
        """
        ...

    async def models(self, credential: Credential) -> tuple[str, ...]:
        """List the model ids, in the upstream's order."""
        ...
