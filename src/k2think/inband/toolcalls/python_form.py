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

MAX_NAME = 128
"""Characters of an argument's name."""

NAME = re.compile(r"[^\s()\[\]{}<>\"'`,;=:|]*")
"""What a name may consist of, wherever it stands without quotation marks."""

_MARK = re.compile(r"[\"'()\[\]{}]")
_IN_STRING = re.compile(r"[\"'\\\n]")
_IDENTIFIER = re.compile(r"[^\W\d]?\w*")
_BEFORE_STRING = frozenset("([{,=:+") | {""}
_CONSTANTS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}


class PythonForm(Form):
    """Reads calls in Python's syntax."""

    def read_list(self) -> Reading[None]:
        """Behind `[`: read the calls up to `]`. Raises `NotACall`."""
        tape = self._tape
        while True:
            yield from tape.skip_blanks()
            name, arguments = yield from self._read_call()
            character = yield from tape.skip_blanks()
            if character == "]":
                tape.take_next()
                if (yield from tape.peek()) == "(":  # a link of Markdown
                    raise NotACall
            elif character not in {",", ""}:
                raise NotACall
            self.begin(name)
            self.end(arguments)
            if character != ",":
                return
            tape.take_next()

    def read_call(self) -> Reading[None]:
        """At a name: read one call. Raises `NotACall`."""
        name, arguments = yield from self._read_call()
        self.begin(name)
        self.end(arguments)

    def _read_call(self) -> Reading[tuple[str, dict[str, Any]]]:
        name = yield from self.read_name()
        if (yield from self._tape.skip_blanks()) != "(":
            raise NotACall
        return name, (yield from self._read_arguments(name))

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
        arguments = yield from self._read_arguments(name)
        self.begin(name)
        self.end(arguments)

    def _read_arguments(self, name: str) -> Reading[dict[str, Any]]:
        return _arguments((yield from self._balanced()), self._names.properties(name))

    def _balanced(self) -> Reading[str]:
        """At `(`: take all up to its `)`. Raises `NotACall` as soon as it is no list of arguments."""
        tape = self._tape
        pieces = [tape.take_next()]
        if (yield from tape.skip_blanks()) in {"<", "(", "]", "}", "`", ",", ":"}:
            raise NotACall
        word = yield from tape.run(_IDENTIFIER, MAX_NAME)
        if word:
            pieces.append(tape.take_next(len(word)))
            if (yield from tape.skip_blanks()) != "=" and word not in _CONSTANTS:
                raise NotACall
        depth = 1
        count = 0
        while depth:
            text, mark = yield from tape.until(_MARK, 0, MAX_CALL - count)
            if mark is None:
                raise NotACall
            before = text.rstrip() or "".join(pieces[-1:])
            pieces.append(text)
            count += len(text) + 1
            if mark[0] in "\"'":
                if before[-1:] not in _BEFORE_STRING:  # an apostrophe
                    raise NotACall
                pieces.append((yield from self._string(MAX_CALL - count)))
                count += len(pieces[-1])
            else:
                pieces.append(tape.take_next())
                depth += 1 if mark[0] in "([{" else -1
        return "".join(pieces)

    def _string(self, limit: int) -> Reading[str]:
        """At a quotation mark: take the string. A line end in it, which Python would not allow, is written for it."""
        tape = self._tape
        quote = tape.text[tape.place]
        while len(tape.ahead(3)) < 3 and (yield from tape.more()):
            pass
        if tape.ahead(3) == quote * 3:
            quote *= 3
        pieces = [tape.take_next(len(quote))]
        count = 0
        while True:
            text, mark = yield from tape.until(_IN_STRING, 0, limit - count)
            if mark is None:
                raise NotACall
            pieces.append(text)
            count += len(text) + 2
            if mark[0] == "\n":
                tape.take_next()
                pieces.append("\\n")
            elif mark[0] == "\\":
                pieces.append(tape.take_next())
                if not (yield from tape.peek()):
                    raise NotACall
                pieces.append(tape.take_next())
            else:
                while len(tape.ahead(len(quote))) < len(quote) and (yield from tape.more()):
                    pass
                if tape.ahead(len(quote)) == quote:
                    pieces.append(tape.take_next(len(quote)))
                    return "".join(pieces)
                # A mark of the other kind, or one or two of three.
                pieces.append(("" if mark[0] != quote[0] else "\\") + tape.take_next())


def _arguments(source: str, names: Sequence[str]) -> dict[str, Any]:
    """The arguments in `source`, brackets included; those without a name are taken in the order of `names`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a backslash that Python does not know is no matter here
            call = ast.parse(f"_{source}", mode="eval").body
        if not isinstance(call, ast.Call) or len(call.args) > len(names):
            raise NotACall
        if len(call.args) == 1 and not call.keywords:
            only = _value(call.args[0])
            return only if isinstance(only, dict) and names and set(only) <= set(names) else {names[0]: only}
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
