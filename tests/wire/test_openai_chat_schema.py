"""The request body: everything that OpenAI's schema allows is taken, anything else is refused by the field's name."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2think.errors import InvalidRequest
from k2think.wire.openai_chat.inbound import to_question
from k2think.wire.openai_chat.schema import ChatRequest, decode

SCHEMAS = Path(__file__).resolve().parents[2].parent / "shared" / "openai-schemas"
published = pytest.mark.skipif(not SCHEMAS.is_dir(), reason="OpenAI's published schemas are not here")

MINIMAL: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def body(**fields: Any) -> bytes:
    return json.dumps(MINIMAL | fields).encode()


def refusal(raw: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decode(raw)
    assert caught.value.status == 400
    assert caught.value.type == "invalid_request_error"
    return caught.value


def message(**fields: Any) -> bytes:
    """A body whose second message this is."""
    return body(messages=[{"role": "user", "content": "Hello"}, fields])


class Examples:
    """Instances of a JSON Schema that between them use each alternative, each property and each bound."""

    def __init__(self, schema: dict[str, Any], *, nulls: bool = False) -> None:
        self._defs = schema["$defs"]
        self._nulls = nulls  # for optional properties too that the schema does not call nullable

    def of(self, schema: dict[str, Any]) -> Iterator[Any]:
        if "$ref" in schema:
            yield from self.of(self._defs[schema["$ref"].removeprefix("#/$defs/")])
        elif alternatives := schema.get("anyOf") or schema.get("oneOf"):
            for alternative in alternatives:
                yield from self.of(alternative)
        elif "enum" in schema:
            yield from schema["enum"]
        else:
            types = schema.get("type", "object")
            for type_ in [types] if isinstance(types, str) else types:
                yield from getattr(self, f"_{type_}")(schema)

    def _null(self, _: dict[str, Any]) -> Iterator[None]:
        yield None

    def _boolean(self, _: dict[str, Any]) -> Iterator[bool]:
        yield from (True, False)

    def _string(self, _: dict[str, Any]) -> Iterator[str]:
        yield from ("text", 'Grüße, 世界 🌍\n"quoted" \\ \u2028', "")

    def _integer(self, schema: dict[str, Any]) -> Iterator[int | float]:
        bounds = schema.get("minimum", 1), schema.get("maximum", 100)
        yield from bounds
        yield from map(float, bounds)

    def _number(self, schema: dict[str, Any]) -> Iterator[float]:
        low, high = schema["minimum"], schema["maximum"]
        yield from (low, high, (low + high) / 2)

    def _array(self, schema: dict[str, Any]) -> Iterator[list[Any]]:
        items = list(self.of(schema["items"]))
        yield from ([item] for item in items)
        if "maxItems" not in schema:
            yield items

    def _object(self, schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
        properties = self.properties(schema)
        if not properties:
            values = (
                self.of(schema["additionalProperties"]) if isinstance(schema.get("additionalProperties"), dict) else ()
            )
            yield from ({}, *({"key": value} for value in values))
            return
        required = {name for part in (schema, *schema.get("allOf", ())) for name in part.get("required", ())}
        unknown = {} if schema.get("additionalProperties") is False else {"from_the_future": {"a": [1, None]}}
        least = unknown | {name: next(self.of(properties[name])) for name in properties if name in required}
        yield least
        yield unknown | {name: next(self.of(value)) for name, value in properties.items()}
        for name, value in properties.items():
            yield from (least | {name: example} for example in self.of(value))
            if self._nulls and name not in required:
                yield least | {name: None}

    def properties(self, schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        if "$ref" in schema:
            found |= self.properties(self._defs[schema["$ref"].removeprefix("#/$defs/")])
        for part in schema.get("allOf", ()):
            found |= self.properties(part)
        found |= schema.get("properties", {})
        return found


@functools.cache
def request_schema() -> dict[str, Any]:
    """OpenAI's, with the bounds that its descriptions give in words, and ours for `n`."""
    schema: dict[str, Any] = json.loads((SCHEMAS / "CreateChatCompletionRequest.json").read_bytes())
    bounds = schema["$defs"]["CreateChatCompletionRequest"]["allOf"][1]["properties"]
    bounds["n"]["maximum"] = 8
    bounds["logit_bias"]["additionalProperties"] |= {"minimum": -100, "maximum": 100}
    bounds["seed"] |= {"minimum": -(2**53), "maximum": 2**53}
    return schema


