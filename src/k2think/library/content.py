"""Where a document's bytes are."""

from __future__ import annotations

import io
from typing import BinaryIO

from k2think.dialogue.prompt import Document


def opened(document: Document) -> BinaryIO:
    """Open its content for reading. Raises `OSError`; `FileNotFoundError` if its client has deleted it."""
    if document.data is not None:
        return io.BytesIO(document.data)
    if document.path is None:
        raise FileNotFoundError
    return document.path.open("rb")
