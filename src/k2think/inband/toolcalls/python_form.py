"""Calls written as Python: `[get_weather(city="Paris", days=3), …]`, or one without brackets where a call is expected.

Nothing is run: the text is parsed, and only literals are values. As every value must be known for that, a call goes out
in one piece when its last bracket was read.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence
from typing import Any

from k2think.inband.toolcalls.form import Form
from k2think.inband.toolcalls.tape import NotACall, Reading

MAX_CALL = 64 * 1024
"""Characters of one call."""

NAME = re.compile(r"[^\s()\[\]{}<>\"'`,;=:|]*")
"""What a name may consist of, wherever it stands without quotation marks."""

_MARK = re.compile(r"[\"'()\[\]{}\\]")
_IN_STRING = re.compile(r"[\"'\\]")
_CONSTANTS = {"true": True, "false": False, "null": None}


class PythonForm(Form):
    """Reads calls in Python's syntax."""

    def read_list(self) -> Reading[None]:
        """Behind `[`: read the calls up to `]`. Raises `NotACall`."""
        tape = self._tape
        while True:
            yield from tape.skip_blanks()
            yield from self.read_call()
            character = yield from tape.skip_blanks()
            if character not in {",", "]"}:
                return
            tape.take_next()
            if character == "]":
                return

    def read_call(self) -> Reading[None]:
        """At a name: read one call. Raises `NotACall`."""
        word = yield from self.read_name()
        if (yield from self._tape.peek()) != "(":
            raise NotACall
        yield from self.read_brackets(word)

    def read_name(self) -> Reading[str]:
        """Take a tool's name and give it. Raises `NotACall` as soon as it is none."""
        tape = self._tape
        limit = 0
        while True:
            limit += 1
            word = yield from tape.run(NAME, limit)
            if not word or not self._names.may_become(word):
                raise NotACall
            if len(word) < limit:
                break
            limit = len(word)
        tape.take_next(len(word))
        return self._names.of(word)

    def read_brackets(self, name: str) -> Reading[None]:
        """At `(`: read the arguments of a call of `name`. Raises `NotACall`."""
        source = yield from self._balanced()
        arguments = _arguments(source, self._names.properties(name))
        self.begin(name)
        self.end(arguments)

    def _balanced(self) -> Reading[str]:
        tape = self._tape
        pieces: list[str] = []
        depth = count = 0
        quote = ""
        while True:
            text, mark = yield from tape.until(_IN_STRING if quote else _MARK, 0)
            count += len(text) + 1
            if mark is None or count > MAX_CALL:
                raise NotACall
            character = tape.take_next()
            pieces += (text, character)
            if character == "\\":
                if not (yield from tape.peek()):
                    raise NotACall
                pieces.append(tape.take_next())
            elif quote:
                if character == quote:
                    quote = ""
            elif character in "\"'":
                quote = character
            else:
                depth += 1 if character in "([{" else -1
                if depth <= 0:
                    return "".join(pieces)


def _arguments(source: str, names: Sequence[str]) -> dict[str, Any]:
    """The arguments in `source`, brackets included; those without a name are taken in the order of `names`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a backslash that Python does not know is no matter here
            call = ast.parse(f"_{source}", mode="eval").body
        if not isinstance(call, ast.Call) or len(call.args) > len(names):
            raise NotACall
        found = dict(zip(names, map(_value, call.args), strict=False))
        for keyword in call.keywords:
            if keyword.arg is not None:
                found[keyword.arg] = _value(keyword.value)
            elif isinstance(more := _value(keyword.value), dict):
                found |= more
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise NotACall from None
    return found


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(str() | bool() | int() | float() | None as value):
            return value
        case ast.Name(name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.List(items) | ast.Tuple(items) | ast.Set(items):
            return [_value(item) for item in items]
        case ast.Dict(keys, values):
            return {_key(key): _value(value) for key, value in zip(keys, values, strict=True)}
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as number)) if not isinstance(number, bool):
            return -number
        case ast.UnaryOp(ast.UAdd(), ast.Constant(int() | float() as number)) if not isinstance(number, bool):
            return number
        case _:
            raise NotACall


def _key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
        return str(node.value)
    raise NotACall
