"""Makes of what a client attached what an upstream can take: text, images for a model that sees, documents to upload.

Once for each request, before anything is asked upstream: what is wrong with a file is a plain 400, save with one that
the upstream should have read and could not.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from collections.abc import Mapping, Sequence

import msgspec

from k2think.dialogue.prompt import Attachment, Document, DocumentText, Image, Message, Prompt
from k2think.errors import ClientError, FileNotFound, InvalidRequest, UnusableFile, UnusableUrl
from k2think.inband.documents import describe_image, name_documents, write_documents
from k2think.library.content import opened
from k2think.library.deposit import file_too_large
from k2think.library.images import LARGEST, look_at
from k2think.library.inline import data_url, decoded
from k2think.library.names import safe_name
from k2think.library.shelf import Shelf
from k2think.library.sniffing import media_type_of
from k2think.library.texts import Texts
from k2think.settings import Files
from k2think.upstreams.catalog import Catalog
from k2think.upstreams.public_web import Fetched, PublicWeb

MAX_ATTACHMENTS = 100
"""Files and images of one request, those of earlier turns included."""

MAX_URLS = 10
"""Files and images of one request that are fetched; all of them together may be as large as one file."""

MAX_IMAGE_BYTES = 32 * 1024 * 1024
"""All images of one request together, as they are held in memory until the upstream has them."""


class Attachments:
    """Resolves them. `web` is None where nothing is fetched; `uploads`: the upstream takes documents as they are."""

    def __init__(
        self, *, catalog: Catalog, shelf: Shelf, texts: Texts, web: PublicWeb | None, settings: Files, uploads: bool
    ) -> None:
        self._catalog = catalog
        self._shelf = shelf
        self._texts = texts
        self._web = web
        self._settings = settings
        self._uploads = uploads

    async def resolve(self, prompt: Prompt, owner: str) -> Prompt:
        """Give the prompt with no `Attachment` left in it; `owner` says whose uploaded files it may name.

        Raises `ClientError` whose `param` is the field at fault, or what keeps the upstream from saying whether the
        model sees.
        """
        attached = [one for message in prompt.messages for one in message.attachments if isinstance(one, Attachment)]
        if not attached:
            return prompt
        if len(attached) > MAX_ATTACHMENTS:
            told = f"A request can hold {MAX_ATTACHMENTS} files and images, and this one holds {len(attached)}."
            raise InvalidRequest(told, param="messages", code="too_many_files")
        if first := next((one.place for one in attached if one.image), None):
            await self._check_sight(prompt.model, first)
        found = await self._find_all(attached, owner)
        images = [document for document in found.values() if _is_image(document)]
        documents = [document for document in found.values() if not _is_image(document)]
        shown = await self._show(images, prompt.model)
        messages = tuple([_with(message, found, shown) for message in prompt.messages])
        if self._uploads:
            messages = name_documents(messages)
        elif documents:
            messages = write_documents(messages, await self._read(documents), self._settings.file_text_budget)
        return msgspec.structs.replace(prompt, messages=messages)

    async def _check_sight(self, model: str, place: str) -> bool:
        """Whether the model sees; if it does not, `InvalidRequest` unless images are described to it."""
        sees = await self._catalog.sees(model)
        if not sees and self._settings.image_mode == "refuse":
            told = (
                f"The model '{model}' cannot see images, and '{place}' holds one. Take it out, also where it stands in "
                "an earlier turn. Whoever runs the gateway can have images described instead: IMAGE_MODE=describe."
            )
            raise InvalidRequest(told, param=place, code="image_not_supported")
        return sees

    async def _find_all(self, attached: Sequence[Attachment], owner: str) -> dict[str, Document]:
        """By place: what is attached."""
        urls = [one for one in attached if one.url is not None]
        if len(urls) > MAX_URLS:
            told = f"A request can hold {MAX_URLS} URLs of files and images, and this one holds {len(urls)}."
            raise InvalidRequest(told, param=urls[MAX_URLS].place, code="too_many_files")
        found: dict[str, Document] = {}
        room = self._settings.max_file_bytes
        for one in attached:
            try:
                document = found[one.place] = await self._find(one, owner, room)
            except ClientError as error:
                error.param = one.place
                raise
            if one.url is not None:
                room -= document.size
        return found

    async def _find(self, attachment: Attachment, owner: str, room: int) -> Document:
        """The file; `room` is what one that is fetched may have."""
        if attachment.file_id is not None:
            record = await asyncio.to_thread(self._shelf.find, owner, attachment.file_id, time.time())
            if record is None:
                raise FileNotFound(attachment.file_id)
            document = self._shelf.document(record)
        elif attachment.url is not None:
            fetched = await self._fetch(attachment.url, min(room, LARGEST) if attachment.image else room)
            document = await asyncio.to_thread(_document_of, fetched.data, attachment.name or fetched.name)
        else:
            document = await asyncio.to_thread(self._sent_along, attachment)
        if attachment.image and not _is_image(document):
            told = f"This is {document.media_type} and no image. Attach it as a part of type 'file'."
            raise UnusableFile(told, code="invalid_image")
        return msgspec.structs.replace(document, place=attachment.place)

    def _sent_along(self, attachment: Attachment) -> Document:
        data = decoded(attachment.content or "")
        if len(data) > self._settings.max_file_bytes:
            raise file_too_large(self._settings.max_file_bytes)
        return _document_of(data, attachment.name)

    async def _fetch(self, url: str, limit: int) -> Fetched:
        if self._web is None:
            told = "Nothing is fetched by its URL here. Send the content itself, as a data: URL or an uploaded file."
            raise UnusableUrl(told, code="url_fetch_disabled")
        return await self._web.fetch(url, limit=limit)

    async def _show(self, images: Sequence[Document], model: str) -> dict[tuple[str, str], Image | str]:
        """By digest and name: the images, or words for them."""
        if not images:
            return {}
        sees = await self._check_sight(model, images[0].place or "")
        if sees and sum(image.size for image in images) > MAX_IMAGE_BYTES:
            told = f"All images of a request can have {MAX_IMAGE_BYTES // 1024**2} MB together."
            raise UnusableFile(told, param=images[-1].place, code="image_too_large")
        once = {(image.digest, image.name): image for image in images}
        return {key: await self._shown(image, sees=sees) for key, image in once.items()}

    async def _shown(self, image: Document, *, sees: bool) -> Image | str:
        data = await asyncio.to_thread(_content, image)
        try:
            picture = await asyncio.to_thread(look_at, data)
        except UnusableFile as error:
            error.param = image.place
            raise
        if sees:
            return Image(await asyncio.to_thread(data_url, picture.media_type, data))
        return describe_image(image, picture.width, picture.height, await self._texts.in_image(image.digest, data))

    async def _read(self, documents: Sequence[Document]) -> dict[str, DocumentText]:
        """By digest: their texts."""
        once = {document.digest: document for document in documents}
        # One after another: a request's own files must not keep each other waiting for a place.
        budget = self._settings.file_text_budget
        return {digest: await self._texts.of(document, budget) for digest, document in once.items()}


def _is_image(document: Document) -> bool:
    """A drawing in SVG is a text, and a model that sees cannot see it."""
    return document.media_type.startswith("image/") and document.media_type != "image/svg+xml"


def _document_of(data: bytes, name: str) -> Document:
    name = safe_name(name) if name else ""
    media_type = media_type_of(io.BytesIO(data), name)
    return Document(name, media_type, hashlib.sha256(data).hexdigest(), len(data), data=data)


def _content(document: Document) -> bytes:
    try:
        with opened(document) as file:
            return file.read()
    except OSError:
        raise FileNotFound(document.name, param=document.place) from None


def _with(message: Message, found: Mapping[str, Document], shown: Mapping[tuple[str, str], Image | str]) -> Message:
    """The turn with what has been found; words stand behind its text."""
    if not message.attachments:
        return message
    texts = [message.text] if message.text else []
    kept: list[Attachment | Document | Image] = []
    for one in message.attachments:
        document = found[one.place] if isinstance(one, Attachment) else one
        made = shown.get((document.digest, document.name), document) if isinstance(document, Document) else document
        if isinstance(made, str):
            texts.append(made)
        else:
            kept.append(made)
    return msgspec.structs.replace(message, text="\n\n".join(texts), attachments=tuple(kept))
