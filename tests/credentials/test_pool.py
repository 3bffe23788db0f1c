"""The pool, as far as it goes: in turn, around dead and resting tokens, and honest about why there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2think.credentials.credential import Credential
from k2think.credentials.pool import MAX_COOLDOWN, Pool
from k2think.credentials.sources import TokenFileUnreadable, parse_tokens, read_tokens
from k2think.errors import CredentialRejected, EdgeBlocked, NoCredential, QuotaExceeded, UpstreamUnavailable

A, B, C = (Credential.of(secret) for secret in ("secret-a", "secret-b", "secret-c"))
REJECTED = CredentialRejected("no")


def pool(*credentials: Credential) -> Pool:
    return Pool(credentials, max_failures=3)


def test_tokens_are_used_in_turn() -> None:
    turning = pool(A, B, C)
    assert [turning.lease(0) for _ in range(7)] == [A, B, C, A, B, C, A]


def test_a_token_that_was_tried_is_not_given_again() -> None:
    turning = pool(A, B)
    assert turning.lease(0, {A.id}) == B
    assert turning.lease(0, {A.id}) == B
    with pytest.raises(NoCredential, match="every token that was tried") as none:
        turning.lease(0, {A.id, B.id})
    assert none.value.status == 503


def test_three_rejections_disable_a_token_and_a_success_clears_the_count() -> None:
    turning = pool(A, B)
    turning.failed(A, REJECTED, 0)
    turning.failed(A, REJECTED, 0)
    turning.succeeded(A)
    turning.failed(A, REJECTED, 0)
    turning.failed(A, REJECTED, 0)
    assert turning.summary(0).active == 2
    turning.failed(A, REJECTED, 0)
    assert turning.summary(0).disabled == 1
    assert [turning.lease(0) for _ in range(2)] == [B, B]


@pytest.mark.parametrize("error", [UpstreamUnavailable("x"), EdgeBlocked("x"), QuotaExceeded("x", retry_after=1)])
def test_what_is_not_the_tokens_fault_never_disables_it(error: UpstreamUnavailable) -> None:
    turning = pool(A)
    for _ in range(10):
        turning.failed(A, error, 0)
    assert turning.summary(2).active == 1


def test_a_rate_limited_token_rests_as_long_as_it_was_told() -> None:
    turning = pool(A, B)
    turning.failed(A, QuotaExceeded("x", retry_after=10), 0)
    turning.failed(A, QuotaExceeded("x", retry_after=20), 0)
    turning.failed(A, QuotaExceeded("x", retry_after=5), 0)
    assert turning.lease(19.9) == B
    assert turning.lease(19.9) == B
    assert {turning.lease(20), turning.lease(20)} == {A, B}


def test_a_rest_is_never_longer_than_an_hour() -> None:
    turning = pool(A)
    turning.failed(A, QuotaExceeded("x", retry_after=10**9), 0)
    assert turning.lease(MAX_COOLDOWN) == A


def test_when_all_rest_the_error_says_for_how_long() -> None:
    turning = pool(A, B)
    turning.failed(A, QuotaExceeded("x", retry_after=30), 0)
    turning.failed(B, QuotaExceeded("x", retry_after=10), 0)
    with pytest.raises(NoCredential) as none:
        turning.lease(4)
    assert (none.value.status, none.value.headers) == (429, {"retry-after": "6"})


def test_an_empty_pool_and_a_dead_one_say_so() -> None:
    with pytest.raises(NoCredential, match="no upstream token"):
        pool().lease(0)
    dead = pool(A)
    for _ in range(3):
        dead.failed(A, REJECTED, 0)
    with pytest.raises(NoCredential, match="rejected all tokens"):
        dead.lease(0)


def test_a_secret_shows_in_no_text_of_a_credential() -> None:
    assert "secret" not in f"{A} {A!r} {[A]!r} {A.id}"


def test_a_token_file_holds_one_token_a_line(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    path.write_bytes(b"\xef\xbb\xbf# mine\r\nsecret-a\r\n\r\n  secret-b  \nsecret-a\n")
    assert read_tokens(path) == (A, B)
    assert read_tokens(tmp_path / "missing") == ()
    assert parse_tokens(["#x", "", " "]) == ()


def test_a_file_that_is_no_token_file_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TokenFileUnreadable, match="UTF-8"):
        read_tokens(path)
    with pytest.raises(TokenFileUnreadable, match="cannot be read"):
        read_tokens(tmp_path)
