"""From events to OpenAI's chunks, from completions to a whole `chat.completion`, from errors to OpenAI's error object.

The encoder is the hottest code of the gateway: everything of a chunk but its text is the same through an answer, so
it is encoded once, and the texts of one read are encoded together. Sources: OpenAI's OpenAPI document,
`CreateChatCompletionStreamResponse`, `CreateChatCompletionResponse`, `ErrorResponse`. Thinking has no field there:
`reasoning_content` is DeepSeek's word for it and `reasoning` OpenRouter's, and clients look for the one or the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from k2think.dialogue.completion import Completion
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
from k2think.errors import GatewayError, StreamBroken

DONE = b"data: [DONE]\n\n"
"""The last frame of a stream that came to its end."""

_MARK = "\x1e"
_ESCAPED_MARK = rb"\u001e"
"""ASCII's record separator, which no text has as a rule."""

_fast = msgspec.json.Encoder().encode
"""As `_encode`, but raises `UnicodeEncodeError` for half a surrogate pair."""


def keep_alive() -> bytes:
    """A comment: clients skip it, and what stands between sees that the stream is alive."""
    return b": keep-alive\n\n"


class StreamEncoder:
    """One answer (choice `index`) as chunks. Gives all frames of a batch as one bytes object, and never holds any back.

    The chunk with the role goes before whatever comes first. `created` is in Unix seconds. Usage belongs to all answers
    together: it is kept in `usage` for `usage_frame`, and `include_usage` only puts `usage: null` into every chunk.
    With `legacy_functions` a call is a `function_call`, of which an answer has one: the first call is given.
    """

    __slots__ = ("_begun", "_end", "_head", "_legacy", "_tail", "usage")

    def __init__(
        self,
        *,
        id: str,  # noqa: A002
        created: int,
        model: str,
        index: int = 0,
        include_usage: bool = False,
        legacy_functions: bool = False,
    ) -> None:
        self.usage: Usage | None = None
        self._legacy = legacy_functions
        self._begun = False
        self._head = _head(id, created, model) + b'"choices":[{"index":%d,"delta":{' % index
        self._end = b'}],"usage":null}\n\n' if include_usage else b"}]}\n\n"
        self._tail = b'},"logprobs":null,"finish_reason":null' + self._end

    def feed_all(self, events: Sequence[Event]) -> bytes:
        """Take the next events, give their frames."""
        try:
            frames = self._frames(events, _fast)
        except UnicodeEncodeError:
            frames = self._frames(events, _encode)
        if frames and not self._begun:
            self._begun = True
            role = b'"role":"assistant","content":"","refusal":null'
            frames = b"".join((self._head, role, self._tail, frames))
        return frames

    def _frames(self, events: Sequence[Event], encode: Callable[[Any], bytes]) -> bytes:
        out: list[bytes] = []
        for kind, alike in groupby(events, type):
            if kind is TextDelta:
                out += self._of_texts(b'"content":"', _encoded_texts(alike, encode))
            elif kind is ReasoningDelta:
                twice = [b'%b","reasoning":"%b' % (text, text) for text in _encoded_texts(alike, encode)]
                out += self._of_texts(b'"reasoning_content":"', twice)
            else:
                for event in alike:
                    out += self._of_other(event, encode)
        return b"".join(out)

    def _of_texts(self, field: bytes, texts: Sequence[bytes]) -> tuple[bytes, ...]:
        head, tail = self._head + field, b'"' + self._tail
        return (head, (tail + head).join(texts), tail)

    def _of_other(self, event: Event, encode: Callable[[Any], bytes]) -> tuple[bytes, ...]:
        if isinstance(event, ToolCallStart | ToolCallDelta):
            return self._of_function(event, encode) if self._legacy else self._of_tool(event, encode)
        if isinstance(event, Finish):
            finish = b'},"logprobs":null,"finish_reason":'
            return (self._head, finish, encode(_reason(event.reason, legacy=self._legacy)), self._end)
        assert isinstance(event, Usage)
        self.usage = event
        return ()

    def _of_tool(self, event: ToolCallStart | ToolCallDelta, encode: Callable[[Any], bytes]) -> tuple[bytes, ...]:
        if isinstance(event, ToolCallDelta):
            field = b'"tool_calls":[{"index":%d,"function":{"arguments":' % event.index
            return (self._head, field, encode(event.arguments), b"}}]", self._tail)
        return (
            self._head,
            b'"tool_calls":[{"index":%d,"id":' % event.index,
            encode(event.id),
            b',"type":"function","function":{"name":',
            encode(event.name),
            b',"arguments":""}}]',
            self._tail,
        )

    def _of_function(self, event: ToolCallStart | ToolCallDelta, encode: Callable[[Any], bytes]) -> tuple[bytes, ...]:
        if event.index > 0:
            return ()
        if isinstance(event, ToolCallDelta):
            return (self._head, b'"function_call":{"arguments":', encode(event.arguments), b"}", self._tail)
        return (self._head, b'"function_call":{"name":', encode(event.name), b',"arguments":""}', self._tail)


