"""An answer as the JSON texts of its events, and these as bytes on the wire. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from k2think.simulator.answers import spaced
from k2think.simulator.callformats import Call
from k2think.simulator.model import Written, pieces
from k2think.simulator.shapes import details

_encode = msgspec.json.encode

DONE = b"[DONE]"
FINGERPRINT = "fp_simulator0001"

SOURCES = {
    "sources": [
        {
            "source": {"id": "simulated", "name": "a.txt", "type": "file"},
            "document": ["A passage of a file that does not exist."],
            "metadata": [{"source": "a.txt", "name": "a.txt"}],
            "distances": [0.71],
        }
    ]
}
STATUS_EVENT = {"event": {"type": "status", "data": {"description": "Thinking", "done": False}}}
STREAM_ERROR = {
    "error": {"message": "Upstream exploded mid-stream.", "type": "server_error", "param": None, "code": "server_error"}
}
CUT_ERROR = b'\n\ndata: {"error":{"message":"Chat completion stream failed"}}\n\n'
"""What 0.12.4 puts in when its model server breaks off, blank lines in front included."""


class Chunks:
    """The events of one answer as OpenAI's chunks: the envelope is encoded once, each delta only adds its text."""

    def __init__(self, answer_id: str, created: int, model: str, *, fingerprint: bool) -> None:
        mark = f', "system_fingerprint": "{FINGERPRINT}"' if fingerprint else ""
        self._head = (
            f'{{"id": "{answer_id}", "created": {created}, "model": {_encode(model).decode()}, '
            f'"object": "chat.completion.chunk"{mark}, "choices": ['
        ).encode()
        self._choice = self._head + b'{"index": 0, "delta": '

    def deltas(self, written: Written, chunk: int) -> Iterator[bytes]:
        """The role, then a chunk for each piece of thinking and answer, then the native calls."""
        first = {"role": "assistant", "content": "", **dict(written.blank)}
        yield self._delta(spaced(first).encode())
        tail = b'}, "logprobs": null, "finish_reason": null}]}'
        if written.fields:
            for piece in pieces(written.reasoning, chunk):
                text = _encode(piece)
                fields = b", ".join(b'"%b": %b' % (name.encode(), text) for name in written.fields)
                yield self._choice + b"{" + fields + tail
        head = self._choice + b'{"content": '
        for piece in pieces(written.content, chunk):
            yield head + _encode(piece) + tail
        for index, call in enumerate(written.calls):
            yield from self._call(index, call)

    def _call(self, index: int, call: Call) -> Iterator[bytes]:
        """A native call, its arguments in two pieces."""
        arguments = call.arguments
        head = {"id": f"call_{index + 1}", "type": "function", "function": {"name": call.name, "arguments": ""}}
        yield self._delta_of({"tool_calls": [{"index": index, **head}]})
        middle = arguments.find(":") if ":" in arguments else len(arguments) // 2
        for piece in (arguments[:middle], arguments[middle:]):
            yield self._delta_of({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})

    def finish(self, reason: str, time_info: Mapping[str, Any] | None) -> bytes:
        """The chunk with finish_reason."""
        extra = b"" if time_info is None else b', "time_info": ' + spaced(time_info).encode()
        return self._choice + b'{}, "logprobs": null, "finish_reason": %b}]%b}' % (_encode(reason), extra)

    def usage(self, usage: Mapping[str, int]) -> bytes:
        """The chunk with usage and no choices."""
        return self._head + b'], "usage": ' + spaced(usage).encode() + b"}"

    def _delta_of(self, delta: Mapping[str, Any]) -> bytes:
        return self._delta(spaced(delta).encode())

    def _delta(self, delta: bytes) -> bytes:
        return self._choice + delta + b', "logprobs": null, "finish_reason": null}]}'


