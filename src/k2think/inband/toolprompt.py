"""Tells a model that has no place for tools which functions it may call, and how a call is written.

A writer only: the model's calls are read elsewhere. The grammar is the one in which `history` writes earlier calls, so
that instructions and examples agree.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from k2think.dialogue.prompt import Message, Tool, Toolbox
from k2think.errors import InvalidRequest
from k2think.inband.history import without_tags, without_thinking

TRIGGER = "<tool_call>"
"""What a call begins with."""

MAX_COMPLAINT_ANSWER = 20_000
"""Characters of a wrong answer that the model is shown again: its end, as calls stand there."""

MAX_PROBLEM = 4_000
"""Characters of what is told about it."""

_OPENING = """\
# Functions

You may call functions. Each line here describes one:
<tools>
"""
_GRAMMAR = """
</tools>

A call is a JSON object on one line, `name` first and then `arguments`, within these tags:
<tool_call>
{"name": "function_name", "arguments": {"parameter": "value"}}
</tool_call>
Write calls after your thinking, never in a code fence; each pair of tags holds one call. \
Results come to you in <tool_response> tags: wait for them and never invent them."""


def write_tools(
    messages: tuple[Message, ...], toolbox: Toolbox, template: str = "", *, output: bool = False
) -> tuple[Message, ...]:
    """Add the instructions to the conversation's system message.

    `output`: it will also say what form an answer without calls must have, behind these instructions.

    `template` (TOOLIFY_CUSTOM_PROMPT) stands in for them where it is not empty; in it `{trigger_signal}` is what a call
    begins with and `{tools_list}` the functions, one JSON object a line. Raises `InvalidRequest` for parameters that
    are nested too deeply to be written.
    """
    if not toolbox.tools:
        return messages
    listed = "\n".join(map(_described, toolbox.tools))
    # The list comes last, so that nothing in it is taken for a placeholder.
    if template:
        instructions = template.replace("{trigger_signal}", TRIGGER).replace("{tools_list}", listed)
    else:
        instructions = _OPENING + listed + _GRAMMAR
        if not toolbox.required:
            answer = "give your final answer in the form described below" if output else "answer in plain text"
            instructions += f" If no function is needed, {answer}."
    demands = _demands(toolbox)
    return instructed(messages, f"{instructions}\n\n{demands}" if demands else instructions)


def instructed(messages: tuple[Message, ...], instructions: str) -> tuple[Message, ...]:
    """Add instructions behind the caller's own, in the first system message; in a new one if there is none."""
    for place, message in enumerate(messages):
        if message.role == "system":
            text = f"{message.text}\n\n{instructions}" if message.text else instructions
            return (*messages[:place], msgspec.structs.replace(message, text=text), *messages[place + 1 :])
    return (Message("system", instructions), *messages)


def complaint_turns(
    answer: str, problem: str, *, wanted: Literal["call", "JSON", "call or JSON"] = "call or JSON"
) -> tuple[Message, ...]:
    """What is appended when the model is asked again: its answer without the thinking, and what is wrong with it.

    `wanted` is what the new answer shall be. There is no turn of the assistant where nothing but thinking came.
    """
    said = without_thinking(answer)[-MAX_COMPLAINT_ANSWER:]
    complaint = (
        f"Your last answer cannot be used: {problem[:MAX_PROBLEM]}\n"
        f"Answer again with nothing but the corrected {wanted}."
    )
    turns = (Message("assistant", said),) if said.strip() else ()
    return (*turns, Message("user", complaint))


def _demands(toolbox: Toolbox) -> str:
    sentences: list[str] = []
    if toolbox.required:
        names = [f"`{tool.name}`" for tool in toolbox.tools]
        if len(names) == 1:
            sentences.append(f"You must call the function {names[0]} in this answer.")
        else:
            sentences.append(f"You must call one of these functions in this answer: {', '.join(names)}.")
    if not toolbox.parallel:
        sentences.append("Make at most one call in an answer.")
    return " ".join(sentences)


def _described(tool: Tool) -> str:
    parameters: dict[str, Any] = tool.parameters or {"type": "object", "properties": {}}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    try:
        line = msgspec.json.encode({"type": "function", "function": function}).decode()
    except RecursionError:
        message = f"The parameters of the function '{tool.name}' are nested too deeply."
        raise InvalidRequest(message, param="tools") from None
    return without_tags(line)