def properties() -> dict[str, dict[str, Any]]:
    return Examples(request_schema()).properties(request_schema())


@published
def test_every_example_of_every_property_in_openai_s_schema_is_accepted() -> None:
    schema = request_schema()
    oracle = jsonschema_rs.validator_for(schema)
    count = 0
    for name, property_ in properties().items():
        for example in Examples(schema).of(property_):
            request = MINIMAL | {name: example}
            # OpenAI's document allows this null in one place and forbids it in another.
            assert oracle.is_valid(request) or (name, example) == ("top_logprobs", None)
            assert isinstance(decode(json.dumps(request).encode()), ChatRequest)
            count += 1
    assert count > 300


@published
def test_null_is_accepted_wherever_a_field_may_be_left_out() -> None:
    schema = request_schema()
    for name, property_ in properties().items():
        if name not in {"model", "messages"}:
            decode(body(**{name: None}))
        for example in Examples(schema, nulls=True).of(property_):
            decode(body(**{name: example}))


@published
def test_all_properties_at_once_are_accepted() -> None:
    schema = request_schema()
    everything = {name: next(Examples(schema).of(property_)) for name, property_ in properties().items()}
    jsonschema_rs.validator_for(schema).validate(everything)
    assert len(everything) > 35
    decode(json.dumps(everything).encode())


@published
def test_every_example_is_translated_or_refused_by_the_name_of_a_field_that_cannot_be_honoured() -> None:
    unsupported = {"modalities", "audio", "logprobs", "top_logprobs"}
    refused: set[str] = set()
    for name, property_ in properties().items():
        for example in Examples(request_schema()).of(property_):
            try:
                to_question(decode(body(**{name: example})), default_reasoning="parsed")
            except InvalidRequest as error:
                refused.add(name if str(error.param).startswith(name) else f"{name} as {error.param}")
    # Parts that are no text; empty stop sequences; names with blanks and custom tools; choices without tools.
    assert refused == unsupported | {"messages", "stop", "tools", "functions", "tool_choice", "function_call"}


def test_fields_are_decoded() -> None:
    request = decode(
        body(
            temperature=1,
            n=2.0,
            stop=["a", "b"],
            logit_bias={"50256": -100},
            reasoning_format="raw",
            tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}],
            response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "array"}}},
        )
    )
    assert (request.model, request.temperature, request.n, request.stop) == ("m", 1.0, 2, ["a", "b"])
    assert request.logit_bias == {"50256": -100.0}
    assert request.reasoning_format == "raw"
    assert request.tools is not None
    assert getattr(request.tools[0], "function").parameters == {"type": "object"}  # noqa: B009
    assert getattr(request.response_format, "json_schema").schema == {"type": "array"}  # noqa: B009


def test_the_role_may_stand_behind_the_content() -> None:
    assert decode(body(messages=[{"content": "Hello", "role": "user"}])).messages == decode(body()).messages


