"""The files and images in a chat request: what a part of a turn says about where they are."""

from __future__ import annotations

from k2think.dialogue.prompt import Attachment
from k2think.errors import InvalidRequest
from k2think.wire.openai_chat.schema import FilePart, ImagePart

FILE_ID = "file-"
"""How the ids of uploaded files begin."""


def attached_image(part: ImagePart, place: str) -> Attachment:
    """The image of a part. Raises `InvalidRequest` for a URL that is none."""
    if isinstance(part.image_url, str):
        url, place = part.image_url, f"{place}.image_url"
    else:
        url, place = part.image_url.url, f"{place}.image_url.url"
    if (found := _by_url(url, place, image=True)) is not None:
        return found
    if (url := url.strip()).startswith(FILE_ID):
        return Attachment(place, image=True, file_id=url)
    message = f"Invalid '{place}': expected a data: URL, an http or https URL, or the id of an uploaded file."
    raise InvalidRequest(message, param=place, code="invalid_value")


def attached_file(part: FilePart, place: str) -> Attachment:
    """The file of a part. Raises `InvalidRequest` if it says nothing usable, or two things at once."""
    file, place = part.file, f"{place}.file"
    name = file.filename or ""
    if file.file_id and file.file_data:
        message = f"Invalid '{place}': expected 'file_id' or 'file_data', not both."
        raise InvalidRequest(message, param=place, code="invalid_value")
    if file.file_id:
        # Some clients write a URL in the id's place.
        place = f"{place}.file_id"
        return _by_url(file.file_id, place, name=name) or Attachment(place, file_id=file.file_id, name=name)
    if file.file_data is None:
        raise InvalidRequest(
            f"Missing required parameter: '{place}.file_id' or '{place}.file_data'.",
            param=place,
            code="missing_required_parameter",
        )
    place = f"{place}.file_data"
    return _by_url(file.file_data, place, name=name) or Attachment(place, content=file.file_data, name=name)


def _by_url(written: str, place: str, *, image: bool = False, name: str = "") -> Attachment | None:
    kind = written[:100].lstrip()[:8].lower()
    if kind.startswith("data:"):
        return Attachment(place, image=image, content=written, name=name)
    if kind.startswith(("http://", "https://")):
        return Attachment(place, image=image, url=written.strip(), name=name)
    return None