def _encoded_texts(deltas: Iterable[Any], encode: Callable[[Any], bytes]) -> list[bytes]:
    """The text of each delta as JSON writes it between its quotation marks; all in one call, parted by a mark.

    The deltas are of one kind, which the types of groupby cannot say. A text that holds the mark, or its escape, gives
    more pieces than there are texts: then it is one call for each.
    """
    texts = [delta.text for delta in deltas]
    pieces = encode(_MARK.join(texts))[1:-1].split(_ESCAPED_MARK)
    return pieces if len(pieces) == len(texts) else [encode(text)[1:-1] for text in texts]


def usage_frame(usages: Sequence[Usage], *, id: str, created: int, model: str) -> bytes:  # noqa: A002
    """The chunk without choices that tells, once for all answers to a question, what they cost."""
    return _head(id, created, model) + b'"choices":[],"usage":' + _encode(_total(usages)) + b"}\n\n"


def render(
    completions: Sequence[Completion],
    *,
    id: str,  # noqa: A002
    created: int,
    model: str,
    legacy_functions: bool = False,
) -> bytes:
    """The whole `chat.completion`, one choice for each answer. `created` is in Unix seconds.

    With `legacy_functions` the first call of an answer, and only that, is given as its `function_call`.

    Raises `StreamBroken` for an answer without a finish reason: it was cut off, and must not look complete.
    """
    choices = [_choice(index, completion, legacy=legacy_functions) for index, completion in enumerate(completions)]
    usage = _total([completion.usage for completion in completions])
    return _encode(_ChatCompletion(id=id, created=created, model=model, choices=choices, usage=usage))


def error_body(error: GatewayError) -> bytes:
    """OpenAI's error object, for any error. `details`, no field of OpenAI's, stands there only if there are some."""
    body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return _encode({"error": body if error.details is None else body | {"details": error.details}})


def error_frame(error: GatewayError) -> bytes:
    """The same within a stream, where the status has long been sent. No `DONE` may follow."""
    return b"data: " + error_body(error) + b"\n\n"


class _Function(Struct):
    name: str
    arguments: str


class _ToolCall(Struct):
    id: str
    function: _Function
    type: Literal["function"] = "function"


class _Message(Struct):
    content: str | None
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[_ToolCall] | UnsetType = UNSET
    function_call: _Function | UnsetType = UNSET
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class _Choice(Struct):
    index: int
    message: _Message
    finish_reason: FinishReason | Literal["function_call"]
    logprobs: None = None


class _CompletionDetails(Struct):
    reasoning_tokens: int


class _PromptDetails(Struct):
    cached_tokens: int


class _Usage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _PromptDetails
    completion_tokens_details: _CompletionDetails | UnsetType


class _ChatCompletion(Struct):
    id: str
    created: int
    model: str
    choices: list[_Choice]
    usage: _Usage
    object: Literal["chat.completion"] = "chat.completion"


def _head(id: str, created: int, model: str) -> bytes:  # noqa: A002
    envelope = _encode({"id": id, "object": "chat.completion.chunk", "created": created, "model": model})
    return b"data: " + envelope[:-1] + b","


def _choice(index: int, completion: Completion, *, legacy: bool) -> _Choice:
    if completion.finish_reason is None:
        raise StreamBroken("The answer ended before it was complete.")
    message = _Message(content=completion.text)
    if completion.reasoning:
        message.reasoning_content = message.reasoning = completion.reasoning
    if completion.calls and legacy:
        call = completion.calls[0]
        message.content = completion.text or None
        message.function_call = _Function(call.name, call.arguments)
    elif completion.calls:
        message.content = completion.text or None
        message.tool_calls = [_ToolCall(call.id, _Function(call.name, call.arguments)) for call in completion.calls]
    return _Choice(index, message, _reason(completion.finish_reason, legacy=legacy))


def _reason(reason: FinishReason, *, legacy: bool) -> FinishReason | Literal["function_call"]:
    return "function_call" if legacy and reason == "tool_calls" else reason


def _total(usages: Sequence[Usage]) -> _Usage:
    # Every answer read the same prompt; OpenAI counts it once. An answer that reads more was asked for again, and that
    # is paid for: so the smallest count is the prompt, and what the others have above it comes on top. A zero was not
    # told. Where every answer was asked for again, this is less than what was spent.
    prompts = [usage.prompt_tokens for usage in usages if usage.prompt_tokens > 0]
    prompt = sum(prompts) - (len(prompts) - 1) * min(prompts) if prompts else 0
    completion = sum(usage.completion_tokens for usage in usages)
    reasoning = [usage.reasoning_tokens for usage in usages if usage.reasoning_tokens >= 0]
    return _Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=_PromptDetails(max((usage.cached_tokens for usage in usages), default=0)),
        completion_tokens_details=_CompletionDetails(sum(reasoning)) if reasoning else UNSET,
    )


def _encode(value: Any) -> bytes:
    """As JSON; half a surrogate pair, which UTF-8 cannot hold, becomes U+FFFD."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        text = json.dumps(msgspec.to_builtins(value), ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