def snapshots(written: Written, chunk: int) -> Iterator[bytes]:
    """The whole text so far, each time: thinking folded away, its end rewritten as it grows."""
    so_far = ""
    for piece in pieces(_folded(written), chunk):
        so_far += piece
        yield _encode({"content": details(so_far, done=False)})
    so_far, text, end = _unfolded(written)
    for piece in pieces(text, chunk):
        so_far += piece
        yield _encode({"content": so_far})
    if end:
        yield _encode({"content": so_far + end})


def last_snapshot(written: Written, usage: Mapping[str, int] | None) -> bytes:
    """The event that ends snapshots."""
    event: dict[str, Any] = {"done": True, "content": "".join(_unfolded(written)), "title": "A simulated chat"}
    return _encode(event if usage is None else event | {"usage": usage})


def _folded(written: Written) -> str:
    """The thinking, where it is told apart from the answer."""
    return (written.reasoning if written.fields else written.thinking).strip("\n")


def _unfolded(written: Written) -> tuple[str, str, str]:
    """What comes after the thinking was folded away: the text up to the answer, the answer, the end."""
    thinking = _folded(written)
    if not thinking:
        return "", written.content, ""
    if written.thinking:
        return f"{details(thinking, done=True)}\n<answer>", written.answer, "</answer>"
    return f"{details(thinking, done=True)}\n", written.content, ""


def completion(written: Written, answer_id: str, created: int, model: str) -> dict[str, Any]:
    """The answer in one piece, without usage and extras."""
    message: dict[str, Any] = {"role": "assistant", "content": written.content, **dict(written.blank)}
    message |= dict.fromkeys(written.fields, written.reasoning)
    if written.calls:
        functions = [{"name": call.name, "arguments": call.arguments} for call in written.calls]
        calls = [{"id": f"call_{n}", "type": "function", "function": one} for n, one in enumerate(functions, 1)]
        message |= {"content": None, "tool_calls": calls}
    return {
        "id": answer_id,
        "created": created,
        "model": model,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": written.finish_reason}],
    }


class Wire:
    """Events as bytes, in the form that a script asks for. `feed` gives the writes that one event takes."""

    def __init__(self, form: frozenset[str]) -> None:
        self._form = form
        self._prefix = b"" if "bare_json" in form else b"data:" if "no_space" in form else b"data: "
        self._eol = b"\r\n" if "crlf" in form else b"\n"
        self._plain = not form & {"comments", "one_write", "lines", "split_bytes", "gzip"}
        self._held: list[bytes] = []
        self._gzip = zlib.compressobj(wbits=31) if "gzip" in form else None

    @property
    def slow(self) -> bool:
        """Whether writes need a moment between them, lest the network joins them again."""
        return "split_bytes" in self._form

    def feed(self, payload: bytes, *, comment: bool = False) -> list[bytes]:
        """The writes for an event with this data, and for a comment behind it if that is allowed and asked for."""
        prefix = b"data: " if payload is DONE else self._prefix
        event = prefix + payload + self._eol * 2
        if self._plain:
            return [event]
        if comment and "comments" in self._form:
            event += b": keep-alive" + self._eol * 2
        return self.raw(event)

    def raw(self, event: bytes) -> list[bytes]:
        """The writes for bytes that are an event already."""
        if "one_write" in self._form:
            self._held.append(event)
            return []
        if self._gzip is not None:
            return [self._gzip.compress(event) + self._gzip.flush(zlib.Z_SYNC_FLUSH)]
        if "split_bytes" in self._form:
            return _split(event)
        if "lines" in self._form:
            return event.splitlines(keepends=True)
        return [event]

    def close(self) -> list[bytes]:
        """The rest."""
        rest = [b"".join(self._held)] if self._held else []
        self._held.clear()
        if self._gzip is not None:
            rest = [self._gzip.compress(b"".join(rest)) + self._gzip.flush()]
        return rest


def _split(event: bytes) -> list[bytes]:
    writes, start = [], 0
    for end in range(1, len(event)):
        if event[end - 1] >= 0x80 or event[end] >= 0x80 or event[end - 1] in b"</" or event[end] == 0x3E:
            writes.append(event[start:end])
            start = end
    writes.append(event[start:])
    return writes
