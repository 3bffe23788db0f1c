"""Asks a model that knows no response formats for JSON, and takes the JSON out of its answer.

Models put fences and sentences around JSON, forget a bracket, write `"3"` where a number is due. All of that is
undone here, and what comes out fits the schema; where it cannot be made to fit, the reader says what is wrong, in words
that the model can be asked again with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from io import StringIO
from itertools import chain
from typing import Any

import msgspec
from msgspec import Struct

from k2think.dialogue.events import Event, Finish, TextDelta, ToolCallStart
from k2think.dialogue.prompt import Message, OutputFormat
from k2think.errors import InvalidRequest
from k2think.inband.coercion import coerced
from k2think.inband.history import without_tags
from k2think.inband.literals import NotJson, read_json
from k2think.inband.repair import Effort, by_guessing, by_rules
from k2think.inband.schemas import InvalidSchema, Schema
from k2think.inband.toolprompt import instructed

MAX_TEXT = 16 * 1024 * 1024
"""Characters of an answer. A longer one is none that anybody asked for."""

MAX_PLACES = 200
"""Fences, and brackets in prose, that are looked into."""

MAX_REPAIRS = 4
"""Broken pieces of JSON that are tried to be mended."""

MAX_DEPTH = 1_000
"""Brackets within brackets that are followed in prose."""

_OBJECT_WANTED = "Give your final answer as one JSON object, with no code fence and no words around it."
_BLANKS = " \t\r\n"
_FENCE = re.compile(r"^[ \t]*+(`{3,}+|~{3,}+)([^\n]*+)(?:\n|\Z)", re.MULTILINE)
# A bracket of prose ("[see below]") does not begin JSON.
_OPENER = re.compile(r"\{|\[(?=\s*+(?:[{\[\"'\]\-0-9]|(?:true|false|null|True|False|None)\b))")
_CUT_OPENER = re.compile(r"\{\s*+(?:[\"'}]|\Z)|\[\s*+(?:[{\[\"\]\-0-9]|(?:true|false|null)\b|\Z)")
_MARK = re.compile(r"[{}\[\]\"]")
_STRING_END = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def write_format(
    messages: tuple[Message, ...], output: OutputFormat, *, with_tools: bool = False
) -> tuple[Message, ...]:
    """Add to the conversation's system message what form the answer must have.

    `with_tools`: it may also be a call, as instructions above these say. Raises `InvalidRequest` for a schema that is
    nested too deeply to be written.
    """
    besides = " This does not apply to calls." if with_tools else ""
    if output.schema is None:
        return instructed(messages, _OBJECT_WANTED + besides)
    try:
        schema = without_tags(msgspec.json.encode(output.schema).decode())
    except RecursionError:
        raise InvalidRequest("The schema is nested too deeply.", param="response_format") from None
    wanted = f" It is `{output.name}`." if output.name else ""
    if output.description:
        wanted += f" {output.description}"
    return instructed(
        messages,
        f"Give your final answer as JSON only, with no code fence and no words around it.{besides}{wanted}\n"
        f"It must be valid against this JSON Schema:\n{schema}",
    )


class StructuredReader:
    """A Machine that holds the text of an answer and gives the JSON in it at its close, and then `Finish`.

    Other events pass. An answer with calls is none in JSON: none of its text passes, as clients read all they get as
    JSON. An answer that was cut ("length", "content_filter") passes, but for what stands before its JSON: the client
    knows by its finish reason.

    If there is no JSON that fits, `close` gives nothing: `problem` says why, for the model to read, and `text` is what
    it wrote. `repaired`: what was given are not the model's own characters. `cut`: it is a cut answer's text, which
    nobody held against the schema. Raises `InvalidRequest` when made for a schema that is none.
    """

    def __init__(self, output: OutputFormat) -> None:
        self.problem = ""
        self.repaired = False
        self.cut = False
        self._definition: dict[str, Any] = {"type": "object"} if output.schema is None else output.schema
        try:
            self._schema = Schema(self._definition)
        except InvalidSchema as error:
            raise InvalidRequest(f"Invalid schema in 'response_format': {error}", param="response_format") from None
        self._held = StringIO()
        self._length = 0
        self._called = False
        self._finish: Finish | None = None

    @property
    def text(self) -> str:
        """The answer's text so far, as the model wrote it; the first `MAX_TEXT` characters."""
        return self._held.getvalue()

    def feed(self, event: Event) -> Sequence[Event]:
        """Take one event."""
        if type(event) is TextDelta:
            if self._called:
                return ()
            self._held.write(event.text[: MAX_TEXT - self._length])
            self._length += len(event.text)
            if self._length > MAX_TEXT:
                self._length = MAX_TEXT
                self.problem = f"The answer is longer than {MAX_TEXT} characters."
            return ()
        if type(event) is Finish:
            self._finish = event
            return ()
        if type(event) is ToolCallStart:
            self._called = True
        return (event,)

    def close(self) -> Sequence[Event]:
        """The answer is complete."""
        events: list[Event] = []
        if self._called:
            self.problem = ""
        elif not self.problem:
            if self._finish is not None and self._finish.reason in {"length", "content_filter"}:
                self.cut = True
                text = _bared(self.text)
            else:
                text = self._found(self.text)
            if text:
                events.append(TextDelta(text))
        if self.problem:
            return ()
        if self._finish is not None:
            events.append(self._finish)
        return events

    def _found(self, text: str) -> str:
        """The JSON in the text; sets `problem` if there is none."""
        text = text.strip(_BLANKS)
        if not text:
            self.problem = "The answer is empty."
            return ""
        pieces = _Pieces()
        problems: list[str] = []
        for piece in pieces.all_of(text):
            if not (problem := self._schema.problem(piece.value)):
                return piece.text
            problems.append(problem)
        effort = Effort()
        for value in chain((piece.value for piece in pieces.whole), _mended(pieces.broken, effort)):
            fitting = value
            if problem := self._schema.problem(value):
                fitting = coerced(value, self._definition, self._definition, effort)
                if self._schema.problem(fitting):
                    problems.append(problem)
                    continue
            self.repaired = True
            return _encoded(fitting)
        self.problem = problems[0] if problems else pieces.complaint
        return ""


