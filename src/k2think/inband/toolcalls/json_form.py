"""Calls written as JSON: an object that names a tool and its arguments, in any of the shapes that models know.

    {"name": …, "arguments": {…}}                    also `parameters`, `input`, …; also the arguments first
    {"tool_calls": [{"function": {…}}, …]}           OpenAI's, whole or in parts
    {"function_call": {…}}                           its older one
    [{…}, …]                                         a list of any of them

A key that none of these has tells at once that the object is no call. Once the name and the beginning of the arguments
are read it is one for sure, and what is odd from then on is passed over.
"""

from __future__ import annotations

import re

from msgspec import Struct

from k2think.inband.toolcalls.arguments import ArgumentsReader
from k2think.inband.toolcalls.form import Form
from k2think.inband.toolcalls.lenient import LenientJson
from k2think.inband.toolcalls.tape import NotACall, Reading

MAX_EARLY = 256 * 1024
"""Characters of arguments that stand before their tool's name."""

MAX_SCALAR = 1024
"""Characters of a value that means nothing here, such as an id."""

MAX_DEPTH = 8
"""Objects within objects until a call."""

_NAME_KEYS = frozenset({"name", "tool_name", "function_name", "tool"})
_ARGUMENT_KEYS = frozenset({"arguments", "parameters", "args", "params", "input", "tool_input"})
_OBJECT_KEYS = frozenset({"function_call", "tool_call", "function"})
_LIST_KEYS = frozenset({"tool_calls", "function_calls"})
_OTHER_KEYS = frozenset({"id", "type", "index", "role", "content", "call_id", "tool_call_id"})
_KEYS = _NAME_KEYS | _ARGUMENT_KEYS | _OBJECT_KEYS | _LIST_KEYS | _OTHER_KEYS
_TYPES = frozenset({"function", "function_call", "tool_call", "tool_use"})
_WORD = re.compile(r"[^\s,}\]]*")
_STRING_PART = re.compile(r"[^\"'\\]+|\\.|[\"']", re.DOTALL)
_BLANK_RUN = re.compile(r"\s+")
_SCHEMA_BEGINNINGS = ('{"type":"object"', '{"properties"', '{"$schema"', '{"$defs"')
_CLOSER_ALONE = re.compile(r"\s*</[A-Za-z|]|\n```")
_SALVAGE_END = re.compile(r"[{}\[\]]|</[A-Za-z|]|```")


class _Draft(Struct):
    """What is known of one call."""

    name: str = ""
    early: str | None = None
    made: bool = False


