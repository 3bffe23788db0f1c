"""Any OpenAI-compatible server as an upstream: vLLM, SGLang, llama.cpp, the vendor's own API."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from k2think.credentials.credential import Credential
from k2think.dialogue.events import Event
from k2think.dialogue.prompt import OutputFormat, Prompt, Tool, Toolbox
from k2think.errors import RequestRefused
from k2think.upstreams.base import Listed
from k2think.upstreams.exchange import converse, list_models
from k2think.upstreams.refusals import Speaker
from k2think.upstreams.transport import Transport
from k2think.upstreams.turns import fold


class OpenAIUpstream:
    """Speaks OpenAI's chat protocol at `url`, which ends in `/chat/completions`."""

    def __init__(self, transport: Transport, url: str) -> None:
        self._transport = transport
        self._url = url
        self._models_url = f"{url.rstrip('/').removesuffix('/chat/completions')}/models"

    def open(self, prompt: Prompt, model: str, credential: Credential) -> AsyncGenerator[Sequence[Event], None]:
        """Ask the model."""
        return converse(
            self._transport, self._url, _headers(credential), payload(prompt, model), owns_tokens=Speaker.MODEL_SERVER
        )

    async def models(self, credential: Credential) -> tuple[Listed, ...]:
        """List the models."""
        return await list_models(
            self._transport, self._models_url, _headers(credential), owns_tokens=Speaker.MODEL_SERVER
        )


def payload(prompt: Prompt, model: str) -> bytes:
    """The body of a chat request: tools, form of the answer and earlier calls go as far as they stand in the prompt.

    Raises `RequestRefused` if a schema is nested too deeply to be written.
    """
    body: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "model": model,
        "messages": fold(prompt.messages),
        **msgspec.to_builtins(prompt.sampling),  # leaves out what is not set
    }
    if prompt.tools is not None:
        body |= _toolbox(prompt.tools)
    if prompt.output is not None:
        body["response_format"] = _response_format(prompt.output)
    try:
        return msgspec.json.encode(body)
    except RecursionError:
        raise RequestRefused("The request holds JSON that is nested too deeply.") from None


def _toolbox(toolbox: Toolbox) -> dict[str, Any]:
    choice: str | dict[str, Any] = "required" if toolbox.required else "auto"
    if toolbox.required and len(toolbox.tools) == 1:
        choice = {"type": "function", "function": {"name": toolbox.tools[0].name}}
    fields: dict[str, Any] = {"tools": [_tool(tool) for tool in toolbox.tools], "tool_choice": choice}
    if not toolbox.parallel:
        fields["parallel_tool_calls"] = False  # said only where it is needed: not every server knows the field
    return fields


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _response_format(output: OutputFormat) -> dict[str, Any]:
    if output.schema is None:
        return {"type": "json_object"}
    form: dict[str, Any] = {"name": output.name or "answer"}  # it must have one
    if output.description:
        form["description"] = output.description
    form["schema"] = output.schema
    if output.strict:
        form["strict"] = True
    return {"type": "json_schema", "json_schema": form}


def _headers(credential: Credential) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential.secret}"} if credential.secret else {}
