"""What the model does with tools and with a demand for JSON: calls, tells results, or fills a schema. Pure.

It sees tools where the prompt's system text holds one as JSON on a line of its own, and in the request's own `tools`
where its server takes those. How it decides is plain, so that a test can know beforehand: see `play`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k2think.simulator.arithmetic import find_and_calculate
from k2think.simulator.callformats import FORMATS, Call, dumped
from k2think.simulator.jsonplay import Material, filled, words_of
from k2think.simulator.script import ANSWER_AGAIN, Script, plain_text, split_results, split_turn, text_of

_MUST_CALL = "must call"
_MUST = re.compile(r"\bmust\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n")
_SCHEMA = "JSON Schema"
_OBJECT = "JSON object"
_DECLARING = frozenset(("function", "parameters", "input_schema", "inputSchema"))
"""A JSON object with one of these declares a tool; the schema in it is not one of an answer."""
_MAX_PLACES = 50
"""Braces in a text at which a schema may begin."""
_OF_TOOLS = re.compile(r"\btools?\b|\bcalls?\b|\bfunctions?\b|\barguments?\b|</?(?!schema\b)\w+>", re.IGNORECASE)
_MAX_SHOWN = 200


@dataclass(frozen=True)
class OfferedTool:
    """A tool as the prompt or the request describes it."""

    name: str
    parameters: Mapping[str, Any]
    words: frozenset[str]
    """Words by which a question is seen to be one for this tool."""


@dataclass(frozen=True)
class Part:
    """What the model does: `calls` (`native`: in a field of their own), or else says `prose`; None: it just talks."""

    calls: tuple[Call, ...] = ()
    native: bool = False
    prose: str | None = None
    thought: str = ""
    """What it thinks of that."""


def play(script: Script, body: Mapping[str, Any], *, native: bool) -> Part:
    """What the model does with this request. `native`: the server takes `tools` and `response_format` themselves.

    A scripted call is made. A turn that holds results only is answered in prose. Otherwise the tool is called whose
    words overlap most with the user's; if there is none and the prompt says "must call", the first one. Otherwise, if
    JSON is demanded, the answer is JSON. A user turn that complains of an answer is answered as the one before it, with
    all that the user has said.
    """
    scene = _Scene(body, native=native)
    written = bool(script.format) or bool(scene.written and not scene.native)
    if script.call and not scene.results:
        calls = (Call(script.call, script.args),) * script.calls
        return Part(calls, native=not written, thought=f"I was told to call {script.call}.")
    tool = scene.choice() if script.calls else None
    if tool is not None:
        calls = tuple(_call(tool, scene, number) for number in range(script.calls))
        return Part(calls, native=not written, thought=f"The tool {tool.name} fits.")
    if scene.wants_json:
        return Part(prose=_json_answer(scene, fence=script.fence), thought="JSON is asked for.")
    if scene.results:
        return Part(prose="\n".join(map(_told, scene.results)), thought="The tools have answered.")
    return Part()


def written_calls(script: Script, part: Part) -> str:
    """The text of the calls, in the format that the script names."""
    return FORMATS[script.format or "hermes"](part.calls) if part.calls and not part.native else ""


class _Scene:
    """A request, as far as it is about tools and JSON."""

    def __init__(self, body: Mapping[str, Any], *, native: bool) -> None:
        messages = [one for one in _sequence(body.get("messages")) if isinstance(one, Mapping)]
        system = "\n".join(text_of(one) for one in messages if one.get("role") in ("system", "developer"))
        found, self._rules = _tools_in(system)
        self.written = tuple({tool.name: tool for tool in reversed(found)}.values())[::-1]
        choice = body.get("tool_choice") if native else None
        self.native = tuple(_native_tools(body)) if native and choice != "none" else ()
        turns = [turn for one in messages for turn in _turns(one)]
        self.complaints: list[str] = []
        while _complains(turns):
            self.complaints.append(plain_text(text_of(turns.pop())))
            if turns[-1].get("role") == "assistant":
                turns.pop()
        self.results = _results(turns)
        users = [plain_text(text_of(one)) for one in reversed(turns) if one.get("role") == "user"]
        latest = users if self.complaints or self.results else users[: _run_of_users(turns)]
        self.said = [text for text in map(_without_schema, latest) if text]
        self._last = "" if self.results else "".join(users[:1])
        if self.complaints:
            self._last = self.complaints[0]
        self._demanded = choice == "required" or isinstance(choice, Mapping)
        self._named = _name_in(choice)
        self._read_form(_mapping(body.get("response_format")) if native else {})

    def choice(self) -> OfferedTool | None:
        """The tool to call, if one is to be called."""
        tools = self.native or self.written
        demands = [line for text in (self._rules, self._last) for line in _SENTENCE.split(text) if _MUST_CALL in line]
        if not tools or (self.results and not any(_MUST_CALL in line for line in _SENTENCE.split(self._last))):
            return None
        if named := [tool for tool in tools if tool.name == self._named]:
            return named[0]
        named = [tool for tool in tools if any(_mentions(line, tool.name) for line in demands)]
        if len(named) == 1:
            return named[0]
        words = words_of(" ".join([*self.said, *(text for text in self.complaints if ANSWER_AGAIN not in text)]))
        best = max(tools, key=lambda tool: len(tool.words & words))
        return best if best.words & words or demands or self._demanded else None

    def _read_form(self, form: Mapping[str, Any]) -> None:
        """Whether the answer must be JSON, and of which schema (None: any object)."""
        self.schema: Any = _schema_in(self._last)
        if self.schema is None:
            self.schema = _schema_in(self._rules)
        if self.schema is None and form.get("type") == "json_schema":
            self.schema = _mapping(form.get("json_schema")).get("schema")
        lines = [line for text in (self._rules, self._last) for line in self._not_of_tools(text)]
        asked = any(_OBJECT in line for line in lines) or form.get("type") == "json_object"
        if self.schema is None and (asked or any(_SCHEMA in line for line in lines) or self._speaks_of_schemas()):
            self._find_schema()
        self.wants_json = self.schema is not None or asked or form.get("type") == "json_schema"

    def _not_of_tools(self, text: str) -> list[str]:
        """The sentences of a text, without those about tools: they too speak of JSON objects and of schemas."""
        return [line for line in _SENTENCE.split(text) if not (self.written and _OF_TOOLS.search(line))]

    def _speaks_of_schemas(self) -> bool:
        """Whether the prompt speaks of JSON and of a schema, in whatever words."""
        words = "\n".join(self._not_of_tools(self._rules)).lower()
        return "json" in words and "schema" in words

    def _find_schema(self) -> None:
        """Take the schema that stands anywhere in the prompt or in what the user said last."""
        self.schema = _schema_anywhere(self._rules)[0]
        if self.schema is not None:
            return
        self.schema, start, end = _schema_anywhere(self._last)
        if self.schema is not None:  # which, with the demand for JSON, is no material to fill it with
            around = _SENTENCE.split(f"{self._last[:start]}\n{self._last[end:]}")
            told = "\n".join(line for line in around if "json" not in line.lower()).strip()
            self.said = [text for text in (told if text == self._last else text for text in self.said) if text]


def _tools_in(text: str) -> tuple[list[OfferedTool], str]:
    """The tools described in a text, and the text without them."""
    tools: list[OfferedTool] = []
    rest: list[str] = []
    for line in text.split("\n"):
        tool = _tool(_json_in(line)) if '"name"' in line else None
        if tool is None:
            rest.append(line)
        else:
            tools.append(tool)
    return tools, "\n".join(rest)


def _native_tools(body: Mapping[str, Any]) -> Iterator[OfferedTool]:
    for one in _sequence(body.get("tools")):
        tool = _tool(one, bare=False)
        if tool is not None:
            yield tool


def _tool(value: Any, *, bare: bool = True) -> OfferedTool | None:
    described = _mapping(value)
    if isinstance(inner := described.get("function"), Mapping):
        described = inner
    elif not bare or not {"description", "parameters"} & described.keys():
        return None
    name = described.get("name")
    if not isinstance(name, str) or not name:
        return None
    parameters = _mapping(described.get("parameters"))
    texts = [name, str(described.get("description", "")), *map(str, _mapping(parameters.get("properties")))]
    return OfferedTool(name, parameters, words_of(" ".join(texts)))


def _call(tool: OfferedTool, scene: _Scene, number: int) -> Call:
    material = Material(scene.said, scene.complaints, dull=tool.words, start=number)
    arguments = filled({"type": "object", **tool.parameters}, material, everything=False)
    return Call(tool.name, dumped(arguments if isinstance(arguments, dict) else {}))


def _json_answer(scene: _Scene, *, fence: bool) -> str:
    material = Material(scene.said, scene.complaints)
    if scene.schema is None:
        found = find_and_calculate(scene.said[0]) if scene.said else None
        value: Any = {"answer": found[1] if found else material.word()}
    else:
        value = filled(scene.schema, material, everything=True)
    text = dumped(value)
    return f"Here is the JSON:\n```json\n{text}\n```" if fence else text


def _turns(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    role = message.get("role")
    if role == "user":
        return [{"role": role, "content": text} for text in split_turn(text_of(message))]
    return [message] if role in ("assistant", "tool") else []


def _complains(turns: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last turn is the user's complaint of the answer before it, which may have been empty."""
    if len(turns) < 2 or turns[-1].get("role") != "user":
        return False
    results, words = split_results(text_of(turns[-1]))
    if results:
        return False
    return ANSWER_AGAIN in words or (
        len(turns) > 2 and turns[-2].get("role") == "assistant" and _MUST.search(words) is not None
    )


