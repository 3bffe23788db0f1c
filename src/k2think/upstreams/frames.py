"""What upstreams send, read into events: chat completion chunks, snapshots, whole completions, and the frames between.

One reader for every form, because one and the same service has been seen to answer in several. Frames that carry
nothing for us (sources, status events, ids) are passed over. Raises `UpstreamError`s for errors that come inside a 200.
Calls are read too, where the upstream has tools: servers differ in what they repeat and what they leave out.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from k2think.dialogue.events import (
    Event,
    Finish,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from k2think.errors import TaskAccepted, UpstreamUnavailable
from k2think.upstreams.refusals import error_in_answer
from k2think.upstreams.snapshots import SnapshotReader

LAST_FRAMES = 3
"""So many frames at the end of a read may be about the end of the answer; those before them are tried as mere text."""

MAX_CALLS = 128
"""Calls of one answer; further ones are left out."""

_HALF_CHARACTER = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
"""An escaped surrogate without its other half: servers write it when they cut an emoji in two."""
_SENTINELS = frozenset({b"[DONE]", b"DONE", b"done", b"-1"})
_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class _Function(Struct, gc=False):
    name: str | None = None
    arguments: Raw = Raw()  # text, piece by piece; from some servers the object itself


class _Call(Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call | None] | None = None
    function_call: _Function | None = None  # what there was before `tool_calls`: one call


class _Choice(Struct):
    index: int | None = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _Frame(Struct):
    choices: list[_Choice] | None = None
    content: str | None = None  # of a snapshot: the whole text so far
    done: bool | None = None  # of a snapshot: the last one
    usage: Raw = Raw()
    error: Raw = Raw()
    detail: Raw = Raw()
    task_id: str | None = None
    task_ids: list[str] | None = None


# Frames of text and nothing else, which nearly all are: whatever means something to us besides must not be there.
class _PlainDelta(Struct, gc=False):
    content: Annotated[str, Meta(min_length=1)]
    reasoning_content: None = None
    reasoning: None = None
    thinking: None = None
    tool_calls: None = None
    function_call: None = None


class _PlainChoice(Struct, gc=False):
    delta: _PlainDelta
    index: Literal[0] | None = 0
    finish_reason: None = None


class _PlainFrame(Struct, gc=False):
    choices: tuple[_PlainChoice]
    done: None = None
    usage: None = None
    error: None = None


class _UsageDetails(Struct):
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    completion_tokens_details: _UsageDetails | None = None
    prompt_tokens_details: _UsageDetails | None = None


_DECODER = msgspec.json.Decoder(_Frame | None)
_PLAIN_DECODER = msgspec.json.Decoder(_PlainFrame)
_USAGE_DECODER = msgspec.json.Decoder(_Usage)


class FrameReader:
    """A Machine: `feed(data of one server-sent event)` gives its events.

    `finished` is True once upstream has said how the answer ended; a `[DONE]` alone proves nothing.
    """

    __slots__ = ("_calls", "_snapshots", "finished")

    def __init__(self) -> None:
        self.finished = False
        self._snapshots: SnapshotReader | None = None
        self._calls: _CallReader | None = None

    def feed_all(self, frames: Sequence[bytes], events: list[Event]) -> None:
        """Read the frames that came together. `events` takes what they say, also what comes before one that raises."""
        if len(frames) > LAST_FRAMES and not self.finished:
            text = frames[:-LAST_FRAMES]
            try:
                plain = _PLAIN_DECODER.decode_lines(b"\n".join(text))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
            else:
                if len(plain) == len(text):  # else some held nothing, or several at once
                    events += [TextDelta(frame.choices[0].delta.content) for frame in plain]
                    frames = frames[-LAST_FRAMES:]
        for data in frames:
            events += self.feed(data)

    def feed(self, data: bytes) -> list[Event]:
        """Read one frame. Raises `UpstreamError` if it is an error or unreadable."""
        if data[0:1] != b"{" and data.strip() in _SENTINELS:
            # Snapshots come from a service that does not always mark the last one.
            return self._finish("stop") if self._snapshots is not None else []
        try:
            frame = _DECODER.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._feed_again(data)
        except RecursionError:
            raise UpstreamUnavailable("The upstream sent JSON that is nested too deeply.") from None
        if frame is None:
            raise UpstreamUnavailable("The upstream answered null: the model server behind it failed.")
        return self._read(frame)

    def feed_whole(self, body: bytes) -> list[Event]:
        """Read an answer that came in one piece, although a stream was asked for."""
        if not body.strip():
            raise UpstreamUnavailable("The upstream gave an empty answer.")
        events = self.feed(body)
        if not events and not self.finished:
            raise UpstreamUnavailable("The upstream answered with JSON that is no completion.")
        return events

    def close(self) -> list[Event]:
        """The stream has ended; nothing was held. Raises `UpstreamUnavailable` if the answer has not."""
        if not self.finished:
            raise UpstreamUnavailable("The upstream's answer ended without saying why (no finish_reason).")
        return []

    def _read(self, frame: _Frame) -> list[Event]:
        if frame.error and _given(frame.error):  # asked here first: most frames have none, and a call costs time
            raise error_in_answer(_decoded(frame.error))
        if frame.choices:
            events = self._read_choice(frame.choices[0])
        elif frame.content is not None:
            events = self._read_snapshot(frame.content)
        elif _given(frame.detail):
            raise error_in_answer({"detail": _decoded(frame.detail)})
        elif frame.task_id is not None or frame.task_ids is not None:
            raise TaskAccepted("The upstream queued the chat as a task instead of answering it.")
        else:
            events = []  # sources, status events, ids: nothing of the answer
        if frame.done:
            events += self._finish("stop")
        if frame.usage and _given(frame.usage) and (usage := _read_usage(frame.usage)):
            events.append(usage)
        return events

    def _read_choice(self, choice: _Choice) -> list[Event]:
        if choice.index:
            return []  # only one answer was asked for
        events: list[Event] = []
        delta = choice.delta or choice.message  # `message`: the whole answer in one piece
        if delta is not None and not self.finished:
            if reasoning := delta.reasoning_content or delta.reasoning or delta.thinking:
                events.append(ReasoningDelta(reasoning))
            if delta.content:
                events.append(TextDelta(delta.content))
            if delta.tool_calls or delta.function_call:
                events += self._read_calls(delta, whole=choice.delta is None)
        if choice.finish_reason:
            events += self._finish(choice.finish_reason)
        return events

    def _read_calls(self, delta: _Delta, *, whole: bool) -> list[Event]:
        if self._calls is None:
            self._calls = _CallReader()
        calls = delta.tool_calls or [_Call(index=0, function=delta.function_call)]
        return self._calls.feed(calls, whole=whole)

    def _read_snapshot(self, text: str) -> list[Event]:
        if self._snapshots is None:
            self._snapshots = SnapshotReader()
        return list(self._snapshots.feed(text))

    def _finish(self, reason: str) -> list[Event]:
        if self.finished:
            return []
        if reason == "error":
            raise UpstreamUnavailable("The upstream ended the answer with finish_reason 'error'.")
        self.finished = True
        given = _FINISH.get(reason, "stop")
        if given in {"stop", "tool_calls"}:  # some servers end every complete answer with the same word
            given = "tool_calls" if self._calls is not None and self._calls.count else "stop"
        return [Finish(given)]

    def _feed_again(self, data: bytes) -> list[Event]:
        """What could not be read at once: half a character, or several frames parted by one line end only."""
        whole = _HALF_CHARACTER.sub(rb"\\ufffd", data)
        if whole != data:
            return self.feed(whole)
        lines = [line for line in data.split(b"\n") if line.strip()]
        if len(lines) < 2:
            shown = data[:80].decode("utf-8", "replace")
            raise UpstreamUnavailable(f"The upstream sent a frame that cannot be read: {shown!r}")
        return [event for line in lines for event in self.feed(line)]


class _Begun(Struct):
    number: int
    id: str | None  # the upstream's; what the client gets may be another


class _CallReader:
    """Reads calls: `feed(entries of tool_calls)` gives the events. `count` is how many calls have begun."""

    def __init__(self) -> None:
        self.count = 0
        self._by_index: dict[int, _Begun] = {}
        self._by_id: dict[str, _Begun] = {}
        self._latest: _Begun | None = None
        self._ids: set[str] = set()

    def feed(self, entries: Sequence[_Call | None], *, whole: bool) -> list[Event]:
        """Take the entries of one frame; `whole`: they are complete calls, not pieces of some.

        Raises `UpstreamUnavailable` for arguments without a name to call, and for arguments that cannot be read.
        """
        events: list[Event] = []
        for place, entry in enumerate(entries):
            if entry is None:
                continue
            function = entry.function or _Function()
            call = None if whole else self._continued(entry, function.name, place)
            arguments = _arguments(function.arguments)
            if call is None:
                if self.count >= MAX_CALLS:
                    self._latest = None
                    continue
                if not function.name:
                    if arguments:
                        raise UpstreamUnavailable("The upstream sent the arguments of a call without its name.")
                    continue
                call = self._begin(entry)
                events.append(ToolCallStart(call.number, self._new_id(entry.id), function.name))
            if arguments:
                events.append(ToolCallDelta(call.number, arguments))
        return events

    def _continued(self, entry: _Call, name: str | None, place: int) -> _Begun | None:
        """The call that has begun and goes on with this entry, if there is one."""
        if entry.index is None:
            if place:
                return None  # a list without numbers tells its calls apart by their places
            if entry.id and entry.id in self._by_id:
                return self._by_id[entry.id]
            return None if name else self._latest
        call = self._by_index.get(entry.index)
        if call is not None and name and entry.id and entry.id != call.id:
            if call.id is not None:
                return None  # some servers number every call 0, and send each in one piece
            call.id = entry.id
        return call

    def _begin(self, entry: _Call) -> _Begun:
        call = _Begun(self.count, entry.id or None)
        self.count += 1
        self._latest = call
        if entry.index is not None:
            self._by_index[entry.index] = call
        if entry.id:
            self._by_id[entry.id] = call
        return call

    def _new_id(self, given: str | None) -> str:
        new = given if given and given not in self._ids else f"call_{uuid.uuid4().hex[:24]}"
        self._ids.add(new)
        return new


def _arguments(raw: Raw) -> str:
    if not _given(raw):
        return ""
    text = bytes(raw)
    try:
        return msgspec.json.decode(text, type=str) if text.startswith(b'"') else text.decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UpstreamUnavailable("The upstream sent arguments of a call that cannot be read.") from None


def _given(raw: Raw) -> bool:
    return bool(raw) and bytes(raw) != b"null"


def _decoded(raw: Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        return "something nested too deeply"


def _read_usage(raw: Raw) -> Usage | None:
    """Read a usage object; one of another form tells nothing and does no harm."""
    try:
        usage = _USAGE_DECODER.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    reasoning: Any = usage.completion_tokens_details and usage.completion_tokens_details.reasoning_tokens
    cached: Any = usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens
    return Usage(
        usage.prompt_tokens or 0,
        usage.completion_tokens or 0,
        reasoning_tokens=-1 if reasoning is None else reasoning,
        cached_tokens=cached or 0,
    )
