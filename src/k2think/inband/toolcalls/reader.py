"""Finds the calls of tools in an answer's text, whichever of the known forms they are written in.

The text is searched for what may open a call: a tag, a brace, a bracket, a fence, the words of two more forms. From
there a form's reader takes over. It takes text off the tape as long as it may be a call; as soon as it cannot be one
any more, what was taken is text again and the search goes on behind it. So each character is looked at a bounded
number of times, and held back only while it may belong to a call.

What stands in code is no call, with one exception: a fence that holds nothing but a call. Thinking passes by.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from k2think.dialogue.events import Event, Finish, ReasoningDelta, TextDelta, ToolCallStart
from k2think.inband.quoting import CodeTracker
from k2think.inband.toolcalls.desk import CallDesk
from k2think.inband.toolcalls.json_form import JsonForm
from k2think.inband.toolcalls.names import Names
from k2think.inband.toolcalls.python_form import NAME, PythonForm
from k2think.inband.toolcalls.rescue import Rescue
from k2think.inband.toolcalls.tag_form import TagForm
from k2think.inband.toolcalls.tags import CLOSER, INNER_OPENERS, MAX_TAG, OPENERS, WRAPPERS, read_tag
from k2think.inband.toolcalls.tape import BLANKS, MAX_BLANKS, NotACall, Reading, Tape

MAX_WRAPPERS = 4
"""Wrappers within wrappers."""

# Each alternative begins with a letter of its own, so that text without any of them is passed over at full speed.
_OPENER = re.compile(
    r"<(?=[A-Za-z|｜]|\Z)|\{(?=[ \t\r\n]*(?:[\"']|\Z))|\[(?=[ \t\r\n]*(?:[\w{\[]|\Z))|`|~|调(?=用|\Z)|F(?=N|\Z)"
)
_BLANKS = re.compile(rf"[{BLANKS}]*")
_INSIDE = re.compile(rf"\[[{BLANKS}]*([^{BLANKS}])")
_COMMA = re.compile(rf",(?=[{BLANKS}]*\{{)")
_COMMA_BEFORE_NAME = re.compile(rf",(?=[{BLANKS}]*\w)")
_CLOSER_BEGINS = re.compile(r"</?[\w|｜:]*\s*")
_TICKS = {"`": re.compile(r"`*"), "~": re.compile(r"~*")}
_MAX_TICKS = 64
_FENCE = 3
_INFOS = frozenset(
    {"", "json", "json5", "jsonc", "xml", "text", "plaintext", "tool", "tools", "tool_call", "tool_calls", "tool_code"}
    | {"tool_use", "function", "functions", "function_call", "function_calls"}
)
"""What a fence that holds a call may say it holds: no language in which somebody would be shown a program."""
_ANNOUNCEMENT = re.compile(r"FN_CALL\s*=\s*(?:[Tt]rue|TRUE)\s+")
_MAX_ANNOUNCEMENT = 64
_CHINESE = re.compile(
    r"调用函数\s*[:：]\s*`?(?P<name>[^\s,，、:：{`]+)`?[\s,，、]*(?:参数|[Aa]rguments)\s*[:：]\s*(?P<fence>```\w*\s*)?(?=[{\"'])"
)
_CHINESE_BEGINNING = "调用函数"
_TOOL_RESPONSE = "<tool_response>"


class CallReader:
    """A Machine behind the reasoning reader: text becomes calls where it is one.

    All else passes; Finish comes at the close, with the reason that fits. See `CallDesk` for what becomes of a call.
    """

    def __init__(self, names: Names, desk: CallDesk, rescue: Rescue | None = None) -> None:
        self._rescue = rescue
        self._tape = Tape()
        self._desk = desk
        self._names = names
        self._code = CodeTracker()
        self._json = JsonForm(self._tape, desk, names)
        self._python = PythonForm(self._tape, desk, names)
        self._tags = TagForm(self._tape, desk, names, self._json, self._python)
        self._wrapped = 0  # wrappers that are open
        self._announced = False  # the last call was announced by a line of its own
        self._fenced = False  # a fence is open, and holds a call
        self._searching = True  # there is no text that waits
        self._finish: Finish | None = None
        self._reading = self._read()

    def feed(self, event: Event) -> Sequence[Event]:
        """Take one event."""
        if type(event) is TextDelta:
            text = event.text
            # Nearly all deltas are a few letters that open nothing.
            if self._searching and self._desk.idle() and not self._wrapped and _OPENER.search(text) is None:
                self._code.feed(text)
                if text[-1:] not in BLANKS:
                    return (event,)
                self._desk.text(text)
                return self._desk.take()
            if not text or self._desk.over:
                return ()
            self._tape.feed(text)
            next(self._reading)
            return self._desk.take()
        if type(event) is Finish:
            self._finish = event
            return ()
        if type(event) is ReasoningDelta and self._rescue is not None:
            self._rescue.remember(event.text)
        if type(event) is ToolCallStart:  # the upstream's own
            self._desk.begun = self._desk.made = event.index + 1
        return (event,)

    def close(self) -> Sequence[Event]:
        """The text has ended: what was held is a call or is not."""
        desk = self._desk
        desk.cut_off = self._finish is not None and self._finish.reason in {"length", "content_filter"}
        self._tape.ended = True
        if not desk.over:
            for _ in self._reading:
                raise AssertionError  # there is nothing to wait for any more
            if self._rescue is not None and not desk.begun and not desk.cut_off:
                self._rescue.call(desk, self._names)
        desk.close()
        events = desk.take()
        if not desk.problem and (desk.full or self._finish is not None):
            events.append(self._end())
        return events

    def _end(self) -> Finish:
        if self._desk.full:
            return Finish("tool_calls")
        if self._finish is not None and self._finish.reason not in {"stop", "tool_calls"}:
            return self._finish
        return Finish("tool_calls" if self._desk.made else "stop")

    def _read(self) -> Reading[None]:
        tape = self._tape
        while True:
            opener = _OPENER.search(tape.text, tape.place)
            text = tape.take(opener.start() if opener else len(tape.text))
            if text:
                self._wrapped = 0
                self._announced = False
                self._text(text)
            if opener is None:
                self._searching = True
                if not (yield from tape.more()):
                    return
                self._searching = False
                continue
            self._searching = False
            more = yield from self._try(opener[0])
            while more:
                more = yield from self._read_tail()

    def _text(self, text: str) -> None:
        if text:
            self._code.feed(text)
            self._desk.text(text)

    def _try(self, opener: str) -> Reading[bool]:
        """At something that may open a call: whether one was read."""
        tape, desk = self._tape, self._desk
        # Asked before a run of backticks is read, not within it.
        line_start, quoted = self._code.line_start(), self._code.quoted()
        begun = desk.begun
        refused = False
        tape.record()
        try:
            if opener in _TICKS:
                yield from self._read_fence(may_open=not quoted, line_start=line_start)
            elif not quoted:
                yield from self._read_opened(opener)
        except NotACall:
            refused = True
        taken = tape.recorded()
        if desk.begun > begun:
            if refused:
                self._text(taken)  # what followed the call and was none
            else:
                desk.aside(taken)
            return True
        self._leave_fence()
        self._wrapped = 0
        self._announced = False
        self._text(taken or tape.take_next())
        return False

    def _leave_fence(self) -> None:
        """The fence goes on with something else than calls; what closes it must find it open."""
        if self._fenced:
            self._code.feed("\n```\n")
            self._fenced = False

    def _read_opened(self, opener: str) -> Reading[None]:
        tape = self._tape
        if opener == "<":
            yield from self._read_tags(OPENERS)
        elif opener == "{":
            yield from self._json.read(explicit=self._wrapped > 0)
        elif opener == "[":
            yield from self._read_bracket()
        elif opener == "F":
            found = yield from self._match(_ANNOUNCEMENT, "FN_CALL", _MAX_ANNOUNCEMENT)
            tape.take(found.end())
            yield from (self._read_bracket() if (yield from tape.peek()) == "[" else self._python.read_call())
            self._announced = True
        elif opener != "调":  # a name, right behind another call
            yield from (self._tags.read_named() if self._wrapped else self._python.read_call())
            self._announced = not self._wrapped
        else:
            found = yield from self._match(_CHINESE, _CHINESE_BEGINNING, _MAX_ANNOUNCEMENT + self._names.longest)
            name = self._names.of(found["name"])
            self._fenced = found["fence"] is not None
            tape.take(found.end())
            yield from self._json.read_arguments(name)

    def _match(self, pattern: re.Pattern[str], beginning: str, limit: int) -> Reading[re.Match[str]]:
        """Wait until `pattern`, which begins with this word, matches. Raises `NotACall`."""
        tape = self._tape
        while True:
            rest = tape.ahead(limit + 1)
            if not rest.startswith(beginning[: len(rest)]):
                break
            found = pattern.match(tape.text, tape.place, tape.place + limit)
            if found is not None and found.end() < len(tape.text):
                return found
            if len(rest) > limit or not (yield from tape.more()):
                break
        tape.take_next()
        raise NotACall

    def _read_bracket(self) -> Reading[None]:
        """At `[`: a list in JSON or in Python. Raises `NotACall`."""
        tape = self._tape
        while (found := _INSIDE.match(tape.text, tape.place)) is None:
            if len(tape.text) - tape.place > MAX_BLANKS or not (yield from tape.more()):
                tape.take_next()
                raise NotACall
        if found[1] in "{[":
            yield from self._json.read(explicit=self._wrapped > 0)
        else:
            tape.take_next()
            yield from self._python.read_list()

    def _read_tags(self, openers: frozenset[str]) -> Reading[None]:
        """At `<`: read wrappers, and the call in them. Raises `NotACall`."""
        tape = self._tape
        for _ in range(MAX_WRAPPERS):
            tag = yield from read_tag(tape, openers)
            if tag is None:
                tape.take_next()
                raise NotACall
            if tag.kind not in WRAPPERS:
                yield from self._tags.read_tagged(tag, explicit=self._wrapped > 0)
                return
            self._wrapped += 1
            openers = INNER_OPENERS
            if (yield from tape.skip_blanks()) != "<":
                yield from self._read_inner()
                return
        raise NotACall

    def _read_inner(self) -> Reading[None]:
        """Between a wrapper's tags: read a call that begins with no tag. Raises `NotACall`."""
        character = yield from self._tape.peek()
        if character == "{":
            yield from self._json.read(explicit=True)
        elif character == "[":
            yield from self._read_bracket()
        elif character in _TICKS:
            yield from self._read_fence(may_open=True, line_start=True)
        elif character:
            yield from self._tags.read_named()
        else:
            raise NotACall

    def _read_fence(self, *, may_open: bool, line_start: bool) -> Reading[None]:
        """At a run of backticks or tildes: read the call in the fence, if it opens one that begins with a call.

        Behind other text in its line (a number, a dash, a sentence) only a fence that says what it holds is one.
        """
        tape = self._tape
        ticks = yield from self._read_ticks()
        if not may_open or len(ticks) < _FENCE:
            raise NotACall
        info = yield from self._read_info()
        if not (info or line_start):
            raise NotACall
        character = yield from tape.skip_blanks()
        if character not in {"<", "{", "["}:
            raise NotACall
        begun = self._desk.begun
        self._fenced = True
        try:
            if character == "<":
                yield from self._read_tags(OPENERS)
            elif character == "{":
                yield from self._json.read(explicit=self._wrapped > 0)
            else:
                yield from self._read_bracket()
        finally:
            self._fenced = self._desk.begun > begun

    def _read_info(self) -> Reading[str]:
        """Behind a fence's marks: take the rest of its line. Raises `NotACall` if no calls are in such a fence."""
        tape = self._tape
        while True:
            info, ended, _ = tape.ahead(MAX_TAG).partition("\n")
            word = info.strip().lower()
            if ended and word in _INFOS:
                tape.take_next(len(info) + 1)
                return word
            if ended or len(info) == MAX_TAG or not any(known.startswith(word) for known in _INFOS):
                raise NotACall
            if not (yield from tape.more()):
                raise NotACall

    def _read_tail(self) -> Reading[bool]:
        """Behind a call: pass over what belongs to it. True: another call followed at once."""
        tape, desk = self._tape, self._desk
        while True:
            blanks = ""
            while run := (yield from tape.run(_BLANKS, MAX_BLANKS)):
                blanks += tape.take_next(len(run))
            character = yield from tape.peek()
            if character and character in "}])":
                closer = tape.take_next()
            elif character in _TICKS and self._fenced:
                closer = yield from self._read_ticks()
                self._fenced = False
            elif character == "<":
                closer = yield from self._read_closer()
            elif character == ",":
                closer = yield from self._read_comma()
            else:
                closer = ""
            if closer:
                desk.aside(blanks + closer)
                continue
            self._text(blanks)
            if self._fenced and character and character in "<{[":
                return (yield from self._try(character))
            if character and (self._wrapped or self._announced) and NAME.fullmatch(character):
                return (yield from self._try(character))
            self._leave_fence()
            return False

    def _read_ticks(self) -> Reading[str]:
        """Take a run of backticks or of tildes."""
        tape = self._tape
        pattern = _TICKS[tape.text[tape.place]]
        pieces: list[str] = []
        while run := (yield from tape.run(pattern, _MAX_TICKS)):
            pieces.append(tape.take_next(len(run)))
        return "".join(pieces)

    def _read_comma(self) -> Reading[str]:
        """A comma between two calls of a list that was not understood as a whole."""
        tape = self._tape
        pattern = _COMMA_BEFORE_NAME if self._wrapped or self._announced else _COMMA
        while (found := pattern.match(tape.text, tape.place)) is None:
            if tape.ahead(MAX_BLANKS)[1:].strip(BLANKS) or not (yield from tape.more()):
                return ""
        return tape.take(found.end())

    def _read_closer(self) -> Reading[str]:
        """Take a closing tag that may stand behind a call, though it may be cut off at the end of the text."""
        tape, desk = self._tape, self._desk
        while (found := CLOSER.match(tape.text, tape.place)) is None:
            rest = tape.ahead(MAX_TAG + 1)
            if desk.made and rest.startswith(_TOOL_RESPONSE):
                desk.full = True  # the model plays the tool as well
                return tape.take(len(tape.text))
            if not (_CLOSER_BEGINS.fullmatch(rest) or _TOOL_RESPONSE.startswith(rest)) or len(rest) > MAX_TAG:
                return ""
            if not (yield from tape.more()):
                return tape.take(len(tape.text)) if rest.startswith("</") else ""
        if found[0].rstrip("> ").endswith(("call", "calls")):
            self._wrapped = max(0, self._wrapped - 1)
        return tape.take(found.end())
