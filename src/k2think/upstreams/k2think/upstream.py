"""K2-Think's web service as an upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from k2think.credentials.credential import Credential
from k2think.dialogue.events import Event
from k2think.dialogue.prompt import Prompt
from k2think.upstreams.exchange import converse, list_models
from k2think.upstreams.k2think import protocol
from k2think.upstreams.refusals import Speaker
from k2think.upstreams.transport import Transport


class K2ThinkUpstream:
    """Speaks Open WebUI's protocol at `url`, the chat route."""

    def __init__(self, transport: Transport, url: str) -> None:
        self._transport = transport
        self._url = url

    def open(
        self, prompt: Prompt, model: str, credential: Credential
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Event]]]:
        """Ask the model."""
        return converse(
            self._transport,
            self._url,
            protocol.headers(credential.secret),
            protocol.payload(prompt, model),
            owns_tokens=Speaker.SERVICE,
        )

    async def models(self, credential: Credential) -> tuple[str, ...]:
        """List the model ids."""
        return await list_models(
            self._transport,
            protocol.models_url(self._url),
            protocol.headers(credential.secret),
            owns_tokens=Speaker.SERVICE,
        )
