"""Calls written with tags: one pair of tags for each argument, or a tool's name and JSON behind it.

    <function=NAME><parameter=KEY>VALUE</parameter></function>                        Qwen3-Coder
    <invoke name="NAME"><parameter name="KEY">VALUE</parameter></invoke>              Anthropic, MiniMax, DeepSeek
    <tool>NAME</tool><args><KEY>VALUE</KEY></args>                                    or JSON in `args`
    NAME <arg_key>KEY</arg_key> <arg_value>VALUE</arg_value>                          GLM; IFM with types
    NAME {…}    NAME(…)    assistant to=functions.NAME json {…}                       between the wrapper's tags

The tool is known from the beginning; its arguments go out in one piece, when all of them are read.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

from k2think.inband.checking import Parameter
from k2think.inband.toolcalls.desk import CallDesk, Written
from k2think.inband.toolcalls.form import Form
from k2think.inband.toolcalls.json_form import JsonForm
from k2think.inband.toolcalls.names import Names
from k2think.inband.toolcalls.python_form import PythonForm
from k2think.inband.toolcalls.tags import CLOSER, MAX_TAG, PREFIX, Tag, read_tag
from k2think.inband.toolcalls.tape import NotACall, Reading, Tape

MAX_ADDRESS = 128
"""Characters of `assistant to=functions.NAME json`."""

_ADDRESS = re.compile(
    r"(?:assistant\s+)?(?:commentary\s+)?to=(?:functions\.)?(?P<name>[^\s{<\"']+)[^\n{\"']*\s*(?=[{\"'])"
)
_ADDRESSES = ("assistant to=", "assistant commentary to=", "commentary to=", "to=")
# What ends an argument: its own closing tag, or, where that was forgotten, what comes behind it.
_PARAMETER_END = re.compile(
    rf"(?P<own></{PREFIX}parameter\s*>)|</{PREFIX}(?:function|invoke|tool_call)s?\s*>|<{PREFIX}parameter[\s=]"
)
_KEY_END = re.compile(rf"(?P<own></{PREFIX}arg_(?:key|type)\s*>)|<{PREFIX}arg_|</{PREFIX}tool_calls?\s*>")
_VALUE_END = re.compile(rf"(?P<own></{PREFIX}arg_value\s*>)|</{PREFIX}tool_calls?\s*>|<{PREFIX}arg_key\s*>")
_NAME_END = re.compile(r"(?P<own></[\w|｜:]*\s*>)|<(?![/\w]|\Z)|\n")
_CUT_TAG = re.compile(r"</?[\w|:｜]*\Z")
_CDATA = re.compile(r"\s*<!\[CDATA\[(.*?)(?:\]\]>\s*|\Z)", re.DOTALL)
_ARGUMENT_TAGS = frozenset({"args", "args_json", "arguments", "parameters"})


class TagForm(Form):
    """Reads calls that are written with tags."""

    def __init__(self, tape: Tape, desk: CallDesk, names: Names, json: JsonForm, python: PythonForm) -> None:
        super().__init__(tape, desk, names)
        self._json = json
        self._python = python

    def read_tagged(self, tag: Tag, *, explicit: bool) -> Reading[None]:
        """Behind a tag that begins a call: read it. Raises `NotACall`."""
        if tag.kind in {"function", "invoke"}:
            name = self._names.of(tag.name)
            yield from self._read_parameters(name, explicit=explicit)
        else:
            yield from self._tape.skip_blanks()
            name = yield from self._python.read_name()
            yield from self._tape.skip_blanks()
            yield from self._value(_NAME_END)
            yield from self._read_args(name)

    def read_named(self) -> Reading[None]:
        """Where neither a bracket nor a tag stands between a wrapper's tags: read the call. Raises `NotACall`."""
        tape = self._tape
        while (addressed := _addressed(tape.ahead(MAX_ADDRESS))) is None:
            if not (yield from tape.more()):
                break
        if addressed:
            yield from self._read_addressed()
            return
        name = yield from self._python.read_name()
        character = yield from tape.skip_blanks()
        if character == "(":
            yield from self._python.read_brackets(name)
        elif character and character in "{\"'":
            yield from self._json.read_arguments(name)
        elif character in {"<", ""}:
            yield from self._read_pairs(name)
        else:
            raise NotACall

    def _read_addressed(self) -> Reading[None]:
        tape = self._tape
        while (found := _ADDRESS.match(tape.text, tape.place, tape.place + MAX_ADDRESS)) is None:
            if len(tape.text) - tape.place >= MAX_ADDRESS or not (yield from tape.more()):
                raise NotACall
        name = self._names.of(found["name"])
        tape.take(found.end())
        yield from self._json.read_arguments(name)

    def _read_parameters(self, name: str, *, explicit: bool) -> Reading[None]:
        """`<parameter=KEY>` and `<parameter name="KEY">`, or an object. Raises `NotACall` if none of it follows."""
        character = yield from self._tape.skip_blanks()
        if character == "{":
            yield from self._json.read_arguments(name)
            return
        tag = (yield from self._next_tag({"parameter"})) if character == "<" else None
        if tag is None and not (explicit if not character else (yield from self._at_closer())):
            raise NotACall
        self.begin(name)
        parameters: list[Parameter] = []
        while tag is not None:
            text = _unwrapped((yield from self._value(_PARAMETER_END)))
            parameters.append(Parameter(tag.name, text, "text" if tag.is_string else "plain"))
            tag = yield from self._next_tag({"parameter"})
        yield from self._end(parameters)

    def _read_pairs(self, name: str) -> Reading[None]:
        """`<arg_key>` and `<arg_value>`, perhaps with `<arg_type>` between them. A name may be a call all by itself."""
        tag = yield from self._next_tag({"arg_key", "arg_type", "arg_value"})
        if tag is None and not (self._names.may_stand_alone(name) and (yield from self._at_closer())):
            raise NotACall
        self.begin(name)
        parameters: list[Parameter] = []
        key = kind = ""
        while tag is not None:
            value = yield from self._value(_VALUE_END if tag.kind == "arg_value" else _KEY_END)
            if tag.kind == "arg_key":
                key, kind = value.strip(), ""
            elif tag.kind == "arg_type":
                kind = value.strip()
            else:
                parameters.append(Parameter(key, value, "text" if kind == "string" else "plain"))
            tag = yield from self._next_tag({"arg_key", "arg_type", "arg_value"})
        yield from self._end(parameters)

    def _read_args(self, name: str) -> Reading[None]:
        """`<args>` with a tag for each argument, or with JSON."""
        tag = yield from self._next_tag(_ARGUMENT_TAGS)
        if tag is None:
            if not (yield from self._at_closer()):
                raise NotACall
            self.begin(name)
            yield from self._end("")
            return
        self.begin(name)
        if (yield from self._tape.skip_blanks(None)) != "<" or (yield from self._at_cdata()):
            text = yield from self._value(re.compile(rf"(?P<own></{tag.kind}\s*>)"))
            yield from self._end(_unwrapped(text))
            return
        parameters: list[Parameter] = []
        while (argument := (yield from self._next_tag(None))) is not None:
            end = re.compile(rf"(?P<own></{re.escape(argument.kind)}\s*>)|</{tag.kind}\s*>")
            text = yield from self._value(end)
            parameters.append(Parameter(argument.kind, _unwrapped(text), "json"))
        yield from self._end(parameters)

    def _end(self, written: Written) -> Reading[None]:
        self.end(written, cut=not (yield from self._tape.peek()))

    def _at_cdata(self) -> Reading[bool]:
        tape = self._tape
        opener = "<![CDATA["
        while opener != tape.ahead(len(opener)) and opener.startswith(tape.ahead(len(opener))):
            if not (yield from tape.more()):
                break
        return tape.ahead(len(opener)) == opener

    def _next_tag(self, kinds: AbstractSet[str] | None) -> Reading[Tag | None]:
        """Take blanks and the next opening tag, if it is one of `kinds` (None: any)."""
        if (yield from self._tape.skip_blanks(None)) != "<":
            return None
        return (yield from read_tag(self._tape, kinds))

    def _at_closer(self) -> Reading[bool]:
        """Whether a wrapper ends here, or the text does."""
        tape = self._tape
        if not (yield from tape.peek()):
            return True
        while CLOSER.match(tape.text, tape.place, tape.place + MAX_TAG) is None:
            waiting = tape.ahead(MAX_TAG)
            if len(waiting) == MAX_TAG or not _CUT_TAG.match(waiting):
                return False
            if not (yield from tape.more()):
                return True
        return True

    def _value(self, end: re.Pattern[str]) -> Reading[str]:
        """Take an argument's text and its own closing tag behind it."""
        tape = self._tape
        pieces: list[str] = []
        while True:
            text, found = yield from tape.until(end, MAX_TAG)
            pieces.append(text)
            if found is None:
                return _CUT_TAG.sub("", "".join(pieces))
            if found["own"]:
                tape.take_next(len(found[0]))
                return "".join(pieces)
            if not found[0].startswith("</") or (yield from self._ends_call(len(found[0]))):
                return "".join(pieces)
            pieces.append(tape.take_next(len(found[0])))

    def _ends_call(self, length: int) -> Reading[bool]:
        """Whether a closing tag that is not the argument's own ends it: within a text, it is only spoken of."""
        tape = self._tape
        while not (behind := tape.ahead(length + MAX_TAG)[length:]).strip(" \t\r"):
            if len(behind) >= MAX_TAG or not (yield from tape.more()):
                return True
        return behind.lstrip(" \t\r")[0] in "\n<"


def _addressed(text: str) -> bool | None:
    """Whether `assistant to=` or the like begins here; None: it may."""
    words = " ".join(text.split()) + (" " if text[-1:].isspace() else "")
    if any(words.startswith(address) for address in _ADDRESSES):
        return True
    return None if any(address.startswith(words) for address in _ADDRESSES) else False


def _unwrapped(text: str) -> str:
    cdata = _CDATA.fullmatch(text)
    return cdata[1] if cdata else text
