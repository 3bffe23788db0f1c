"""The book of accounts: each way from state to state, when a sign-in is due, and what a restart keeps."""

from __future__ import annotations

import random

import msgspec
import pytest

from k2think.credentials.account_book import (
    FIRST_BACKOFF,
    FRESH,
    LIMITED_FOR,
    MAX_BACKOFF,
    MIN_BETWEEN,
    AccountBook,
    Ledger,
    Record,
)
from k2think.credentials.credential import Account, Credential
from k2think.errors import QuotaExceeded, SignInRefused, UpstreamError, UpstreamUnavailable

ANN, BOB, CY = (Account(f"{name}@example.com", f"password-{name}") for name in ("Ann", "bob", "cy"))
TOKEN, OTHER = Credential("t", "secret-t", user_id="u"), Credential("o", "secret-o", user_id="u")
REFUSED = SignInRefused("Wrong password.")
DOWN = UpstreamUnavailable("It is down.")
NOW = 1_000_000.0


class NoJitter(random.Random):
    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002
        return a


def book_of(*accounts: Account, eager: bool = True) -> AccountBook:
    book = AccountBook(randomness=NoJitter())
    book.learn(accounts, "first", eager=eager)
    return book


def good_book() -> tuple[AccountBook, Record]:
    """One account that was signed in at `NOW`."""
    book = book_of(ANN)
    record = book.record(ANN.email)
    book.signed_in(record, TOKEN, NOW)
    return book, record


def due(book: AccountBook, now: float) -> list[str]:
    return [record.email for record in book.due(now)]


# Who is in it


def test_new_accounts_are_due_at_once_if_eagerly_learnt_and_else_with_the_next_update() -> None:
    eager, calm = book_of(ANN, BOB), book_of(ANN, BOB, eager=False)
    assert (len(eager), due(eager, 0), eager.next_due()) == (2, [ANN.email, BOB.email], 0.0)
    assert (len(calm), due(calm, NOW), calm.next_due()) == (2, [], None)
    assert [record.email for record in calm.all_for_update(NOW)] == [ANN.email, BOB.email]


def test_accounts_are_found_whatever_the_case_of_their_e_mail_and_by_their_tokens() -> None:
    book, record = good_book()
    assert book.record("ANN@EXAMPLE.com") is record
    assert book.account(record) == ANN
    assert book.owner(TOKEN) is record
    assert book.owner(Credential("another", "secret", user_id="u")) is record
    assert book.owner(Credential("another", "secret")) is None
    shouted = Account(ANN.email.upper(), "new password")
    book.learn([shouted], "second", eager=True)
    assert (book.records(), record.state, book.account(record)) == ([record], "good", shouted)


def test_an_account_that_left_the_file_is_forgotten() -> None:
    book, _ = good_book()
    book.learn([BOB], "second", eager=False)
    assert [record.email for record in book.records()] == [BOB.email]
    assert book.owner(TOKEN) is None


# From state to state


def test_a_sign_in_makes_it_good() -> None:
    book, record = good_book()
    assert (record.state, record.user_id, record.token_id, record.signed_in_at) == ("good", "u", "t", NOW)
    assert book.next_due() is None


@pytest.mark.parametrize("before", ["new", "good"])
def test_a_wrong_password_is_final(before: str) -> None:
    book, record = good_book() if before == "good" else (book_of(ANN), Record(""))
    record = book.record(ANN.email)
    book.failed(record, REFUSED, NOW)
    book.want(record, NOW + 10**6)
    assert (record.state, record.reason) == ("refused", "Wrong password.")
    assert (book.next_due(), book.all_for_update(NOW + 10**6)) == (None, [])


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (DOWN, FIRST_BACKOFF),
        (UpstreamUnavailable("x", retry_after=90), 90),
        (QuotaExceeded("x"), LIMITED_FOR),
        (QuotaExceeded("x", retry_after=7), 7),
        (QuotaExceeded("x", retry_after=10.0**9), MAX_BACKOFF),
    ],
)
def test_what_is_nobodys_fault_is_tried_again_later(error: UpstreamError, pause: float) -> None:
    book = book_of(ANN)
    record = book.record(ANN.email)
    book.failed(record, error, NOW)
    assert (record.state, record.retry_at, book.next_due()) == ("waiting", NOW + pause, NOW + pause)
    before = NOW + pause - 0.1
    assert (due(book, before), book.all_for_update(before)) == ([], [])
    assert (due(book, NOW + pause), book.all_for_update(NOW + pause)) == ([ANN.email], [record])
    book.signed_in(record, TOKEN, NOW + pause)
    assert (record.state, record.reason, book.next_due()) == ("good", "", None)


