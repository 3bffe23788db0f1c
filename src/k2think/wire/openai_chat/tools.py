"""Which tools a request offers, and how they may be used: `tools` with `tool_choice`, or the `functions` of old.

A choice that names what is not there is refused: to offer all tools or none instead would answer another question.
Tools that must not be called at all (`none`) are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from k2think.dialogue.prompt import Tool, Toolbox
from k2think.errors import InvalidRequest
from k2think.wire.openai_chat.schema import (
    UNSUPPORTED,
    AllowedToolsChoice,
    ChatRequest,
    CustomTool,
    Function,
    FunctionTool,
    Name,
    NamedCustomChoice,
    NamedFunctionChoice,
    shortened,
)

# OpenAI takes letters, digits, "_" and "-", 64 at most; clients also come with dots, colons and slashes. Not allowed is
# what would blur where a name ends, once it is written into tags or between quotes.
_NAME = re.compile(r"[^\s\"'`<>\x00-\x1f\x7f-\x9f]{1,256}")


def toolbox_of(request: ChatRequest, *, enabled: bool = True) -> Toolbox | None:
    """The tools on offer; None if the model must not call any. Where both are given, `tools` win over `functions`.

    Raises `InvalidRequest` for names that cannot be used, for custom tools, for a choice of what is not declared, and
    for any offer at all where calls are not `enabled`.
    """
    if request.tools:
        field, toolbox = "tools", _of_tools(request.tools, request)
    else:
        if request.tool_choice not in (None, "auto", "none"):  # no set: a list of allowed tools has no hash
            raise _only_with("tool_choice", "tools")
        field, toolbox = "functions", _of_functions(request)
    if toolbox is not None and not enabled:
        message = "Function calling is switched off here (ENABLE_TOOLIFY=false)."
        raise InvalidRequest(message, param=field, code=UNSUPPORTED)
    return toolbox


def _of_tools(tools: Sequence[FunctionTool | CustomTool], request: ChatRequest) -> Toolbox | None:
    choice = request.tool_choice
    if choice == "none":
        return None
    offered = _declared((tool.function, f"tools[{index}].function.name") for index, tool in _functions_among(tools))
    required = choice == "required"
    if isinstance(choice, NamedFunctionChoice):
        offered, required = _only([choice.function.name], offered, "tool_choice", "tools"), True
    elif isinstance(choice, NamedCustomChoice):
        raise _not_found(choice.custom.name, "tool_choice", "tools")
    elif isinstance(choice, AllowedToolsChoice):
        offered = _only(_allowed_names(choice.allowed_tools.tools), offered, "tool_choice", "tools")
        required = choice.allowed_tools.mode == "required"
    if not offered:
        if required:
            message = "Invalid value for 'tool_choice': a call is required, but 'allowed_tools' allows no tool."
            raise InvalidRequest(message, param="tool_choice", code="invalid_value")
        return None
    return Toolbox(tuple(offered.values()), required=required, parallel=request.parallel_tool_calls is not False)


def _of_functions(request: ChatRequest) -> Toolbox | None:
    choice = request.function_call
    if not request.functions:
        if isinstance(choice, Name):
            raise _only_with("function_call", "functions")
        return None
    if choice == "none":
        return None
    offered = _declared((function, f"functions[{index}].name") for index, function in enumerate(request.functions))
    if isinstance(choice, Name):
        offered = _only([choice.name], offered, "function_call", "functions")
    # An answer of that kind has room for one call.
    return Toolbox(tuple(offered.values()), required=isinstance(choice, Name), parallel=False)


def _functions_among(tools: Sequence[FunctionTool | CustomTool]) -> Iterable[tuple[int, FunctionTool]]:
    for index, tool in enumerate(tools):
        if isinstance(tool, CustomTool):
            place = f"tools[{index}].type"
            message = f"Invalid value for '{place}': custom tools are not available. Declare a function instead."
            raise InvalidRequest(message, param=place, code=UNSUPPORTED)
        yield index, tool


def _declared(functions: Iterable[tuple[Function, str]]) -> dict[str, Tool]:
    """The tools by name, from functions and the places of their names."""
    tools: dict[str, Tool] = {}
    for function, place in functions:
        if _NAME.fullmatch(function.name) is None:
            raise InvalidRequest(
                f"Invalid '{place}': a name has 1 to 256 characters and no blanks, quotes, '<', '>' or control"
                " characters.",
                param=place,
                code="invalid_value",
            )
        # A call says nothing but a name, so of two tools with the same one only one can be meant: the first stands.
        if function.name not in tools:
            tools[function.name] = Tool(
                name=function.name,
                description=function.description or "",
                parameters=function.parameters or {},
                strict=function.strict is True,
            )
    return tools


def _only(names: Sequence[str], declared: dict[str, Tool], param: str, field: str) -> dict[str, Tool]:
    """Those of the declared tools that are named, in the order of their declaration."""
    for name in names:
        if name not in declared:
            raise _not_found(name, param, field)
    chosen = set(names)
    return {name: tool for name, tool in declared.items() if name in chosen}


def _allowed_names(entries: Sequence[dict[str, Any]]) -> list[str]:
    names: list[str] = []
    for index, entry in enumerate(entries):
        function = entry.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if entry.get("type") != "function" or not isinstance(name, str):
            raise InvalidRequest(
                f"Invalid 'tool_choice.allowed_tools.tools[{index}]': expected an object like"
                ' {"type": "function", "function": {"name": "..."}}.',
                param="tool_choice",
                code="invalid_value",
            )
        names.append(name)
    return names


def _not_found(name: str, param: str, field: str) -> InvalidRequest:
    message = f"Invalid value for '{param}': '{shortened(name)}' is not found in '{field}'."
    return InvalidRequest(message, param=param, code="invalid_value")


def _only_with(param: str, field: str) -> InvalidRequest:
    message = f"Invalid value for '{param}': '{param}' is only allowed when '{field}' are specified."
    return InvalidRequest(message, param=param, code="invalid_value")
