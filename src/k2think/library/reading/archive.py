"""Looks over the ZIP file that an Office file is, before a library opens it and unpacks what it says."""

from __future__ import annotations

import io
import itertools
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from k2think.library.reading.refusal import encrypted, too_complex, unreadable

MOST_MEMBERS = 10_000
MOST_UNPACKED = 200 * 1024 * 1024
MOST_DIRECTORY = 4 * 1024 * 1024
"""Bytes of the list of members."""
DENSEST = 200
"""How many times larger than packed a member may be, if it is larger than `DENSE_FROM`: text is 5 to 50 times."""
DENSE_FROM = 8 * 1024 * 1024
AT_ONCE = 256 * 1024

_HEADER = 30
_MARKUP = (b"<!", b"<\x00!")
_DEFINITION = re.compile(rb"<\x00?!\x00?[Dd]")
"""Where entities are defined, in UTF-8 or UTF-16."""


def check_archive(file: BinaryIO, *, most_xml: int = MOST_UNPACKED) -> None:
    """Raise `Refusal` unless it can be opened without harm; leaves the file at its start.

    The sizes are those that come out, not those that the file claims. `most_xml`: bytes of all its XML together.
    """
    try:
        members = _members(file)
        unpacked = xml = 0
        for member in members:
            is_xml = member.filename.lower().endswith((".xml", ".rels", ".vml"))
            size = 0
            before = b""
            for piece in _unpacked(file, member):
                size += len(piece)
                unpacked += len(piece)
                xml += len(piece) * is_xml
                if unpacked > MOST_UNPACKED or (size > DENSE_FROM and size > DENSEST * member.compress_size):
                    raise too_complex("would be far too large when unpacked")
                if xml > most_xml:
                    raise too_complex(f"holds more than {most_xml >> 20} MB of text and markup")
                if is_xml and _defines_entities(before + piece):
                    raise unreadable("defines entities of its own, which no Office file does")
                before = piece[-4:]
            if size != member.file_size:
                raise unreadable()
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise unreadable() from error
    file.seek(0)


def _defines_entities(xml: bytes) -> bool:
    return any(mark in xml for mark in _MARKUP) and _DEFINITION.search(xml) is not None


def _members(file: BinaryIO) -> list[zipfile.ZipInfo]:
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 65_557))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        raise unreadable("is damaged or incomplete")
    count, length = struct.unpack_from("<HI", tail, at + 10)
    too_many = too_complex(f"has more than {MOST_MEMBERS:,} parts")
    if MOST_MEMBERS < count < 0xFFFF or MOST_DIRECTORY < length < 0xFFFF_FFFF:
        raise too_many
    with zipfile.ZipFile(file) as opened:
        members = opened.infolist()
    if len(members) > MOST_MEMBERS:
        raise too_many
    if any(member.flag_bits & 0x41 for member in members):
        raise encrypted()
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise unreadable("has two parts of the same name")
    if any(name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") for name in names):
        raise unreadable("has parts that point outside of it")
    places = sorted((member.header_offset, member.header_offset + member.compress_size) for member in members)
    if any(end > start for (_, end), (start, _) in itertools.pairwise(places)):
        raise unreadable("has parts that overlap")
    return members


def _unpacked(file: BinaryIO, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """What really comes out of a member, in pieces; the size in the list, which other readers keep to, may be a lie."""
    file.seek(member.header_offset)
    name, extra = struct.unpack_from("<HH", file.read(_HEADER), 26)
    file.seek(name + extra, io.SEEK_CUR)
    left = member.compress_size
    if member.compress_type == zipfile.ZIP_STORED:
        while left and (piece := file.read(min(left, AT_ONCE))):
            left -= len(piece)
            yield piece
        return
    if member.compress_type != zipfile.ZIP_DEFLATED:
        raise unreadable("is packed in a way that no Office program uses")
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    packed = b""
    while not inflater.eof:
        if not packed:
            packed = file.read(min(left, AT_ONCE))
            left -= len(packed)
            if not packed:
                raise EOFError
        yield inflater.decompress(packed, AT_ONCE)
        packed = inflater.unconsumed_tail