def _run_of_users(turns: Sequence[Mapping[str, Any]]) -> int:
    """How many user turns stand at the end."""
    count = 0
    while count < len(turns) and turns[-1 - count].get("role") == "user":
        count += 1
    return count


def _results(turns: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Name and content of each result that the last turn is made of; none, if the user has said more."""
    if turns and turns[-1].get("role") == "user":
        blocks, words = split_results(text_of(turns[-1]))
        return [] if words.strip() else [_result(block) for block in blocks]
    names: dict[Any, str] = {}
    results: list[tuple[str, str]] = []
    for turn in turns:
        if turn.get("role") == "tool":
            call = turn.get("tool_call_id")
            results.append((names.get(call, "tool") if isinstance(call, str) else "tool", text_of(turn)))
            continue
        results.clear()
        for call in map(_mapping, _sequence(turn.get("tool_calls"))):
            if isinstance(call.get("id"), str):
                names[call["id"]] = str(_mapping(call.get("function")).get("name", "tool"))
    return results


def _result(block: str) -> tuple[str, str]:
    value = _mapping(_decoded(block))
    if "content" not in value:
        return "tool", block
    content = value["content"]
    return str(value.get("name", "tool")), content if isinstance(content, str) else dumped(content)


def _told(result: tuple[str, str]) -> str:
    name, content = result
    shown = content if len(content) <= _MAX_SHOWN else f"{content[:_MAX_SHOWN]}…"
    return f"The tool {name} says: {shown}"


def _schema_in(text: str) -> Any:
    """The schema on a line that says that it is one, or on the next line; None if there is none."""
    introduced = False
    for line in text.split("\n"):
        if _SCHEMA in line:
            introduced = True
        if not introduced or not line.strip() or line.startswith("```"):
            continue
        value = _json_in(line)
        if isinstance(value, dict) and _tool(value) is None:
            return value
        introduced = _SCHEMA in line
    return None


def _schema_anywhere(text: str) -> tuple[Any, int, int]:
    """The first JSON object in a text that is a schema, with where it begins and ends; None if there is none.

    It may take several lines, and have words, tags or a fence around it. What declares a tool is passed over.
    """
    place = -1
    for _ in range(_MAX_PLACES):
        place = text.find("{", place + 1)
        if place < 0:
            break
        try:
            value, end = json.JSONDecoder().raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        if _DECLARING & value.keys():
            place = end - 1
        elif isinstance(value.get("properties"), dict) or isinstance(value.get("$defs"), dict):
            return value, place, end
    return None, 0, 0


def _without_schema(text: str) -> str:
    """The text without the lines about a schema: they are no material to fill it with."""
    if (schema := _schema_in(text)) is None:
        return text
    lines = (line for line in text.split("\n") if _SCHEMA not in line)
    return "\n".join(line for line in lines if _json_in(line) != schema).strip()


def _name_in(choice: Any) -> str:
    name = _mapping(_mapping(choice).get("function")).get("name")
    return name if isinstance(name, str) else ""


def _mentions(line: str, name: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", line) is not None


def _json_in(line: str) -> Any:
    """The JSON object on a line, whatever stands around it; None if there is none."""
    start, end = line.find("{"), line.rfind("}")
    return _decoded(line[start : end + 1]) if 0 <= start < end else None


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
