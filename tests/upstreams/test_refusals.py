"""Each refusal that was recorded or reported falls into its class."""

from __future__ import annotations

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


def test_a_refusing_proxy_of_ours_is_named() -> None:
    error = classify(407, PAGE)
    assert type(error) is errors.UpstreamUnavailable
    assert "PROXY_URL" in error.message


def test_a_body_nested_without_end_is_nothing_readable() -> None:
    for body in (b"[" * 60_000, b'{"error":' * 7_000 + b"1" + b"}" * 7_000):
        assert read_refusal(body).speaker is Speaker.NOBODY


def test_long_messages_are_cut() -> None:
    assert len(classify(400, b'{"detail":"' + b"x" * 10_000 + b'"}').message) < MAX_MESSAGE + 100
