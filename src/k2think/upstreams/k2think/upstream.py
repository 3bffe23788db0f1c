"""K2-Think's web service as an upstream.

Documents that are still attached are put into the account that serves the request, and the chat names them; the text of
one that cannot be had there goes with the question, as it would on any other upstream.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeAlias

import msgspec

from k2think.credentials.credential import Credential
from k2think.dialogue.events import Event
from k2think.dialogue.prompt import Document, DocumentText, Prompt
from k2think.inband.documents import write_documents
from k2think.upstreams.base import Listed
from k2think.upstreams.exchange import converse, list_models
from k2think.upstreams.k2think import protocol
from k2think.upstreams.k2think.files import Uploads
from k2think.upstreams.refusals import Speaker
from k2think.upstreams.transport import Transport

TextOf: TypeAlias = Callable[[Document, int], Awaitable[DocumentText]]
"""Gives at most so many characters of a document's text. Raises `UnusableFile`, `Overloaded`."""


class K2ThinkUpstream:
    """Speaks Open WebUI's protocol at `url`, the chat route.

    `texts` gives the texts of documents that cannot be uploaded, `budget` characters of them for one request; without
    it prompts must hold no documents.
    """

    def __init__(
        self,
        transport: Transport,
        url: str,
        texts: TextOf | None = None,
        budget: int = 100_000,
        *,
        uploads: Uploads | None = None,
    ) -> None:
        self._transport = transport
        self._url = url
        self._texts = texts
        self._budget = budget
        self._uploads = uploads or Uploads(transport, url)

    def open(self, prompt: Prompt, model: str, credential: Credential) -> AsyncGenerator[Sequence[Event], None]:
        """Ask the model. Raises what reading texts raises too, for a document that the service cannot read."""
        if self._texts is not None:
            attached = [one for message in prompt.messages for one in message.attachments if isinstance(one, Document)]
            if attached:
                return self._open_with(attached, self._texts, prompt, model, credential)
        return self._converse(prompt, model, credential)

    async def _open_with(
        self, documents: Sequence[Document], text_of: TextOf, prompt: Prompt, model: str, credential: Credential
    ) -> AsyncGenerator[Sequence[Event], None]:
        ids = await self._uploads.ensure_all(credential, documents)
        missing = {document.digest: document for document in documents if ids[document.digest] is None}
        if missing:
            texts = {digest: await text_of(document, self._budget) for digest, document in missing.items()}
            messages = write_documents(prompt.messages, texts, self._budget)
            prompt = msgspec.structs.replace(prompt, messages=messages)
        files = tuple(filter(None, ids.values()))
        async with aclosing(self._converse(prompt, model, credential, files)) as batches:
            async for batch in batches:
                yield batch

    def _converse(
        self, prompt: Prompt, model: str, credential: Credential, files: Sequence[str] = ()
    ) -> AsyncGenerator[Sequence[Event], None]:
        return converse(
            self._transport,
            self._url,
            protocol.headers(credential.secret),
            protocol.payload(prompt, model, files),
            owns_tokens=Speaker.SERVICE,
        )

    async def models(self, credential: Credential) -> tuple[Listed, ...]:
        """List the models."""
        return await list_models(
            self._transport,
            protocol.models_url(self._url),
            protocol.headers(credential.secret),
            owns_tokens=Speaker.SERVICE,
        )
