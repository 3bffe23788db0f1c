"""The body of `POST /v1/chat/completions` as OpenAI describes it: decoded, and checked against its types and ranges.

Only the fields that something reads stand here. All others are accepted and ignored at every level, so a client written
for a newer OpenAI works as well. What a field asks for, and whether it can be had, is judged in `inbound`.
Source: OpenAI's OpenAPI document, `CreateChatCompletionRequest`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from k2think.errors import InvalidRequest

MAX_CHOICES = 8
"""OpenAI allows 128; each is a request of its own upstream."""

MAX_TOOLS = 1024
"""OpenAI allows 128, clients that gather the tools of many servers come with more. All of them go into the prompt."""

UNSUPPORTED = "unsupported_parameter"
"""The code of an error about what may be asked of OpenAI but cannot be had here."""

# JSON knows one kind of number, and some clients write whole ones with a point: 8.0 is an integer in JSON Schema.
Choices: TypeAlias = (
    Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | Annotated[float, Meta(ge=1, le=MAX_CHOICES, multiple_of=1)]
)
Tokens: TypeAlias = Annotated[int, Meta(ge=1, le=2**53)] | Annotated[float, Meta(ge=1, le=2**53, multiple_of=1)]
Seed: TypeAlias = (
    Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[float, Meta(ge=-(2**53), le=2**53, multiple_of=1)]
)
TopLogprobs: TypeAlias = Annotated[int, Meta(ge=0, le=20)] | Annotated[float, Meta(ge=0, le=20, multiple_of=1)]
Penalty: TypeAlias = Annotated[float, Meta(ge=-2, le=2)]


class TextPart(Struct, tag_field="type", tag="text", frozen=True, gc=False):
    """A piece of text."""

    text: str


class RefusalPart(Struct, tag_field="type", tag="refusal", frozen=True, gc=False):
    """A piece of an assistant's turn in which it said no."""

    refusal: str


class ImageUrl(Struct, frozen=True, gc=False):
    """Where an image is: a data URL, an http or https URL, or the id of an uploaded file."""

    url: str


class ImagePart(Struct, tag_field="type", tag="image_url", frozen=True, gc=False):
    """An image. Some clients write the URL without the object around it."""

    image_url: ImageUrl | str


class AudioPart(Struct, tag_field="type", tag="input_audio", frozen=True, gc=False):
    """A sound."""


class FileSource(Struct, frozen=True, gc=False):
    """Where a file is: an uploaded one by its id, or its content as a data URL or in Base64."""

    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class FilePart(Struct, tag_field="type", tag="file", frozen=True, gc=False):
    """A file."""

    file: FileSource


Part: TypeAlias = TextPart | RefusalPart | ImagePart | AudioPart | FilePart
Content: TypeAlias = str | list[Part]


class Call(Struct, frozen=True, gc=False):
    """The function an assistant called; `arguments` is JSON text as the model wrote it, so perhaps none."""

    name: str
    arguments: str


class CustomCall(Struct, frozen=True, gc=False):
    """The custom tool an assistant called, with free text."""

    name: str
    input: str


class FunctionToolCall(Struct, tag_field="type", tag="function", frozen=True, gc=False):
    """A call of a function."""

    id: str
    function: Call


class CustomToolCall(Struct, tag_field="type", tag="custom", frozen=True, gc=False):
    """A call of a custom tool."""

    id: str
    custom: CustomCall


class SystemMessage(Struct, tag_field="role", tag="system", frozen=True, gc=False):
    """Instructions."""

    content: Content
    name: str | None = None


class DeveloperMessage(SystemMessage, tag_field="role", tag="developer", frozen=True, gc=False):
    """Instructions, by their newer name."""


class UserMessage(Struct, tag_field="role", tag="user", frozen=True, gc=False):
    """What a person said."""

    content: Content
    name: str | None = None


class AssistantMessage(Struct, tag_field="role", tag="assistant", frozen=True, gc=False):
    """What the model said earlier. Its earlier thinking is among the ignored fields, on purpose."""

    content: Content | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: list[FunctionToolCall | CustomToolCall] | None = None
    function_call: Call | None = None


class ToolMessage(Struct, tag_field="role", tag="tool", frozen=True, gc=False):
    """What a tool gave."""

    content: Content
    tool_call_id: str
    name: str | None = None


class FunctionMessage(Struct, tag_field="role", tag="function", frozen=True, gc=False):
    """What a function gave, in the form from before there were tools."""

    content: Content | None
    name: str


ChatMessage: TypeAlias = (
    SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage
)


