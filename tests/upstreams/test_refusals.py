"""Each refusal that was recorded or reported falls into its class."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k2think import errors
from k2think.upstreams.refusals import MAX_MESSAGE, Speaker, error_in_answer, error_of_status, read_refusal

PAGE = b"<html><head><title>405</title></head></html>"
OWN = b'{"detail":"401 Unauthorized"}'
PASSED_THROUGH = b'{"error":{"message":"Incorrect API key provided.","code":"x"}}'


def classify(status: int, body: bytes, *, owns: Speaker = Speaker.SERVICE, **headers: str) -> errors.UpstreamError:
    return error_of_status(status, {k.replace("_", "-"): v for k, v in headers.items()}, body, owns_tokens=owns, now=0)


@pytest.mark.parametrize(
    ("status", "body", "kind", "given"),
    [
        (401, OWN, errors.CredentialRejected, 502),
        (403, b'{"detail":"Not authenticated"}', errors.CredentialRejected, 502),
        (401, b"", errors.CredentialRejected, 502),
        (401, PASSED_THROUGH, errors.UpstreamUnavailable, 502),
        (403, PASSED_THROUGH, errors.UpstreamUnavailable, 502),
        (403, PAGE, errors.EdgeBlocked, 503),
        (405, PAGE, errors.EdgeBlocked, 503),
        (405, b'{"detail":"Method Not Allowed"}', errors.UpstreamUnavailable, 502),
        (429, b'{"detail":"x"}', errors.QuotaExceeded, 429),
        (529, b"", errors.QuotaExceeded, 429),
        (408, b"{}", errors.UpstreamTimeout, 504),
        (500, b'{"detail":"Open WebUI: Server Connection Error"}', errors.UpstreamUnavailable, 502),
        (502, PAGE, errors.UpstreamUnavailable, 502),
        (503, b"", errors.UpstreamUnavailable, 503),
        (504, b"", errors.UpstreamUnavailable, 504),
        (400, b'{"detail":"Model not found"}', errors.UpstreamModelUnknown, 404),
        (403, b'{"detail":"Model not found"}', errors.UpstreamModelUnknown, 404),
        (404, b'{"detail":"Model \'\' was not found"}', errors.UpstreamUnavailable, 502),
        (404, b'{"error":{"message":"no","code":"model_not_found"}}', errors.UpstreamModelUnknown, 404),
        (404, b'{"object":"error","message":"no","type":"NotFoundError","code":404}', errors.UpstreamModelUnknown, 404),
        (404, PAGE, errors.UpstreamUnavailable, 502),
        (302, b"", errors.UpstreamUnavailable, 502),
        (400, b'{"detail":"bad"}', errors.RequestRefused, 400),
        (410, b'{"error":{"message":"gone","code":"deprecated_model_error"}}', errors.RequestRefused, 410),
        (413, b'{"error":{"message":"large"}}', errors.RequestRefused, 413),
        (422, b'{"detail":[{"msg":"x"}]}', errors.RequestRefused, 400),
    ],
)
def test_a_refusal_of_the_web_service_falls_into_its_class(
    status: int, body: bytes, kind: type[errors.UpstreamError], given: int
) -> None:
    error = classify(status, body)
    assert type(error) is kind
    assert error.status == given


def test_an_openai_compatible_server_speaks_of_our_key_itself() -> None:
    assert type(classify(401, PASSED_THROUGH, owns=Speaker.MODEL_SERVER)) is errors.CredentialRejected


def test_a_retry_after_is_carried_on() -> None:
    assert classify(429, b"{}", retry_after="7").retry_after == 7
    assert classify(503, b"", retry_after="7").headers == {"retry-after": "7"}


@pytest.mark.parametrize("status", [408, 429, 500, 503, 529])
def test_a_wait_is_found_wherever_the_upstream_says_it(status: int) -> None:
    assert classify(status, b"", x_ratelimit_reset_tokens="1m1s").retry_after == 61
    assert classify(status, b'{"error":{"message":"Please try again in 20s."}}').retry_after == 20
    assert classify(status, b'{"detail":"API rate limit exceeded"}').retry_after is None


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        ({"message": "Try again in 1.5s.", "code": "rate_limit_exceeded"}, errors.QuotaExceeded),
        ({"message": "Overloaded.", "retry_after": 1.5}, errors.UpstreamUnavailable),
        ({"detail": "Please retry after 1.5 seconds"}, errors.UpstreamUnavailable),
    ],
)
def test_a_wait_is_found_in_an_error_inside_an_answer(found: Any, kind: type[errors.UpstreamError]) -> None:
    error = error_in_answer(found)
    assert type(error) is kind
    assert error.retry_after == 1.5


LITERAL = (
    "[{'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), 'msg': 'Input should be text', "
    "'input': {'tools': []}}]"
)
IN_MESSAGES = "[{'type': 'missing', 'loc': ('body', 'messages', 0, 'role'), 'msg': 'x', 'input': {'tools': []}}]"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        # Where the upstream says it itself.
        ({"error": {"message": "no", "param": "messages[0].content"}}, "messages[0].content"),
        ({"error": {"message": "tools are broken", "param": "response_format"}}, "response_format"),
        ({"message": "no", "type": "BadRequestError", "param": "tool_choice", "code": 400}, "tool_choice"),
        ({"detail": [{"type": "extra_forbidden", "loc": ["body", "tools"], "msg": "no"}]}, "tools"),
        ({"detail": [{"loc": ["body", "tools", 0, "function"], "msg": "no"}, {"loc": ["body", "n"]}]}, "tools"),
        (
            {"detail": [{"loc": ["body"]}, {"loc": ["query", "q"]}, {"loc": ["body", "response_format"]}]},
            "response_format",
        ),
        # Where only the message does.
        (
            {
                "object": "error",
                "message": '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
                "param": None,
            },
            "tools",
        ),
        ({"error": {"message": "registry.example/x:7b does not support tools", "param": None}}, "tools"),
        ({"error": {"message": "Function calling is not enabled for this model"}}, "tools"),
        ({"error": "Unsupported parameter: 'parallel_tool_calls'"}, "parallel_tool_calls"),
        ({"error": {"message": 'tool_choice="required" needs a parser for tools'}}, "tool_choice"),
        ({"error": {"message": "This response_format type is unavailable now"}}, "response_format"),
        ({"error": {"message": "JSON mode is not supported"}}, "response_format"),
        ({"error": {"message": "guided_json needs another backend"}}, "response_format"),
        ({"error": {"message": "Structured outputs are off"}}, "response_format"),
        ({"detail": "unknown field json_schema"}, "response_format"),
        ({"message": "json mode cannot be combined with tool calling"}, "response_format"),
        ({"message": LITERAL}, "response_format"),
        ({"message": IN_MESSAGES}, "messages"),
        # Where nobody can tell.
        ({"error": {"message": "An assistant message with 'tool_calls' must be followed by tool messages"}}, None),
        ({"error": {"message": "maximum context length is 9 (5 in the messages, 6 in the tools)"}}, None),
        ({"error": {"message": "The prompt with its tools is too long"}}, None),
        ({"detail": [{"loc": ["body", 17], "msg": "JSON decode error", "input": {"tools": []}}]}, None),
        ({"error": {"message": {"tools": []}, "param": {"tools": 1}}}, None),
        ({"error": {"message": "toolshed misguided", "param": "x y\n"}}, None),
        ({"error": {"message": "x" * 5000 + " tools"}}, None),
        ({"error": {"message": "no", "param": "x" * 5000}}, None),
    ],
)
def test_a_refused_request_says_which_field_it_is_about_if_that_can_be_told(
    body: dict[str, Any], param: str | None
) -> None:
    for status in (400, 422):
        error = classify(status, json.dumps(body).encode(), owns=Speaker.MODEL_SERVER)
        assert type(error) is errors.RequestRefused
        assert (error.param, error.status) == (param, 400)


IN_TOOLS = "[{'type': 'missing', 'loc': ('body', 'tools', 0, 'type'), 'msg': 'extra_forbidden is not supported'}]"
REPEATED = (
    "[{'type': 'value_error', 'loc': ('body',), 'msg': 'Value error, When using `tool_choice`, `tools` must be set.', "
    "'input': {'messages': [{'role': 'user', 'content': 'Tools are not supported.'}]}}]"
)
FORBIDDEN = "[{'type': 'extra_forbidden', 'loc': ('body', 'tools'), 'msg': 'Extra inputs are not permitted'}]"


@pytest.mark.parametrize(
    "words",
    [
        "registry.example/x:7b does not support tools",
        "tools is not supported in this model.",
        "Tool calling is not supported for model: x",
        "Function calling is not enabled for this model",
        "The model doesn't support tool use.",
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
        "tools param requires --jinja flag",
        'tool_choice = "required" is not supported!',
        "Unsupported parameter: 'parallel_tool_calls' is not supported with this model.",
        "Unrecognized request argument supplied: tools",
        "Unknown parameter: 'response_format'.",
        "1 validation error for Request\ntools\n  Extra inputs are not permitted [type=extra_forbidden, input_value=[{",
        "This response_format type is unavailable now",
        "'response_format.type' must be 'json_schema'",
        "`response_format` of type 'json_schema' is not supported",
        "This model does not support response_format",
        "JSON mode is not supported",
        "Structured outputs are not supported",
        "json mode cannot be combined with tool calling",
        "This parameter is not supported.",
        LITERAL,
        FORBIDDEN,
    ],
)
def test_an_upstream_may_say_that_it_cannot_do_something_at_all(words: str) -> None:
    bodies = [{"error": {"message": words}}, {"error": words}, {"message": words}, {"detail": words}, words]
    for body in bodies:
        error = classify(400, json.dumps(body).encode(), owns=Speaker.MODEL_SERVER)
        assert isinstance(error, errors.RequestRefused)
        assert error.unsupported
    inside = error_in_answer({"message": words, "code": "validation_error"})
    assert isinstance(inside, errors.RequestRefused)
    assert inside.unsupported


@pytest.mark.parametrize(
    "words",
    [
        "no",
        "When using `tool_choice`, `tools` must be set.",
        "`tool_choice` must either be a named tool or 'auto'",
        "Unsupported value: 'tool_choice' does not support 'required' with this model.",
        "Invalid schema for response_format 'p': In context=(), 'oneOf' is not permitted.",
        "Invalid schema for function 'f': 'format' is not supported",
        "The provided JSON schema contains features not supported by the backend.",
        "'minLength' is not supported in response_format schema",
        "json_schema uses minLength which is not supported",
        "'response_format.json_schema.schema' must be an object",
        "tools: array too long. Expected an array with maximum length 128, but got 129",
        "[] is too short - 'tools'",
        "Unknown parameter: 'tools[0].function.strict'.",
        "Missing required parameter: 'tools[0].type'",
        "The prompt with its tools is too long: not supported",
        REPEATED,
        IN_TOOLS,
        IN_MESSAGES,
    ],
)
def test_a_mistake_of_one_client_is_not_taken_for_that(words: str) -> None:
    for body in ({"error": {"message": words, "param": "tools"}}, {"error": words}, {"detail": words}, words):
        error = classify(400, json.dumps(body).encode(), owns=Speaker.MODEL_SERVER)
        assert isinstance(error, errors.RequestRefused)
        assert not error.unsupported


@pytest.mark.parametrize(
    ("body", "unsupported"),
    [
        ({"error": {"message": "Invalid value: 'json_schema'.", "param": "response_format.type"}}, True),
        ({"error": {"message": "Invalid value.", "param": "response_format"}}, False),
        ({"error": {"message": {"tools": "are not supported"}, "param": "tools"}}, False),
        ({"detail": [{"type": "extra_forbidden", "loc": ["body", "tools"], "msg": "no"}]}, True),
        ({"detail": [{"type": "missing", "loc": ["body", "tools"], "msg": "no"}]}, False),
        ({"detail": [{"type": "extra_forbidden", "loc": ["body", "tools", 0, "x"], "msg": "no"}]}, False),
        ({"detail": [{"type": "literal_error", "loc": ["body", "response_format", "type"], "msg": "no"}]}, True),
        ({"detail": [{"loc": ["body", "messages"]}, {"type": "extra_forbidden", "loc": ["body", "tools"]}]}, False),
    ],
)
def test_a_place_tells_as_well_whether_it_is_unknown(body: dict[str, Any], unsupported: bool) -> None:
    error = classify(422, json.dumps(body).encode(), owns=Speaker.MODEL_SERVER)
    assert isinstance(error, errors.RequestRefused)
    assert error.unsupported is unsupported


def test_a_text_may_name_the_field_as_well() -> None:
    assert classify(400, b"tools are not supported").param == "tools"
    assert classify(400, b'"tools are not supported"').param == "tools"
    assert classify(400, b"").param is None


def test_errors_about_anything_else_name_no_field() -> None:
    body = b'{"error":{"message":"tools failed","param":"tools"}}'
    assert {classify(status, body).param for status in (401, 408, 429, 500, 503)} == {None}


def test_a_refusal_inside_an_answer_names_its_field_too() -> None:
    found = {"message": "no", "code": "validation_error", "param": "response_format"}
    assert error_in_answer(found).param == "response_format"


def test_a_refusing_proxy_of_ours_is_named() -> None:
    error = classify(407, PAGE)
    assert type(error) is errors.UpstreamUnavailable
    assert "PROXY_URL" in error.message


def test_a_body_nested_without_end_is_nothing_readable() -> None:
    assert read_refusal(b"[" * 60_000).speaker is Speaker.NOBODY
    # How deep is too deep depends on the Python.
    deep = read_refusal(b'{"error":' * 7_000 + b"1" + b"}" * 7_000)
    assert deep.speaker in {Speaker.NOBODY, Speaker.MODEL_SERVER}


def test_long_messages_are_cut() -> None:
    assert len(classify(400, b'{"detail":"' + b"x" * 10_000 + b'"}').message) < MAX_MESSAGE + 100
