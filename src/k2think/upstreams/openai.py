"""Any OpenAI-compatible server as an upstream: vLLM, SGLang, llama.cpp, the vendor's own API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from k2think.credentials.credential import Credential
from k2think.dialogue.events import Event
from k2think.dialogue.prompt import Prompt
from k2think.upstreams.exchange import converse, list_models
from k2think.upstreams.refusals import Speaker
from k2think.upstreams.transport import Transport
from k2think.upstreams.turns import fold


class OpenAIUpstream:
    """Speaks OpenAI's chat protocol at `url`, which ends in `/chat/completions`."""

    def __init__(self, transport: Transport, url: str) -> None:
        self._transport = transport
        self._url = url
        self._models_url = f"{url.rstrip('/').removesuffix('/chat/completions')}/models"

    def open(
        self, prompt: Prompt, model: str, credential: Credential
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Event]]]:
        """Ask the model."""
        return converse(
            self._transport, self._url, _headers(credential), payload(prompt, model), owns_tokens=Speaker.MODEL_SERVER
        )

    async def models(self, credential: Credential) -> tuple[str, ...]:
        """List the model ids."""
        return await list_models(
            self._transport, self._models_url, _headers(credential), owns_tokens=Speaker.MODEL_SERVER
        )


def payload(prompt: Prompt, model: str) -> bytes:
    """The body of a chat request; earlier calls and tool results must have been written into the turns before."""
    body: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "model": model,
        "messages": fold(prompt.messages),
        **msgspec.to_builtins(prompt.sampling),  # leaves out what is not set
    }
    return msgspec.json.encode(body)


def _headers(credential: Credential) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential.secret}"} if credential.secret else {}
