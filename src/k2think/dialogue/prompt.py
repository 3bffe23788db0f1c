"""A request in the gateway's own words. Dialects make it, readers' writers rewrite it, upstreams send it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeAlias

from msgspec import Struct

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
ReasoningFormat: TypeAlias = Literal["parsed", "raw", "hidden"]


class ToolCall(Struct, frozen=True):
    """A call the model made earlier; `arguments` is the JSON text as it was sent."""

    id: str
    name: str
    arguments: str


class Attachment(Struct, frozen=True):
    """A file or an image as a client sent it along: still to be found, and to be looked at.

    One of these says where it is: `file_id` (left with us before), `url` (http or https) or `content` (a data URL, or
    Base64). `name` is what the client calls it, empty if nothing; `place` is the request's field that holds it, for
    errors. What kind of thing the client takes it for is in `image`; what it is, only its bytes say.
    """

    place: str
    image: bool = False
    file_id: str | None = None
    url: str | None = None
    content: str | None = None
    name: str = ""


class Document(Struct, frozen=True):
    """A file whose content is here: at `path`, or in `data`. `digest`: SHA-256 of it, in hex; `size` in bytes.

    `media_type` is what its bytes look like. At a path it may be gone by the time it is read. `place`: the request's
    field that named it, for errors.
    """

    name: str
    media_type: str
    digest: str
    size: int
    path: Path | None = None
    data: bytes | None = None
    place: str | None = None


class DocumentText(Struct, frozen=True):
    """The text of a document. `left_out`: how many characters of it are not in `text`; -1: some, nobody counted."""

    text: str
    left_out: int = 0


class Image(Struct, frozen=True):
    """An image for a model that sees, checked. `url` is a data URL, made once for however many attempts."""

    url: str


class Message(Struct, frozen=True):
    """One turn. `calls` stand in assistant turns only, `call_id` (which call this answers) in tool turns only.

    `attachments` stand in user turns only, behind the text; a turn in which text follows them is two. Upstreams get
    none that are still an `Attachment`.
    """

    role: Role
    text: str
    name: str | None = None
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None
    attachments: tuple[Attachment | Document | Image, ...] = ()


class Tool(Struct, frozen=True):
    """A function the model may call. `parameters` is the JSON Schema of its arguments; empty if none was given."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool = False


class Toolbox(Struct, frozen=True):
    """The tools on offer for one answer, and how they may be used.

    `required`: the answer must be a call. `parallel`: it may be several.
    """

    tools: tuple[Tool, ...]
    required: bool = False
    parallel: bool = True


class OutputFormat(Struct, frozen=True):
    """The JSON that the answer must be. `schema` None: any object."""

    schema: dict[str, Any] | None = None
    name: str = ""
    description: str = ""
    strict: bool = False


class Sampling(Struct, frozen=True, omit_defaults=True):
    """How the answer is drawn, in OpenAI's words; None = the model's own default."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    reasoning_effort: str | None = None
    stop: tuple[str, ...] = ()


class Prompt(Struct, frozen=True):
    """One question to one model, for one answer.

    `model` is the name the client used. `reasoning` says how the thinking is shown: `parsed` as events of its own,
    `raw` inline in `<think>` tags, `hidden` not at all. `live`: the client reads the answer while it is written, so a
    reader must not wait for the end to be certain. `tools` and `output` are None where the client asked for neither.
    `affinity` is the client's own word for what belongs together:
    requests that share it are best served by the same token (never sent upstream).
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    reasoning: ReasoningFormat = "parsed"
    live: bool = False
    tools: Toolbox | None = None
    output: OutputFormat | None = None
    affinity: str | None = None
