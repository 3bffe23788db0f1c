"""Finds text in an image, where the optional extra `ocr` is installed."""

from __future__ import annotations

import importlib
import io
from typing import Any, BinaryIO

from PIL import Image

from k2think.dialogue.prompt import DocumentText
from k2think.library.images import look_at
from k2think.library.reading.gathering import gathered

LARGEST = 1280
"""Pixels of a side; larger images are made smaller first. The library would enlarge small ones, which takes long."""


def read(file: BinaryIO, limit: int) -> DocumentText:
    """The text, line by line. Raises `Refusal` where none is found and `UnusableFile` where it is no image."""
    data = file.read()
    look_at(data)
    with Image.open(io.BytesIO(data)) as opened:
        opened.thumbnail((LARGEST, LARGEST))
        image = opened.convert("RGB")
    engine: Any = importlib.import_module("rapidocr_onnxruntime").RapidOCR(
        det_limit_type="max", det_limit_side_len=LARGEST, use_cls=False
    )
    pixels = importlib.import_module("numpy").asarray(image)
    found, _ = engine(pixels)
    return gathered((line[1] for line in found or ()), limit)