def test_each_failure_doubles_the_pause_up_to_a_bound() -> None:
    book = book_of(ANN)
    record = book.record(ANN.email)
    pauses = []
    for _ in range(30):
        book.failed(record, DOWN, NOW)
        pauses.append(record.retry_at - NOW)
    assert pauses[:5] == [FIRST_BACKOFF, 10, 20, 40, 80]
    assert set(pauses[10:]) == {MAX_BACKOFF}


def test_pauses_are_spread_by_up_to_a_quarter_and_never_shortened() -> None:
    book = AccountBook(randomness=random.Random(7))
    book.learn([ANN], "first", eager=True)
    record = book.record(ANN.email)
    pauses = []
    for _ in range(100):
        book.failed(record, QuotaExceeded("x", retry_after=100), NOW)
        pauses.append(record.retry_at - NOW)
    assert all(100 <= pause <= 125 for pause in pauses)
    assert max(pauses) - min(pauses) > 15


def test_an_account_whose_tokens_are_refused_is_set_aside_until_the_next_full_update() -> None:
    book, record = good_book()
    book.want(record, NOW + 100)
    book.set_aside(record, "The same again.", NOW + 101)
    book.want(record, NOW + 10**6)
    assert (record.state, record.reason, book.next_due()) == ("set_aside", "The same again.", None)
    assert book.all_for_update(NOW + 102) == [record]
    book.signed_in(record, OTHER, NOW + 103)
    assert (record.state, record.reason, book.owner(OTHER)) == ("good", "", record)


# When


def test_a_bad_token_is_renewed_at_once_unless_it_is_new() -> None:
    for age, pause in ((0.0, MIN_BETWEEN), (10.0, MIN_BETWEEN - 10), (MIN_BETWEEN, 0), (10**6, 0)):
        book, record = good_book()
        book.want(record, NOW + age)
        assert book.next_due() == NOW + age + pause


def test_the_pause_between_sign_ins_doubles_while_fresh_tokens_fail_and_not_without_end() -> None:
    book, record = good_book()
    now, pauses = NOW, []
    for _ in range(10):
        book.want(record, now + 1)
        pauses.append(record.retry_at - now)
        now = record.retry_at
        book.signed_in(record, TOKEN, now)
    assert pauses == [MIN_BETWEEN * 2.0**n for n in (*range(8), 7, 7)]
    book.want(record, now + 2 * pauses[-1] + 1)  # it worked for long: all is forgotten
    book.signed_in(record, TOKEN, now)
    book.want(record, now + 1)
    assert record.retry_at == now + 2 * MIN_BETWEEN


def test_wanting_twice_is_wanting_once() -> None:
    book, record = good_book()
    book.want(record, NOW + 1)
    at = record.retry_at
    book.want(record, NOW + 29)
    assert (record.retry_at, record.tries) == (at, 1)


def test_an_outage_survived_is_no_reason_to_distrust_the_token_after_it() -> None:
    book, record = good_book()
    book.want(record, NOW + 1)
    for _ in range(10):
        book.failed(record, DOWN, NOW + 2)
    book.signed_in(record, TOKEN, NOW + 100)
    book.want(record, NOW + 101)
    assert record.retry_at == NOW + 100 + MIN_BETWEEN


def test_a_clock_that_was_ahead_holds_nothing_up() -> None:
    book, record = good_book()
    book.want(record, NOW - 10**6)
    assert record.retry_at <= NOW - 10**6 + MIN_BETWEEN
    assert not book.is_fresh(record, NOW - 10**6)


def test_who_has_just_been_signed_in_is_fresh_until_another_token_is_wanted() -> None:
    book, record = good_book()
    assert book.is_fresh(record, NOW)
    assert book.is_fresh(record, NOW + FRESH - 1)
    assert not book.is_fresh(record, NOW + FRESH)
    book.want(record, NOW)
    assert not book.is_fresh(record, NOW + 1)


