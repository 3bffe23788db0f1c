"""Reads JSON and the literals that models write in its place, and makes JSON's types of Python's values.

What is nested too deep, or has numbers of thousands of digits, is refused: nobody needs it, and it could not be sent.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

MAX_DEPTH = 100
"""How deep values may be nested. Far above what tools ask for, far below what the interpreter bears."""

_MAX_TOKENS = 50_000
"""Names, texts, numbers and marks of a literal; each takes about a microsecond."""
_MAX_DIGITS = 4_000
_MAX_BITS = 13_000

_ALIASES = {"True": "true", "False": "false", "None": "null"}
_OPENERS = frozenset("[{(")
_BEFORE_VALUES = frozenset("[{,:")
_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<text>'(?:[^'\\]++|\\.)*+'|"(?:[^"\\]++|\\.)*+")"""
    r"""|(?P<mark>[\[\]{}(),:])|(?P<word>[-+.\w]++)""",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPED = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "0": "\0",
    "\n": "",
    "/": "/",
    "\\": "\\",
    "'": "'",
    '"': '"',
}


class NotJson(Exception):
    """A text or a value that cannot be had as JSON. `reason` is one short sentence without a full stop."""

    def __init__(self, reason: str = "this is not JSON") -> None:
        super().__init__(reason)
        self.reason = reason


def read_json(text: str) -> Any:
    """The value of a JSON text. Raises `NotJson`.

    Of a name that stands twice, the last counts. Not read: NaN and infinities, numbers of thousands of digits, and
    what is nested deeper than `MAX_DEPTH`.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_int=_integer, parse_float=_finite_float)
    except (ValueError, RecursionError) as error:
        raise NotJson from error
    if text.count("[") + text.count("{") > MAX_DEPTH:
        return plain(value)
    return value


def read_literal(text: str) -> Any:
    """The value of a JSON text or of a Python literal, also of a mixture, with trailing commas. Raises `NotJson`."""
    try:
        return read_json(text)
    except NotJson:
        pass
    pieces: list[str] = []
    place = depth = 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None or depth > MAX_DEPTH or len(pieces) >= _MAX_TOKENS:
            raise NotJson
        place = token.end()
        if token.lastgroup == "space":
            continue
        piece = token[0]
        # Two values side by side are no literal; to see that early spares the rest of a long text.
        if token.lastgroup != "mark" or piece in _OPENERS:
            if pieces and pieces[-1] not in _BEFORE_VALUES:
                raise NotJson
            depth += piece in _OPENERS
        elif piece in "]})":
            depth -= 1
        if token.lastgroup == "text":
            piece = _json_string(piece)
        elif token.lastgroup == "word":
            piece = _ALIASES.get(piece, piece)
        elif piece in "()":
            if not pieces:  # around a whole value, brackets like these mean nothing
                raise NotJson
            piece = "[" if piece == "(" else "]"
        if piece in "]}" and pieces and pieces[-1] == ",":
            pieces.pop()
        pieces.append(piece)
    return read_json(" ".join(pieces))


def plain(value: Any, _depth: int = 0) -> Any:
    """A value of Python in the types that JSON has. Raises `NotJson` if it is nested too deep.

    Tuples and sets become lists, names become texts, and so do NaN, infinities and what JSON does not know at all.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value if type(value) is str else str(value)
    if isinstance(value, int):
        if value.bit_length() > _MAX_BITS:
            raise NotJson("a number has too many digits")
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else json.dumps(value)
    if _depth >= MAX_DEPTH:
        raise NotJson(f"this is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {_name(name): plain(each, _depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, _depth + 1) for each in value]
    if isinstance(value, set | frozenset):
        return [plain(each, _depth + 1) for each in sorted(value, key=repr)]
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace")
    return repr(value)


def _name(name: Any) -> str:
    value = plain(name)
    return value if isinstance(value, str) else json.dumps(value)


def _json_string(token: str) -> str:
    if token[0] == '"':
        try:
            return json.dumps(json.loads(token, strict=False))
        except ValueError:
            pass
    return json.dumps(_ESCAPE.sub(_unescaped, token[1:-1]))


def _unescaped(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3]
    if code is None:
        return _ESCAPED.get(match[4], match[0])
    number = int(code, 16)
    return chr(number) if number <= 0x10FFFF else match[0]


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError("too many digits")
    return int(digits)


def _finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("too large")
    return number
