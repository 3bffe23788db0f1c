"""From OpenAI's chat request to the gateway's own words.

What cannot be honoured is refused here, naming the field: a client that asked for a sound to be heard, or for
likelihoods, must not get an answer as if it had not asked. What only concerns OpenAI's own house (store, metadata,
service_tier, verbosity, ...) is let be: an answer without it is still the answer.
"""

from __future__ import annotations

from typing import assert_never

import msgspec
from msgspec import Struct

from k2think.dialogue.prompt import Attachment, Message, OutputFormat, Prompt, ReasoningFormat, Sampling, ToolCall
from k2think.errors import InvalidRequest
from k2think.wire.openai_chat.attached import attached_file, attached_image
from k2think.wire.openai_chat.schema import (
    UNSUPPORTED,
    AssistantMessage,
    AudioPart,
    ChatRequest,
    Content,
    DeveloperMessage,
    FilePart,
    FunctionMessage,
    FunctionToolCall,
    ImagePart,
    JsonObjectFormat,
    JsonSchemaFormat,
    Part,
    RefusalPart,
    SystemMessage,
    TextFormat,
    TextPart,
    ToolMessage,
    UserMessage,
)
from k2think.wire.openai_chat.tools import toolbox_of


class Question(Struct, frozen=True):
    """What a client asks: `n` answers to a prompt, as a stream or not, and whether usage stands at the stream's end.

    `legacy_functions`: the tools came as `functions`, so a call is answered as `function_call`.
    """

    prompt: Prompt
    n: int
    stream: bool
    include_usage: bool
    legacy_functions: bool = False


def to_question(request: ChatRequest, *, default_reasoning: ReasoningFormat, tools_enabled: bool = True) -> Question:
    """Translate a request. Raises `InvalidRequest` for what cannot be had; for any tools if not `tools_enabled`."""
    refuse_other_modalities(request)
    refuse_logprobs(request)
    toolbox = toolbox_of(request, enabled=tools_enabled)
    stream = request.stream is True
    options = request.stream_options
    prompt = Prompt(
        model=request.model,
        messages=_messages(request),
        sampling=_sampling(request),
        reasoning=request.reasoning_format or default_reasoning,
        live=stream,
        tools=toolbox,
        output=_output(request.response_format),
        affinity=request.prompt_cache_key or request.user,
    )
    return Question(
        prompt=prompt,
        n=int(request.n or 1),
        stream=stream,
        include_usage=stream and options is not None and options.include_usage is True,
        legacy_functions=toolbox is not None and not request.tools,
    )


def refuse_other_modalities(request: ChatRequest) -> None:
    """An answer is text."""
    if "audio" in (request.modalities or ()):
        raise InvalidRequest(
            "Answers are text only: 'modalities' cannot hold 'audio'.", param="modalities", code=UNSUPPORTED
        )
    if request.audio is not None:
        raise InvalidRequest("Answers are text only: 'audio' cannot be asked for.", param="audio", code=UNSUPPORTED)


def refuse_logprobs(request: ChatRequest) -> None:
    """No upstream tells how likely its tokens were."""
    field = "logprobs" if request.logprobs else "top_logprobs" if request.top_logprobs else None
    if field is not None:
        raise InvalidRequest("Log probabilities are not available.", param=field, code=UNSUPPORTED)


def _output(wanted: TextFormat | JsonObjectFormat | JsonSchemaFormat | None) -> OutputFormat | None:
    match wanted:
        case None | TextFormat():
            return None
        case JsonObjectFormat():
            return OutputFormat()
        case JsonSchemaFormat(json_schema):
            # Without a schema it says no more than that the answer is an object.
            return OutputFormat(
                schema=json_schema.schema,
                name=json_schema.name,
                description=json_schema.description or "",
                strict=json_schema.strict is True,
            )
        case _:
            assert_never(wanted)


def _sampling(request: ChatRequest) -> Sampling:
    max_tokens = request.max_completion_tokens or request.max_tokens
    return Sampling(
        temperature=request.temperature,
        top_p=request.top_p,
        max_tokens=None if max_tokens is None else int(max_tokens),
        seed=None if request.seed is None else int(request.seed),
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        logit_bias=request.logit_bias or None,
        reasoning_effort=request.reasoning_effort,
        stop=_stop(request.stop),
    )