@pytest.mark.parametrize(
    ("raw", "param", "code"),
    [
        (b'{"messages":[{"role":"user","content":"x"}]}', "model", "missing_required_parameter"),
        (b'{"model":"m"}', "messages", "missing_required_parameter"),
        (body(model=None), "model", "invalid_type"),
        (body(messages=[]), "messages", "invalid_value"),
        (body(messages="Hello"), "messages", "invalid_type"),
        (body(messages={"role": "user"}), "messages", "invalid_type"),
        (body(messages=["Hello"]), "messages[0]", "invalid_type"),
        (message(content="x"), "messages[1].role", "missing_required_parameter"),
        (message(role="robot", content="x"), "messages[1].role", "invalid_value"),
        (message(role=7, content="x"), "messages[1].role", "invalid_type"),
        (message(role="user"), "messages[1].content", "missing_required_parameter"),
        (message(role="user", content=None), "messages[1].content", "invalid_type"),
        (message(role="user", content=5), "messages[1].content", "invalid_type"),
        (message(role="user", content=["x"]), "messages[1].content[0]", "invalid_type"),
        (message(role="user", content=[{"type": "text"}]), "messages[1].content[0].text", "missing_required_parameter"),
        (message(role="user", content=[{"text": "x"}]), "messages[1].content[0].type", "missing_required_parameter"),
        (message(role="user", content=[{"type": "smell"}]), "messages[1].content[0].type", "invalid_value"),
        (message(role="tool", content="x"), "messages[1].tool_call_id", "missing_required_parameter"),
        (message(role="function", content="x"), "messages[1].name", "missing_required_parameter"),
        (
            message(role="assistant", tool_calls=[{"type": "function", "id": "1", "function": {"name": "f"}}]),
            "messages[1].tool_calls[0].function.arguments",
            "missing_required_parameter",
        ),
        (
            message(
                role="assistant",
                tool_calls=[{"type": "function", "id": "1", "function": {"name": "f", "arguments": {}}}],
            ),
            "messages[1].tool_calls[0].function.arguments",
            "invalid_type",
        ),
        (body(temperature=2.1), "temperature", "invalid_value"),
        (body(temperature=-0.1), "temperature", "invalid_value"),
        (body(temperature="hot"), "temperature", "invalid_type"),
        (body(temperature=True), "temperature", "invalid_type"),
        (body(top_p=1.1), "top_p", "invalid_value"),
        (body(top_p=-1), "top_p", "invalid_value"),
        (body(presence_penalty=2.5), "presence_penalty", "invalid_value"),
        (body(frequency_penalty=-3), "frequency_penalty", "invalid_value"),
        (body(n=0), "n", "invalid_value"),
        (body(n=9), "n", "invalid_value"),
        (body(n=9.0), "n", "invalid_value"),
        (body(n=1.5), "n", "invalid_type"),
        (body(n="2"), "n", "invalid_type"),
        (body(max_tokens=0), "max_tokens", "invalid_value"),
        (body(max_completion_tokens=-1), "max_completion_tokens", "invalid_value"),
        (body(max_tokens=10**30), "max_tokens", "invalid_value"),
        (body(seed=2**70), "seed", "invalid_value"),
        (body(seed="lucky"), "seed", "invalid_type"),
        (body(stop=["1", "2", "3", "4", "5"]), "stop", "invalid_value"),
        (body(stop=[1]), "stop[0]", "invalid_type"),
        (body(stop=1), "stop", "invalid_type"),
        (body(logit_bias={"1": 101}), "logit_bias", "invalid_value"),
        (body(logit_bias=[]), "logit_bias", "invalid_type"),
        (body(top_logprobs=21), "top_logprobs", "invalid_value"),
        (body(stream="yes"), "stream", "invalid_type"),
        (body(stream_options={"include_usage": 1}), "stream_options.include_usage", "invalid_type"),
        (body(user=5), "user", "invalid_type"),
        (body(reasoning_format="loud"), "reasoning_format", "invalid_value"),
        (body(reasoning_effort=3), "reasoning_effort", "invalid_type"),
        (body(tools={}), "tools", "invalid_type"),
        (body(tools=[{"type": "function", "function": {"name": "f"}}] * 1025), "tools", "invalid_value"),
        (body(functions=[{"name": "f"}] * 1025), "functions", "invalid_value"),
        (body(tools=[{"type": "hammer"}]), "tools[0].type", "invalid_value"),
        (body(tools=[{"type": "function"}]), "tools[0].function", "missing_required_parameter"),
        (body(tools=[{"type": "function", "function": {}}]), "tools[0].function.name", "missing_required_parameter"),
        (body(tool_choice="maybe"), "tool_choice", "invalid_value"),
        (body(tool_choice={"type": "function"}), "tool_choice.function", "missing_required_parameter"),
        (body(response_format={"type": "yaml"}), "response_format.type", "invalid_value"),
        (body(response_format={"type": "json_schema"}), "response_format.json_schema", "missing_required_parameter"),
        (body(modalities=["smell"]), "modalities[0]", "invalid_value"),
        (body(temperature=0).replace(b'"temperature": 0', b'"temperature": 1e999'), "temperature", "invalid_value"),
    ],
)
def test_a_wrong_field_is_refused_by_its_path(raw: bytes, param: str, code: str) -> None:
    error = refusal(raw)
    assert (error.param, error.code) == (param, code)
    assert f"'{param}'" in error.message


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (body(temperature="hot"), "Invalid type for 'temperature': expected number, but got string instead."),
        (body(temperature=3), "Invalid 'temperature': expected a value <= 2."),
        (body(n=1.5), "Invalid 'n': expected a whole number."),
        (body(max_tokens="x"), "Invalid type for 'max_tokens': expected integer, but got string instead."),
        (body(messages=[]), "Invalid 'messages': expected an array of length >= 1."),
        (b'{"model":"m"}', "Missing required parameter: 'messages'."),
        (
            body(reasoning_format="loud"),
            "Invalid value for 'reasoning_format': 'loud'. Supported values are: 'parsed', 'raw', 'hidden'.",
        ),
        (
            message(role="robot"),
            (
                "Invalid value for 'messages[1].role': 'robot'. "
                "Supported values are: 'developer', 'system', 'user', 'assistant', 'tool', 'function'."
            ),
        ),
    ],
)
def test_the_message_says_what_is_wrong(raw: bytes, text: str) -> None:
    assert refusal(raw).message == text


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "ends too early"),
        (b'{"model":"m"', "ends too early"),
        (b"model=m", "not valid JSON"),
        (body() + b"}", "trailing characters"),
        (b"\xff\xfe{\x00}\x00", "not valid JSON"),
        (b'{"model":"\xff"}', "not valid UTF-8"),
        (b'{"model":"\\ud800 half a surrogate pair"}', "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(raw: bytes, says: str) -> None:
    error = refusal(raw)
    assert says in error.message
    assert error.param is None


@pytest.mark.parametrize("field", ["ignored", "tools"])
def test_a_body_that_is_nested_too_deeply_is_refused(field: str) -> None:
    deep = b"[" * 100_000 if field == "ignored" else b'[{"type":"function","function":' + b'{"parameters":' * 100_000
    raw = body(**{field: None}).replace(b"null}", deep)
    assert "nested too deeply" in refusal(raw).message


def test_a_long_wrong_value_is_not_repeated_whole() -> None:
    assert len(refusal(message(role="r" * 1_000_000, content="x")).message) < 400


def test_a_wrong_value_cannot_pass_itself_off_as_a_path() -> None:
    assert refusal(message(role="x' - at `$.model`", content="x")).param == "messages[1].role"


@settings(deadline=None)  # a busy machine is no fault
@given(st.binary(max_size=60))
def test_whatever_the_bytes_only_an_invalid_request_is_raised(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("type", "role", "name")), inner),
    max_leaves=6,
)


@settings(deadline=None)  # a busy machine is no fault
@given(st.sampled_from(ChatRequest.__struct_fields__), json_values)
def test_whatever_a_field_holds_it_is_taken_or_refused_by_its_own_name(field: str, value: Any) -> None:
    param = field
    try:
        to_question(decode(json.dumps(MINIMAL | {field: value}).encode()), default_reasoning="parsed")
    except InvalidRequest as error:
        param = str(error.param)
    assert param.startswith(field)
