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
from k2think.inband.toolcalls.tape import BLANKS, MAX_BLANKS, NotACall, Reading

MAX_EARLY = 256 * 1024
"""Characters of arguments that stand before their tool's name."""

MAX_SCALAR = 1024
"""Characters of a value that means nothing here, such as an id."""

MAX_KEY = 64
"""Characters of a key."""

MAX_DEPTH = 8
"""Objects within objects until a call."""

_NAME_KEYS = frozenset({"name", "tool_name", "function_name", "tool"})
_ARGUMENT_KEYS = frozenset({"arguments", "parameters", "args", "params", "input", "tool_input"})
_OBJECT_KEYS = frozenset({"function_call", "tool_call", "function"})
_LIST_KEYS = frozenset({"tool_calls", "function_calls"})
_OTHER_KEYS = frozenset({"id", "type", "index", "role", "content", "call_id", "tool_call_id"})
_KEYS = _NAME_KEYS | _ARGUMENT_KEYS | _OBJECT_KEYS | _LIST_KEYS | _OTHER_KEYS
_TYPES = frozenset({"function", "function_call", "tool_call", "tool_use"})
_KEY = {quote: re.compile(rf"[^{quote}\\\n]*") for quote in "\"'"}
_WORD = re.compile(r"[^\s,}\]]*")
_STRING_PART = re.compile(r"[^\"'\\]+|\\.|[\"']", re.DOTALL)
_BLANK_RUN = re.compile(r"\s+")
_SCHEMA_WORDS = ("type", "properties", "title", "required", "additionalProperties", "description", "definitions")
_SCHEMA_BEGINNINGS = ('{"type":"object"', '{"$', *(f'{{"{word}":' for word in _SCHEMA_WORDS[1:]))
_CLOSER_ALONE = re.compile(r"\s*</[A-Za-z|]|\n```")
_REST = re.compile(rf"[{BLANKS}]*(?:,?[{BLANKS}]*\}}|,[{BLANKS}]*[\"'])")
_BRACKET = re.compile(r"[{}\[\]<`]")
_STRING_MARK = re.compile(r"[\"'\\<`]")
_CLOSES = re.compile(r"</[A-Za-z|]|```")


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
        while not cut:
            taken = tape.take(reader.feed(tape.text, tape.place))
            if not (desk.live and reader.is_object):
                kept.append(taken)
            desk.piece(reader.take())
            if reader.done or reader.stuck:
                break
            cut = not (yield from tape.more())
        at_end = tape.ahead(1) in {"<", "`"}  # the wrapper ends, or another call begins: only brackets are missing
        if reader.stuck and not at_end and not (desk.live and reader.is_object):
            kept.append((yield from self._salvage(in_string=reader.in_string)))
            self.end("".join(kept), mended=True)
            return
        if not reader.done and not (cut and desk.cut_off):
            reader.close()
            desk.piece(reader.take())
        if cut and reader.cut and not desk.live:
            # A quotation mark too few, or too many: where the arguments end shows only in what stands behind them.
            whole = "".join(kept)
            end = _CLOSER_ALONE.search(whole)
            if end is not None:
                tape.untake(whole[end.start() :])
                whole = whole[: end.start()]
            self.end(whole, mended=True, cut=end is None)
            return
        self.end(None if reader.is_object else reader.text, mended=reader.mended or reader.stuck, cut=cut)

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
        first = True
        while not draft.made:
            character = yield from tape.skip_blanks()
            if not character or character not in ("\"'" if first else "\"',}"):
                raise NotACall
            first = False
            if character == ",":
                tape.take_next()
            elif character == "}":
                tape.take_next()
                self._make_early(draft, explicit=explicit)
                return
            else:
                key = yield from (self._read_key() if explicit else tape.quoted(_KEYS))
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
            # A tool's declaration says `function` as well.
            inner = explicit or key != "function"
            yield from self._read_object(draft, explicit=inner, depth=depth + 1)
        elif (key in _NAME_KEYS or key == "function") and character in "\"'":
            draft.name = self._names.of((yield from tape.quoted(self._names.spellings)))
            if draft.early is not None:
                self._make_early(draft, explicit=True)
        elif key in _ARGUMENT_KEYS:
            yield from self._read_arguments_value(key, draft, character, explicit=explicit)
        elif key == "type" and character in "\"'":
            yield from tape.quoted(_TYPES)
        elif key in _OTHER_KEYS or explicit:
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
        left = MAX_EARLY
        while not reader.done:
            taken = tape.take_next(reader.feed(tape.ahead(left)))
            left -= len(taken)
            pieces.append(reader.take())
            if reader.stuck or not left:
                raise NotACall
            if not reader.done and not tape.ahead(1) and not (yield from tape.more()):
                raise NotACall
        return "".join(pieces) if reader.is_object else reader.text

    def _refuse_schema(self, name: str) -> Reading[None]:
        """A tool's declaration, quoted, has `parameters` too: those are a schema. Takes nothing."""
        tape = self._tape
        if not set(_SCHEMA_WORDS).isdisjoint(self._names.properties(name)):
            return
        while True:
            beginning = _BLANK_RUN.sub("", tape.ahead(256))
            if beginning.startswith(_SCHEMA_BEGINNINGS):
                raise NotACall
            if not any(one.startswith(beginning) for one in _SCHEMA_BEGINNINGS) or not (yield from tape.more()):
                return

    def _read_key(self) -> Reading[str]:
        """Any key, where only a call can be; one that means nothing comes out empty."""
        tape = self._tape
        quote = tape.take_next()
        key = yield from tape.run(_KEY[quote], MAX_KEY)
        tape.take_next(len(key))
        if (yield from tape.peek()) != quote:
            raise NotACall
        tape.take_next()
        return key if key in _KEYS else ""

    def _skip_scalar(self, character: str) -> Reading[None]:
        tape = self._tape
        if character in "{[":
            raise NotACall
        if character not in "\"'":
            word = yield from tape.run(_WORD, MAX_SCALAR)
            tape.take_next(len(word))
            return
        tape.take_next()
        left = MAX_SCALAR
        while left > 0:
            if not (yield from tape.peek()):
                raise NotACall
            part = _STRING_PART.match(tape.text, tape.place, tape.place + left)
            if part is None:  # a backslash at the end
                if left == 1 or not (yield from tape.more()):
                    raise NotACall
                continue
            left -= len(tape.take(part.end()))
            if part[0] == character:
                return
        raise NotACall

    def _finish_object(self) -> Reading[None]:
        """The call is made: pass over what else its object holds, if that is as it should be."""
        tape = self._tape
        while _REST.match(tape.text, tape.place) is None:
            waiting = tape.ahead(MAX_BLANKS)
            if waiting.strip(BLANKS + ",") or len(waiting) == MAX_BLANKS or not (yield from tape.more()):
                return
        skipped = LenientJson()
        skipped.feed('{"":0')
        while True:
            tape.take(skipped.feed(tape.text, tape.place))
            skipped.take()
            if skipped.done or skipped.stuck or not (yield from tape.more()):
                return

    def _salvage(self, *, in_string: bool) -> Reading[str]:
        """Take the rest of arguments that are not JSON: up to a closing tag, a fence, or the mark that ends them."""
        tape = self._tape
        pieces: list[str] = []
        depth = 1
        while True:
            text, found = yield from tape.until(_STRING_MARK if in_string else _BRACKET, 0)
            pieces.append(text)
            if found is None:
                return "".join(pieces)
            if found[0] in "<`":
                while len(tape.ahead(3)) < 3 and (yield from tape.more()):
                    pass
                if _CLOSES.match(tape.ahead(3)):
                    return "".join(pieces)
            pieces.append(tape.take_next())
            if found[0] == "\\" and (yield from tape.peek()):
                pieces.append(tape.take_next())
            elif found[0] in "{[":
                depth += 1
            elif found[0] in "}]\"'":
                depth -= 1
                if not depth:
                    return "".join(pieces)
