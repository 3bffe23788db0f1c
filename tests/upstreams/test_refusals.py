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
    for body in (b"[" * 60_000, b'{"error":' * 7_000 + b"1" + b"}" * 7_000):
        assert read_refusal(body).speaker is Speaker.NOBODY


def test_long_messages_are_cut() -> None:
    assert len(classify(400, b'{"detail":"' + b"x" * 10_000 + b'"}').message) < MAX_MESSAGE + 100
