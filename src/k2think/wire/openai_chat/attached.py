"""The files and images in a chat request: what a part of a turn says about where they are."""

from __future__ import annotations

import binascii
from urllib.parse import unquote_to_bytes

from k2think.dialogue.prompt import Attachment
from k2think.errors import InvalidRequest
from k2think.wire.openai_chat.schema import FilePart, ImagePart

FILE_ID = "file-"
"""How the ids of uploaded files begin."""

_BLANKS = {ord(blank): None for blank in " \t\r\n"}


def attached_image(part: ImagePart, place: str) -> Attachment:
    """The image of a part. Raises `InvalidRequest` for a URL that is none."""
    if isinstance(part.image_url, str):
        url, place = part.image_url.strip(), f"{place}.image_url"
    else:
        url, place = part.image_url.url.strip(), f"{place}.image_url.url"
    kind = url[:8].lower()
    if kind.startswith("data:"):
        return Attachment(place, image=True, data=_in_data_url(url, place))
    if kind.startswith(("http://", "https://")):
        return Attachment(place, image=True, url=url)
    if url.startswith(FILE_ID):
        return Attachment(place, image=True, file_id=url)
    raise _wrong(place, "expected a data: URL, an http or https URL, or the id of an uploaded file")


def attached_file(part: FilePart, place: str) -> Attachment:
    """The file of a part. Raises `InvalidRequest` if it says nothing usable, or two things at once."""
    file, place = part.file, f"{place}.file"
    name = file.filename or ""
    if file.file_id and file.file_data:
        raise _wrong(place, "expected 'file_id' or 'file_data', not both")
    if file.file_id:
        return Attachment(f"{place}.file_id", file_id=file.file_id, name=name)
    if file.file_data is None:
        raise InvalidRequest(
            f"Missing required parameter: '{place}.file_id' or '{place}.file_data'.",
            param=place,
            code="missing_required_parameter",
        )
    place = f"{place}.file_data"
    written = file.file_data.strip()
    if written[:5].lower() == "data:":
        return Attachment(place, data=_in_data_url(written, place), name=name)
    if written[:8].lower().startswith(("http://", "https://")):
        return Attachment(place, url=written, name=name)
    return Attachment(place, data=_decoded(written, place), name=name)


def _in_data_url(url: str, place: str) -> bytes:
    """RFC 2397: `data:[type][;parameter…][;base64],content`."""
    head, comma, content = url.partition(",")
    if not comma:
        raise _wrong(place, "the data: URL has no comma before its content")
    if not head.rstrip().lower().endswith(";base64"):
        return unquote_to_bytes(content)
    return _decoded(unquote_to_bytes(content).decode("latin-1") if "%" in content else content, place)


def _decoded(text: str, place: str) -> bytes:
    """Base64 of either alphabet, with or without its padding, on however many lines."""
    text = text.translate(_BLANKS) if any(chr(blank) in text for blank in _BLANKS) else text
    if "-" in text or "_" in text:
        text = text.replace("-", "+").replace("_", "/")
    bare = text.rstrip("=")
    try:
        return binascii.a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)
    except ValueError:
        raise _wrong(place, "the content is not valid Base64") from None


def _wrong(place: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid '{place}': {what}.", param=place, code="invalid_value")