class JsonForm(Form):
    """Reads calls in JSON. `explicit` says that they stand where only calls can be."""

    def read(self, *, explicit: bool, depth: int = 0) -> Reading[None]:
        """At `{` or `[`: read all its calls. Raises `NotACall`."""
        if depth > MAX_DEPTH:
            raise NotACall
        if self._tape.text[self._tape.place] == "{":
            yield from self._read_object(_Draft(), explicit=explicit, depth=depth)
        else:
            yield from self._read_list(explicit=explicit, depth=depth)

    def read_arguments(self, name: str) -> Reading[None]:
        """Where the arguments of a call of `name` begin: read them. What cannot be understood is kept for mending."""
        tape, desk = self._tape, self._desk
        self.begin(name)
        reader = ArgumentsReader()
        kept: list[str] = []  # as they are written, for mending
        cut = False
        while True:
            taken = tape.take(reader.feed(tape.text, tape.place))
            if not (desk.live and reader.is_object):
                kept.append(taken)
            desk.piece(reader.take())
            if reader.done or reader.stuck:
                break
            if not (yield from tape.more()):
                cut = True
                if not desk.cut_off:
                    reader.close()
                    desk.piece(reader.take())
                break
        if cut and reader.cut and not desk.live:
            # A quotation mark too few, or too many: what the text is cannot be told from its beginning alone.
            self.end(_CLOSER_ALONE.split("".join(kept), maxsplit=1)[0], mended=True, cut=True)
            return
        if not reader.stuck:
            self.end(None if reader.is_object else reader.text, mended=reader.mended, cut=cut)
            return
        kept.append((yield from self._salvage()))
        if desk.live and reader.is_object:  # what has left cannot be mended any more
            reader.close()
            desk.piece(reader.take())
            self.end(None, mended=True)
        else:
            self.end("".join(kept), mended=True)

    def _read_list(self, *, explicit: bool, depth: int) -> Reading[None]:
        tape = self._tape
        tape.take_next()
        before = self._desk.begun
        while True:
            character = yield from tape.skip_blanks()
            if character == "{" or (character == "[" and depth < MAX_DEPTH):
                yield from self.read(explicit=explicit, depth=depth + 1)
            elif character and character in ",]":
                tape.take_next()
                if character == "]":
                    break
            else:
                break
        if self._desk.begun == before:
            raise NotACall

    def _read_object(self, draft: _Draft, *, explicit: bool, depth: int) -> Reading[None]:
        """At `{`: read the object; `draft` gets what it says. Raises `NotACall` if that is no call."""
        tape = self._tape
        tape.take_next()
        while not draft.made:
            character = yield from tape.skip_blanks()
            if not character or character not in "\"',}":
                raise NotACall
            if character == ",":
                tape.take_next()
            elif character == "}":
                tape.take_next()
                self._make_early(draft, explicit=explicit)
                return
            else:
                key = yield from tape.quoted(_KEYS)
                if (yield from tape.skip_blanks()) != ":":
                    raise NotACall
                tape.take_next()
                yield from self._read_value(key, draft, explicit=explicit, depth=depth)
        yield from self._finish_object()

    def _read_value(self, key: str, draft: _Draft, *, explicit: bool, depth: int) -> Reading[None]:
        tape = self._tape
        character = yield from tape.skip_blanks()
        if depth >= MAX_DEPTH or not character:
            raise NotACall
        if key in _LIST_KEYS and character in "[{":
            yield from self.read(explicit=True, depth=depth + 1)
            draft.made = True
        elif key in _OBJECT_KEYS and character == "{":
            yield from self._read_object(draft, explicit=True, depth=depth + 1)
        elif (key in _NAME_KEYS or key == "function") and character in "\"'":
            draft.name = self._names.of((yield from tape.quoted(self._names.spellings)))
            if draft.early is not None:
                self._make_early(draft, explicit=True)
        elif key in _ARGUMENT_KEYS:
            yield from self._read_arguments_value(key, draft, character, explicit=explicit)
        elif key == "type" and character in "\"'":
            yield from tape.quoted(_TYPES)
        elif key in _OTHER_KEYS:
            yield from self._skip_scalar(character)
        else:
            raise NotACall

    def _read_arguments_value(self, key: str, draft: _Draft, character: str, *, explicit: bool) -> Reading[None]:
        if not draft.name:
            draft.early = yield from self._read_early()
            return
        if character == "{" and key == "parameters":
            yield from self._refuse_schema(draft.name)
        elif not explicit and character not in "{\"'nN":
            raise NotACall
        yield from self.read_arguments(draft.name)
        draft.made = True

    def _make_early(self, draft: _Draft, *, explicit: bool) -> None:
        """The object ends, or its name came last: make the call if enough is known of it."""
        if not draft.name or (draft.early is None and not explicit):
            raise NotACall
        self.begin(draft.name)
        self.end(draft.early or "")
        draft.made = True

    def _read_early(self) -> Reading[str]:
        tape = self._tape
        reader = ArgumentsReader()
        pieces: list[str] = []
        count = 0
        while not reader.done:
            taken = tape.take(reader.feed(tape.text, tape.place))
            count += len(taken)
            pieces.append(reader.take())
            if reader.stuck or count > MAX_EARLY:
                raise NotACall
            if not reader.done and not (yield from tape.more()):
                raise NotACall
        return "".join(pieces) if reader.is_object else reader.text

    def _refuse_schema(self, name: str) -> Reading[None]:
        """A tool's declaration, quoted, has `parameters` too: those are a schema. Takes nothing."""
        tape = self._tape
        if {"type", "properties"} & set(self._names.properties(name)):
            return
        while True:
            beginning = _BLANK_RUN.sub("", tape.text[tape.place : tape.place + 256])
            if beginning.startswith(_SCHEMA_BEGINNINGS):
                raise NotACall
            if not any(one.startswith(beginning) for one in _SCHEMA_BEGINNINGS) or not (yield from tape.more()):
                return

    def _skip_scalar(self, character: str) -> Reading[None]:
        tape = self._tape
        if character in "{[":
            raise NotACall
        if character not in "\"'":
            word = yield from tape.run(_WORD, MAX_SCALAR)
            tape.take_next(len(word))
            return
        tape.take_next()
        count = 0
        while count <= MAX_SCALAR:
            if not (yield from tape.peek()):
                raise NotACall
            part = _STRING_PART.match(tape.text, tape.place)
            if part is None:  # a backslash at the end
                if not (yield from tape.more()):
                    raise NotACall
                continue
            count += len(tape.take(part.end()))
            if part[0] == character:
                return
        raise NotACall

    def _finish_object(self) -> Reading[None]:
        """The call is made: pass over what else its object holds."""
        tape = self._tape
        rest = LenientJson()
        rest.feed('{"":0')
        while True:
            tape.take(rest.feed(tape.text, tape.place))
            rest.take()
            if rest.done or rest.stuck or not (yield from tape.more()):
                return

    def _salvage(self) -> Reading[str]:
        """Take the rest of arguments that are not JSON: up to a closing tag, a fence, or the bracket that ends them."""
        tape = self._tape
        pieces: list[str] = []
        depth = 1
        while True:
            text, found = yield from tape.until(_SALVAGE_END, 3)
            pieces.append(text)
            if found is None or len(found[0]) > 1:
                return "".join(pieces)
            pieces.append(tape.take_next())
            depth += 1 if found[0] in "{[" else -1
            if not depth:
                return "".join(pieces)
