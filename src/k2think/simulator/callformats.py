"""The ways in which models have been seen to write calls of tools into their text, well and badly. Pure.

Values are written as they are: nothing is escaped where models escape nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Call:
    """One call. `arguments` is its JSON text, kept to the character; it may be no JSON at all, if a test wants that."""

    name: str
    arguments: str

    @property
    def values(self) -> dict[str, Any] | None:
        """The arguments by name; None if the text is no JSON object."""
        try:
            values = json.loads(self.arguments)
        except (ValueError, RecursionError):
            return None
        return values if isinstance(values, dict) else None


CallFormat: TypeAlias = Callable[[Sequence[Call]], str]
_One: TypeAlias = Callable[[Call], str]


def dumped(value: Any) -> str:
    """Give JSON as models write it: with blanks, and with characters as they are."""
    return json.dumps(value, ensure_ascii=False)


def _object(call: Call, key: str = "arguments") -> str:
    return f'{{"name": {dumped(call.name)}, "{key}": {call.arguments}}}'


def _encoded_object(call: Call) -> str:
    return f'{{"name": {dumped(call.name)}, "arguments": {dumped(call.arguments)}}}'


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else dumped(value)


def _pairs(call: Call, pair: Callable[[str, Any], str], between: str = "\n") -> str:
    """All arguments, each as `pair` writes it; arguments that are no object as they are."""
    values = call.values
    return call.arguments if values is None else between.join(pair(key, value) for key, value in values.items())


def _each(one: _One, before: str = "", after: str = "", between: str = "\n") -> CallFormat:
    return lambda calls: f"{before}{between.join(map(one, calls))}{after}"


def _tagged(one: _One) -> CallFormat:
    return _each(lambda call: f"<tool_call>\n{one(call)}\n</tool_call>")


def _fenced(calls: Sequence[Call]) -> str:
    functions = [{"name": call.name, "arguments": call.arguments} for call in calls]
    listed = [{"id": f"call_{n}", "type": "function", "function": one} for n, one in enumerate(functions)]
    return f"```json\n{json.dumps({'tool_calls': listed}, ensure_ascii=False, indent=1)}\n```"


def _inline(calls: Sequence[Call]) -> str:
    listed = [f'{{"id": "call_{n}", "type": "function", "function": {_object(call)}}}' for n, call in enumerate(calls)]
    return f'Sure. {{"tool_calls": [{", ".join(listed)}]}}'


def _toolify(call: Call) -> str:
    args = _pairs(call, lambda key, value: f"<{key}>{_plain(value)}</{key}>")
    return f"<function_call>\n<tool>{call.name}</tool>\n<args>\n{args}\n</args>\n</function_call>"


def _toolify_json(call: Call) -> str:
    return (
        f"    <function_call>\n        <tool>{call.name}</tool>\n"
        f"        <args_json><![CDATA[{call.arguments}]]></args_json>\n    </function_call>"
    )


def _invoke(call: Call) -> str:
    args = _pairs(call, lambda key, value: f'<parameter name="{key}">{_plain(value)}</parameter>')
    return f'<invoke name="{call.name}">\n{args}\n</invoke>'


def _invoke_marked(call: Call) -> str:
    def pair(key: str, value: Any) -> str:
        mark = "true" if isinstance(value, str) else "false"
        return f'<parameter name="{key}" string="{mark}">{_plain(value)}</parameter>'

    return f'<invoke name="{call.name}">{_pairs(call, pair, "")}</invoke>'


def _qwen3(call: Call) -> str:
    args = _pairs(call, lambda key, value: f"<parameter={key}>\n{_plain(value)}\n</parameter>")
    return f"<function={call.name}>\n{args}\n</function>"


def _glm(call: Call) -> str:
    args = _pairs(call, lambda key, value: f"<arg_key>{key}</arg_key>\n<arg_value>{_plain(value)}</arg_value>")
    return f"<tool_call>{call.name}\n{args}\n</tool_call>"


def _ifm(call: Call, *, typed: bool) -> str:
    def pair(key: str, value: Any) -> str:
        kind = f"<ifm|arg_type>{_type_of(value)}</ifm|arg_type>\n" if typed else ""
        return f"<ifm|arg_key>{key}</ifm|arg_key>\n{kind}<ifm|arg_value>{_plain(value)}</ifm|arg_value>"

    return f"<ifm|tool_call>{call.name}\n{_pairs(call, pair)}\n</ifm|tool_call>"


def _type_of(value: Any) -> str:
    names: dict[type, str] = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array"}
    return "null" if value is None else names.get(type(value), "object")


def _pythonic(call: Call) -> str:
    return f"{call.name}({_pairs(call, lambda key, value: f'{key}={value!r}', ', ')})"


def _unclosed(calls: Sequence[Call]) -> str:
    return _hermes(calls).removesuffix("\n</tool_call>")


def _single_quotes(call: Call) -> str:
    values = call.values
    return _object(call) if values is None else repr({"name": call.name, "arguments": values})


def _trailing_commas(call: Call) -> str:
    text = call.arguments.rstrip()
    inner = f"{text[:-1]},}}" if call.values else text
    return f'{{"name": {dumped(call.name)}, "arguments": {inner},}}'


_hermes = _tagged(_object)

FORMATS: Mapping[str, CallFormat] = {
    "hermes": _hermes,
    "fenced": _fenced,
    "inline": _inline,
    "function_call": _each(lambda call: f'{{"function_call": {_encoded_object(call)}}}'),
    "bare": _each(_object),
    "parameters": _each(lambda call: _object(call, "parameters")),
    "toolify": _each(_toolify, "<function_calls>\n", "\n</function_calls>"),
    "toolify_json": _each(_toolify_json, "<function_calls>\n", "\n</function_calls>"),
    "invoke": _each(_invoke, "<function_calls>\n", "\n</function_calls>"),
    "tool_calls_invoke": _each(_invoke_marked, "<tool_calls>", "</tool_calls>", ""),
    "qwen3": _tagged(_qwen3),
    "glm": _each(_glm),
    "ifm_xml": _each(lambda call: _ifm(call, typed=False), "<ifm|tool_calls>\n", "\n</ifm|tool_calls>"),
    "ifm_typed": _each(lambda call: _ifm(call, typed=True), "<ifm|tool_calls>\n", "\n</ifm|tool_calls>"),
    "ifm_json": _each(
        lambda call: f"<ifm|tool_call>{_object(call)}</ifm|tool_call>", "<ifm|tool_calls>\n", "\n</ifm|tool_calls>"
    ),
    "gpt_oss": _each(
        lambda call: f"<tool_call>assistant to=functions.{call.name} json\n{call.arguments}\n</tool_call>"
    ),
    "tag_pythonic": _each(lambda call: f"<tool_call>{_pythonic(call)}</tool_call>"),
    "pythonic": _each(_pythonic, "[", "]", ", "),
    "fn_call": _each(_pythonic, "FN_CALL=True\n"),
    "chinese": _each(lambda call: f"调用函数：{call.name} 参数：{call.arguments}"),
    "unclosed": _unclosed,
    "single_quotes": _tagged(_single_quotes),
    "trailing_commas": _tagged(_trailing_commas),
    "double_encoded": _tagged(_encoded_object),
}
"""Name -> how calls are written. The last four are mistakes: Hermes' format without the last closer, as Python writes
a dictionary, with commas too many, and with the arguments as JSON within JSON."""