def test_the_next_due_is_the_first_of_all() -> None:
    book = book_of(ANN, BOB, CY, eager=False)
    for account, seconds in ((ANN, 50), (BOB, 20), (CY, 70)):
        book.failed(book.record(account.email), QuotaExceeded("x", retry_after=seconds), NOW)
    assert book.next_due() == NOW + 20
    assert due(book, NOW + 50) == [ANN.email, BOB.email]


# Between two starts


def four_states() -> AccountBook:
    """ann is good and wanted, bob refused, cy waiting, dee set aside."""
    dee = Account("dee@example.com", "password-dee")
    book = book_of(ANN, BOB, CY, dee)
    book.signed_in(book.record(ANN.email), TOKEN, NOW)
    book.want(book.record(ANN.email), NOW + 1)
    book.failed(book.record(BOB.email), REFUSED, NOW)
    book.failed(book.record(CY.email), DOWN, NOW)
    book.signed_in(book.record(dee.email), OTHER, NOW)
    book.set_aside(book.record(dee.email), "The same again.", NOW)
    return book


def restarted(book: AccountBook, version: str, *, eager: bool) -> AccountBook:
    kept = msgspec.json.encode(book.ledger(NOW))
    assert b"password-" not in kept
    assert b"secret-" not in kept
    ledger = msgspec.json.decode(kept, type=Ledger)
    assert ledger.last_update == NOW
    again = AccountBook(randomness=NoJitter())
    again.restore(ledger, NOW)
    again.learn([book.account(record) for record in book.records()], version, eager=eager)
    return again


def test_a_restart_changes_nothing() -> None:
    book = four_states()
    again = restarted(book, "first", eager=False)
    assert again.records() == book.records()
    assert (again.next_due(), due(again, NOW + 30)) == (book.next_due(), due(book, NOW + 30))
    assert again.owner(TOKEN) == book.record(ANN.email)


@pytest.mark.parametrize("restart", [False, True])
def test_an_edited_file_gives_the_refused_and_those_set_aside_another_chance_and_changes_nothing_else(
    restart: bool,
) -> None:
    book = four_states()
    ann, bob, cy, dee = (msgspec.structs.replace(record) for record in book.records())
    if restart:
        book = restarted(book, "second", eager=True)
    else:
        book.learn([book.account(record) for record in book.records()], "second", eager=True)
    assert book.records()[::2] == [ann, cy]
    for before, after in zip((bob, dee), book.records()[1::2], strict=True):
        assert (after.state, after.reason, after.wanted, after.retry_at) == ("new", "", True, 0.0)
        assert (after.user_id, after.token_id) == (before.user_id, before.token_id)
    assert due(book, NOW) == [bob.email, dee.email]


def test_the_same_file_read_again_gives_nobody_another_chance() -> None:
    book = four_states()
    before = [msgspec.structs.replace(record) for record in book.records()]
    book.learn([book.account(record) for record in book.records()], "first", eager=True)
    assert book.records() == before


def test_an_account_that_leaves_the_file_takes_its_token_along() -> None:
    book = AccountBook(randomness=NoJitter())
    book.learn([ANN, BOB], "first", eager=False)
    book.signed_in(book.record(ANN.email), TOKEN, NOW)
    assert not book.has_departed(TOKEN)
    book.learn([BOB], "second", eager=True)
    assert book.owner(TOKEN) is None
    assert book.has_departed(TOKEN)
    assert not book.has_departed(Credential.of("somebody else's"))
    book.forget_departed()
    assert not book.has_departed(TOKEN)


def test_only_accounts_that_are_new_to_the_file_are_wanted_at_once() -> None:
    book = AccountBook(randomness=NoJitter())
    book.learn([ANN], "first", eager=False)
    book.learn([ANN, BOB], "second", eager=True)
    assert due(book, NOW) == [BOB.email]


def test_a_book_from_a_clock_that_was_ahead_makes_nobody_wait_for_years() -> None:
    book = four_states()
    ledger = book.ledger(NOW)
    again = AccountBook()
    again.restore(ledger, NOW - 1e8)
    again.learn([book.account(record) for record in book.records()], "first", eager=False)
    assert (again.next_due() or 0) <= NOW - 1e8 + 2 * MAX_BACKOFF