def _stop(stop: str | list[str] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    sequences = (stop,) if isinstance(stop, str) else tuple(stop)
    if "" in sequences:
        param = "stop" if isinstance(stop, str) else f"stop[{sequences.index('')}]"
        raise InvalidRequest(f"Invalid '{param}': a stop sequence cannot be empty.", param=param, code="invalid_value")
    return sequences


def _messages(request: ChatRequest) -> tuple[Message, ...]:
    messages: list[Message] = []
    # A call of the old kind has no id. It gets one, and what the function gave, which says only its name, the same.
    nameless: dict[str, str] = {}
    for index, message in enumerate(request.messages):
        place = f"messages[{index}]"
        match message:
            case SystemMessage() | DeveloperMessage():
                messages.append(Message("system", _text(message.content, place), name=message.name))
            case UserMessage():
                messages += _user_turn(message, place)
            case AssistantMessage():
                calls = _calls(message)
                if message.function_call is not None:
                    call = message.function_call
                    nameless[call.name] = f"function_call_{index}"
                    calls.append(ToolCall(nameless[call.name], call.name, call.arguments))
                text = _text(message.content, place, said_by_assistant=True)
                if message.refusal:
                    text = f"{text}\n{message.refusal}" if text else message.refusal
                messages.append(Message("assistant", text, name=message.name, calls=tuple(calls)))
            case ToolMessage():
                text = _text(message.content, place)
                messages.append(Message("tool", text, name=message.name, call_id=message.tool_call_id))
            case FunctionMessage():
                call_id = nameless.get(message.name)
                messages.append(Message("tool", _text(message.content, place), name=message.name, call_id=call_id))
            case _:
                assert_never(message)
    return tuple(messages)


def _user_turn(message: UserMessage, place: str) -> list[Message]:
    """The turn; several, where text follows what is attached."""
    if isinstance(message.content, str):
        return [Message("user", message.content, name=message.name)]
    turns: list[Message] = []
    texts: list[str] = []
    attached: list[Attachment] = []

    def end_turn() -> None:
        turns.append(Message("user", "\n".join(texts), name=message.name, attachments=tuple(attached)))
        texts.clear()
        attached.clear()

    for index, part in enumerate(message.content):
        here = f"{place}.content[{index}]"
        if isinstance(part, ImagePart):
            attached.append(attached_image(part, here))
        elif isinstance(part, FilePart):
            attached.append(attached_file(part, here))
        else:
            if attached:
                end_turn()
            texts.append(_text_of_part(part, here, said_by_assistant=False))
    end_turn()
    return turns


def _calls(message: AssistantMessage) -> list[ToolCall]:
    calls: list[ToolCall] = []
    for call in message.tool_calls or ():
        if isinstance(call, FunctionToolCall):
            calls.append(ToolCall(call.id, call.function.name, call.function.arguments))
        else:
            # A custom tool takes free text where a function takes an object.
            arguments = msgspec.json.encode({"input": call.custom.input}).decode()
            calls.append(ToolCall(call.id, call.custom.name, arguments))
    return calls


def _text(content: Content | None, place: str, *, said_by_assistant: bool = False) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "\n".join(
        [_text_of_part(part, f"{place}.content[{index}]", said_by_assistant) for index, part in enumerate(content)]
    )


def _text_of_part(part: Part, place: str, said_by_assistant: bool) -> str:
    match part:
        case TextPart():
            return part.text
        case RefusalPart():
            if not said_by_assistant:
                raise _misplaced("refusal", "the assistant", place)
            return part.refusal
        case ImagePart():
            raise _misplaced("image_url", "the user", place)
        case FilePart():
            raise _misplaced("file", "the user", place)
        case AudioPart():
            message = f"Invalid '{place}': audio cannot be heard here. Send its transcript as text."
            raise InvalidRequest(message, param=place, code="audio_not_supported")
        case _:
            assert_never(part)


def _misplaced(kind: str, whose: str, place: str) -> InvalidRequest:
    message = f"Invalid value for '{place}.type': '{kind}' is for turns of {whose}."
    return InvalidRequest(message, param=f"{place}.type", code="invalid_value")