class Function(Struct, frozen=True, gc=False):
    """A function the model may call; `parameters` is a JSON Schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Name(Struct, frozen=True, gc=False):
    """A function or custom tool, by its name."""

    name: str


class FunctionTool(Struct, tag_field="type", tag="function", frozen=True, gc=False):
    """A tool that takes JSON."""

    function: Function


class CustomTool(Struct, tag_field="type", tag="custom", frozen=True, gc=False):
    """A tool that takes free text."""

    custom: Name


class AllowedTools(Struct, frozen=True, gc=False):
    """Some of the tools; `required`: one of them must be called."""

    mode: Literal["auto", "required"]
    tools: list[dict[str, Any]]


class NamedFunctionChoice(Struct, tag_field="type", tag="function", frozen=True, gc=False):
    """This function must be called."""

    function: Name


class NamedCustomChoice(Struct, tag_field="type", tag="custom", frozen=True, gc=False):
    """This custom tool must be called."""

    custom: Name


class AllowedToolsChoice(Struct, tag_field="type", tag="allowed_tools", frozen=True, gc=False):
    """Only these tools may be called."""

    allowed_tools: AllowedTools


ToolChoice: TypeAlias = (
    Literal["none", "auto", "required"] | NamedFunctionChoice | NamedCustomChoice | AllowedToolsChoice
)


class JsonSchema(Struct, frozen=True, gc=False):
    """The shape an answer must have."""

    name: str
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextFormat(Struct, tag_field="type", tag="text", frozen=True, gc=False):
    """Any text."""


class JsonObjectFormat(Struct, tag_field="type", tag="json_object", frozen=True, gc=False):
    """Some JSON object."""


class JsonSchemaFormat(Struct, tag_field="type", tag="json_schema", frozen=True, gc=False):
    """JSON of a given shape."""

    json_schema: JsonSchema


class StreamOptions(Struct, frozen=True, gc=False):
    """How to stream."""

    include_usage: bool | None = None


class ChatRequest(Struct, frozen=True, gc=False):
    """The whole body. None: not said."""

    model: Annotated[str, Meta(max_length=256)]
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Choices | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    # How the answer is drawn
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_completion_tokens: Tokens | None = None
    max_tokens: Tokens | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    # Thinking; `reasoning_format` is no field of OpenAI's
    reasoning_effort: str | None = None
    reasoning_format: Literal["parsed", "raw", "hidden"] | None = None
    # Tools
    tools: Annotated[list[FunctionTool | CustomTool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[Function], Meta(max_length=MAX_TOOLS)] | None = None
    function_call: Literal["none", "auto"] | Name | None = None
    # The form of the answer
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    audio: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None


def decode(body: bytes) -> ChatRequest:
    """Read a body. Raises `InvalidRequest` that names the first field at fault in `param`."""
    try:
        return msgspec.json.decode(body, type=ChatRequest)
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error)) from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {_malformed(error)}.", code="invalid_json") from None
    except UnicodeDecodeError:
        raise InvalidRequest("The request body is not valid UTF-8.", code="invalid_json") from None
    except RecursionError:
        raise InvalidRequest("The request body is nested too deeply.", code="invalid_json") from None


def _malformed(error: msgspec.DecodeError) -> str:
    text = str(error).removeprefix("JSON is malformed: ")
    return "it ends too early" if text == "Input data was truncated" else text


_MISSING = re.compile(r"Object missing required field `(?P<field>\w+)`")
_WRONG_VALUE = re.compile(r"(?s)Invalid (?:enum )?value (?P<value>.*)")
_WRONG_TYPE = re.compile(r"Expected `(?P<types>[\w |]+)`(?:, got `(?P<got>\w+)`)?")
_OUT_OF_BOUNDS = re.compile(r"Expected `\w+` (?P<of_length>of length )?(?P<bound>[<>]=) (?P<limit>\S+)")

_JSON_NAMES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}

_SUPPORTED = {
    "messages[].role": ("developer", "system", "user", "assistant", "tool", "function"),
    "messages[].content[].type": ("text", "refusal", "image_url", "input_audio", "file"),
    "reasoning_format": ("parsed", "raw", "hidden"),
    "response_format.type": ("text", "json_object", "json_schema"),
    "tool_choice": ("none", "auto", "required"),
    "tools[].type": ("function", "custom"),
}


def _wrong_field(complaint: str) -> InvalidRequest:
    """Say in OpenAI's way what msgspec says in its own, as in: Expected `float`, got `str` - at `$.temperature`."""
    what, at, path = complaint.rpartition(" - at `")
    if not at:
        what, path = complaint, ""
    # Within a free-form object msgspec writes [...] for each key.
    path = path.partition("[...]")[0].rstrip("`").removeprefix("$").removeprefix(".")
    if match := _MISSING.match(what):
        path = f"{path}.{match['field']}" if path else match["field"]
        return InvalidRequest(f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter")
    if not path:
        return InvalidRequest("The request body must be a JSON object.", code="invalid_type")
    if match := _WRONG_VALUE.match(what):
        message = f"Invalid value for '{path}': {shortened(match['value'])}."
        if supported := _SUPPORTED.get(re.sub(r"\d+", "", path)):
            message += f" Supported values are: {', '.join(map(repr, supported))}."
        return InvalidRequest(message, param=path, code="invalid_value")
    if match := _OUT_OF_BOUNDS.match(what):
        kind = "an array of length" if match["of_length"] else "a value"
        message = f"Invalid '{path}': expected {kind} {match['bound']} {match['limit'].removesuffix('.0')}."
        return InvalidRequest(message, param=path, code="invalid_value")
    if match := _WRONG_TYPE.fullmatch(what):
        message = f"Invalid type for '{path}': expected {_in_json_names(match['types'])}"
        message += f", but got {_in_json_names(match['got'])} instead." if match["got"] else "."
        return InvalidRequest(message, param=path, code="invalid_type")
    if "multiple of" in what:
        return InvalidRequest(f"Invalid '{path}': expected a whole number.", param=path, code="invalid_type")
    return InvalidRequest(f"Invalid '{path}': {shortened(what)}.", param=path, code="invalid_value")


def _in_json_names(types: str) -> str:
    names = [_JSON_NAMES.get(name, name) for name in types.split(" | ") if name != "null"] or ["null"]
    if "integer" in names and "number" in names:
        names.remove("number")
    return " or ".join(names)


def shortened(text: str) -> str:
    """What a client sent, cut to what an error message may repeat of it."""
    return text if len(text) <= 100 else text[:100] + "…"