class _Piece(Struct, frozen=True):
    """JSON as the model wrote it, and what it says."""

    text: str
    value: Any


class _Broken(Struct, frozen=True):
    """Text that begins as JSON: up to where its brackets close, and up to the end of what it stands in."""

    text: str
    rest: str


class _Pieces:
    """Where JSON may stand in an answer. `all_of` fills `whole` and `broken`; `complaint` says why nothing is whole."""

    def __init__(self) -> None:
        self.whole: list[_Piece] = []
        self.broken: list[_Broken] = []
        self.complaint = "There is no JSON in the answer."

    def all_of(self, text: str) -> Iterator[_Piece]:
        """Give what is JSON: the text, else the contents of its fences and then what stands in brackets.

        The last ones first: models show an example and come to their answer.
        """
        if piece := self._read(text):
            yield piece
            if isinstance(piece.value, dict | list):
                return  # within it there are only parts of the answer
        for content in reversed([*_fenced(text)]):
            if piece := self._read(content.strip(_BLANKS)):
                yield piece
            elif (opener := _OPENER.search(content)) and len(self.broken) < MAX_REPAIRS:
                rest = content[opener.start() :]
                self.broken.append(_Broken(rest[: _end_of(rest, 0) or len(rest)], rest))
        places: list[tuple[int, int]] = []
        for start, end in reversed([*_bracketed(text)]):
            if piece := self._read(text[start:end]):
                yield piece
            else:
                places.append((start, end))
        places.sort(key=lambda place: place[0] - place[1])  # the answer is longer than what only looks like it
        for start, end in places[:MAX_REPAIRS]:
            self.broken.append(_Broken(text[start:end], text[start:]))

    def _read(self, text: str) -> _Piece | None:
        try:
            value = read_json(text)
        except NotJson as error:
            if text.startswith(("{", "[")):
                self.complaint = _complaint(error)
            return None
        piece = _Piece(text, value)
        self.whole.append(piece)
        return piece


def _fenced(text: str) -> Iterator[str]:
    """The contents of the code fences; the last one may lack its end."""
    if "```" not in text and "~~~" not in text:
        return
    opening: re.Match[str] | None = None
    found = 0
    for fence in _FENCE.finditer(text):
        if opening is None:
            opening = fence
        elif fence[1].startswith(opening[1]) and not fence[2].strip():
            yield text[opening.end() : fence.start()]
            opening = None
            found += 1
            if found == MAX_PLACES:
                return
    if opening is not None:
        yield text[opening.end() :]


def _bracketed(text: str) -> Iterator[tuple[int, int]]:
    """From each outermost bracket to its end; to the end of the text if it has none."""
    place = 0
    for _ in range(MAX_PLACES):
        if not (opener := _OPENER.search(text, place)):
            return
        start = opener.start()
        place = _end_of(text, start)
        yield (start, place or len(text))
        if not place:
            return


def _end_of(text: str, start: int) -> int:
    """The place behind the bracket that closes the one at `start`; 0 if there is none."""
    stack: list[str] = []
    open_now = {"{": 0, "[": 0}
    place = start
    while mark := _MARK.search(text, place):
        place = mark.end()
        character = mark[0]
        if character == '"':
            if not (string := _STRING_END.match(text, place)):
                return 0
            place = string.end()
        elif character in open_now:
            stack.append(character)
            open_now[character] += 1
            if len(stack) > MAX_DEPTH:
                return 0
        elif open_now[opener := "{" if character == "}" else "["]:
            last = ""
            while last != opener:  # inner brackets may have been forgotten
                last = stack.pop()
                open_now[last] -= 1
            if not stack:
                return place
    return 0


def _mended(broken: Sequence[_Broken], effort: Effort) -> Iterator[dict[str, Any] | list[Any]]:
    """What broken JSON was meant to say: by the rules for common mistakes, then by guessing."""
    for piece in dict.fromkeys(broken[:MAX_REPAIRS]):
        for text, read in ((piece.rest, by_rules), (piece.text, by_guessing)):
            try:
                value = read(text, effort)
            except NotJson:
                continue
            yield value


def _bared(text: str) -> str:
    """A cut answer without the sentences and the fence before its JSON; as it is if there is no JSON."""
    if _CUT_OPENER.match(text.lstrip(_BLANKS)):
        return text
    for content in _fenced(text):
        if _CUT_OPENER.match(stripped := content.strip(_BLANKS)):
            return stripped
    opener = _CUT_OPENER.search(text)
    return text[opener.start() :] if opener else text


def _complaint(error: NotJson) -> str:
    cause = error.__cause__
    if isinstance(cause, RecursionError):
        return "The JSON is nested too deeply."
    if isinstance(cause, json.JSONDecodeError):
        return f"The JSON is not valid: {cause.msg} at line {cause.lineno}, column {cause.colno}."
    return f"The JSON is not valid: {cause or error.reason}."


def _encoded(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character can stand in JSON, but only as an escape
        return json.dumps(value)
    return text
