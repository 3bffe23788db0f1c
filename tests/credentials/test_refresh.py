"""The token pool at work: tokens fail, accounts make new ones, and clients notice nothing. Over real HTTP."""

from __future__ import annotations

import contextlib
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from conftest import MakeStage, Stage, account_line
from waiting import until

from k2think import gateway
from k2think.credentials import incident
from k2think.credentials.account_book import AccountBook
from k2think.credentials.token_file import read_tokens
from k2think.simulator.app import Account, SimulatorOptions, mint_token

MODELS = ("MBZUAI-IFM/K2-Think",)
DEAD = tuple(f"dead-token-{number}" for number in range(4))
EMAILS = tuple(f"user{number}@example.com" for number in range(4))
AUTO = {"ENABLE_TOKEN_AUTO_UPDATE": "true", "POOL_WAIT": "100"}


def secrets(path: Path) -> list[str]:
    return [credential.secret for credential in read_tokens(path)]


def keeps(stage: Stage, word: bytes) -> int:
    """How often the word stands in what is kept for the next start."""
    found = 0
    for path in (stage.tokens_file.parent / "data" / "state").rglob("*"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # a file that was just being written
            found += path.read_bytes().count(word)
    return found


def failures(stage: Stage) -> dict[str, int]:
    """How many tokens have how many failures."""
    found: dict[str, int] = stage.admin("/tokens/stats")["failure_distribution"]
    return found


def sign_ins(stage: Stage) -> int:
    return sum(counts.attempts for counts in stage.simulator.state.sign_ins.values())


# Rejected tokens


def test_three_rejections_disable_a_token_and_a_success_clears_the_count(make_stage: MakeStage) -> None:
    stage = make_stage(tokens=("one@example.com", "two@example.com"))
    stage.simulator.state.revoke("one@example.com")
    until(lambda: stage.answer("hello") and failures(stage) == {"0": 1, "2": 1})  # each a clean 200: the other answers
    stage.simulator.state.reset()
    for _ in range(2):
        stage.answer("hello")
    assert failures(stage) == {"0": 2}
    stage.simulator.state.revoke("one@example.com")
    until(lambda: stage.ask("hello").is_success and stage.admin("/tokens/stats")["inactive_tokens"])
    (first, second) = stage.admin("/tokens")["tokens"]
    assert (first["state"], first["reason"]) == ("disabled", "rejected 3 times in a row")
    assert (second["state"], second["failures"]) == ("active", 0)
    stage.simulator.state.reset()
    assert stage.admin("/tokens/reset/0", "POST")["state"] == "active"
    for _ in range(2):
        stage.answer("hello")
    assert failures(stage) == {"0": 2}


def test_two_rejected_tokens_in_a_row_bring_one_update_and_streams_run_on(make_stage: MakeStage) -> None:
    # An update takes long enough for all dead tokens to be met before it asks after those that were.
    options = SimulatorOptions(models=MODELS, sign_in_delay=0.25, delay=0.02)
    stage = make_stage(tokens=("good@example.com", *DEAD[:3]), accounts=EMAILS, options=options, **AUTO)
    answers: list[str] = []

    def read() -> None:
        with stage.stream('[[think="T" answer="one two three four five six seven eight nine ten"]]') as response:
            answers.append(response.read().decode())

    readers = [threading.Thread(target=read) for _ in range(50)]
    for reader in readers:
        reader.start()
    until(lambda: stage.updater()["update_count"])
    for reader in readers:
        reader.join()
    assert len(answers) == 50
    assert all("ten" in answer and answer.endswith("data: [DONE]\n\n") for answer in answers)
    until(lambda: not stage.updater()["is_updating"])
    status = stage.updater()
    assert (status["update_count"], status["error_count"], status["last_error"]) == (1, 0, None)
    assert sign_ins(stage) == len(EMAILS)
    assert stage.admin("/tokens/stats")["consecutive_failures"] == 0
    # The dead are gone; the good one that is of no account stays.
    assert len(secrets(stage.tokens_file)) == len(EMAILS) + 1
    assert not set(DEAD) & set(secrets(stage.tokens_file))
    assert set(DEAD[:3]) < set(secrets(stage.tokens_file.with_name("tokens.txt.backup")))


@pytest.mark.parametrize(("tokens", "settings"), [(2, AUTO), (4, {"ENABLE_TOKEN_AUTO_UPDATE": "false"})])
def test_a_small_pool_or_one_without_automatic_update_is_not_refreshed(
    make_stage: MakeStage, tokens: int, settings: dict[str, str]
) -> None:
    stage = make_stage(tokens=DEAD[:tokens], accounts=EMAILS, **settings)
    for _ in range(3):
        assert stage.ask("hello").status_code in {502, 503}
    assert stage.admin("/tokens/stats")["inactive_tokens"] == tokens
    assert sign_ins(stage) == 0
    assert secrets(stage.tokens_file) == list(DEAD[:tokens])


@pytest.fixture
def _sign_ins_are_far_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account that was signed in is not signed in again by itself as long as a test lasts."""
    monkeypatch.setattr(gateway, "AccountBook", partial(AccountBook, min_between=3600.0))


@pytest.mark.usefixtures("_sign_ins_are_far_between")
def test_a_token_that_is_rejected_is_renewed_alone(make_stage: MakeStage) -> None:
    stage = make_stage(tokens=(), accounts=EMAILS, **AUTO)
    until(lambda: stage.updater()["update_count"])
    before = secrets(stage.tokens_file)
    stage.simulator.state.revoke(EMAILS[1])
    for _ in EMAILS:
        stage.answer("hello")
    # Not before some time has passed since the last sign-in of this account: the wish waits.
    assert sign_ins(stage) == len(EMAILS)
    waiting = stage.admin("/tokens")["tokens"][1]
    assert (waiting["failures"], waiting["account"]) == (1, EMAILS[1])
    assert secrets(stage.tokens_file) == before


# Updates


def test_a_start_with_an_empty_file_updates_first_and_requests_wait_for_it(make_stage: MakeStage) -> None:
    options = SimulatorOptions(models=MODELS, sign_in_delay=0.2)
    stage = make_stage(tokens=(), accounts=EMAILS, options=options, **AUTO)
    assert "simulator" in stage.answer("hello")["content"]
    until(lambda: stage.updater()["update_count"])
    assert len(secrets(stage.tokens_file)) == len(EMAILS)
    assert stage.updater()["files"] == {"get_tokens_script": True, "accounts_file": True, "tokens_file": True}


def test_a_start_with_rejected_tokens_alone_updates_first(make_stage: MakeStage) -> None:
    before = make_stage(tokens=DEAD[:2])
    until(lambda: before.ask("hello").status_code and before.admin("/tokens/stats")["inactive_tokens"] == 2)
    until(lambda: keeps(before, b"disabled") == 2)
    stage = make_stage(tokens=DEAD[:2], accounts=EMAILS, **AUTO)
    stage.answer("hello")
    until(lambda: stage.updater()["update_count"])
    assert len(secrets(stage.tokens_file)) == len(EMAILS)


def test_a_token_of_an_account_that_has_left_the_file_goes_with_it(make_stage: MakeStage) -> None:
    stage = make_stage(tokens=(), accounts=EMAILS[:2], **AUTO)
    until(lambda: stage.updater()["update_count"])
    stage.accounts_file.write_text(account_line(EMAILS[1]))
    stage.admin("/tokens", "POST", json={"tokens": [mint_token("by.hand@example.com")]})
    stage.admin("/tokens/updater/force-update", "POST")
    accounts = {token["account"] for token in stage.admin("/tokens")["tokens"]}
    assert accounts == {EMAILS[1], None}
    assert stage.admin("/tokens/stats")["total_tokens"] == 2


def test_tokens_from_elsewhere_are_replaced_by_those_of_the_same_accounts(make_stage: MakeStage) -> None:
    stage = make_stage(tokens=EMAILS, accounts=EMAILS, **AUTO)
    before = secrets(stage.tokens_file)
    stage.admin("/tokens/updater/force-update", "POST")
    after = secrets(stage.tokens_file)
    assert len(after) == len(EMAILS)
    assert not set(before) & set(after)


def test_a_token_disabled_by_hand_is_not_made_anew(make_stage: MakeStage) -> None:
    stage = make_stage(tokens=(), accounts=EMAILS[:2], **AUTO)
    until(lambda: stage.updater()["update_count"])
    stage.admin("/tokens/0/disable", "POST")
    signed_in = sign_ins(stage)
    stage.admin("/tokens/updater/force-update", "POST")
    states = [token["state"] for token in stage.admin("/tokens")["tokens"]]
    assert states == ["disabled", "active"]
    assert sign_ins(stage) <= signed_in + 1


def test_an_accounts_file_that_is_gone_for_a_moment_loses_nothing(make_stage: MakeStage) -> None:
    stage = make_stage(tokens=(), accounts=EMAILS[:2], **AUTO)
    until(lambda: stage.updater()["update_count"])
    stage.accounts_file.write_text("")
    refused = stage.http.post("/admin/tokens/updater/force-update")
    assert refused.status_code == 502
    assert "no account" in refused.json()["message"]
    assert stage.updater()["accounts"]["total"] == 2
    stage.accounts_file.unlink()
    stage.accounts_file.mkdir()
    refused = stage.http.post("/admin/tokens/updater/force-update")
    assert "is a folder" in refused.json()["message"]
    assert stage.updater()["last_error"] == refused.json()["message"]
    assert stage.updater()["is_running"]
    stage.answer("hello")


def test_the_only_token_is_renewed_while_the_request_that_found_it_dead_waits(make_stage: MakeStage) -> None:
    stage = make_stage(tokens=(), accounts=EMAILS[:1], **AUTO)
    until(lambda: stage.updater()["update_count"])
    stage.admin("/tokens/0", "DELETE")  # as if it had been lost
    stage.answer("hello")
    assert stage.admin("/tokens/stats")["total_tokens"] == 1


def test_a_start_with_expired_tokens_alone_updates_first(make_stage: MakeStage) -> None:
    expired = mint_token("old@example.com", ttl=-60)
    stage = make_stage(tokens=(expired,), accounts=EMAILS[:1], **AUTO)
    stage.answer("hello")
    until(lambda: stage.updater()["update_count"])
    assert len(secrets(stage.tokens_file)) == 1
    assert secrets(stage.tokens_file) != [expired]


def test_an_update_that_fails_keeps_the_file_and_the_pool(make_stage: MakeStage) -> None:
    stage = make_stage(accounts=("wrong1@example.com", "wrong2@example.com"), **AUTO)
    before = stage.tokens_file.read_bytes()
    response = stage.http.post("/admin/tokens/updater/force-update")
    assert response.status_code == 502
    assert response.json()["status"] == "error"
    assert "2 of 2" in response.json()["message"]
    assert stage.tokens_file.read_bytes() == before
    status = stage.updater()
    assert (status["error_count"], status["update_count"]) == (1, 0)
    assert "No account could be signed in" in status["last_error"]
    assert stage.admin("/tokens/stats")["active_tokens"] == 3
    stage.answer("hello")


def test_a_wrong_account_and_a_limited_one_are_told_and_the_others_do(
    make_stage: MakeStage, caplog: pytest.LogCaptureFixture
) -> None:
    emails = ("wrong@example.com", "limited@example.com", *EMAILS)
    stage = make_stage(tokens=(), accounts=emails, **AUTO)
    stage.admin("/tokens/updater/force-update", "POST")
    problems = {problem["email"]: problem for problem in stage.updater()["accounts"]["problems"]}
    assert set(problems) == set(emails[:2])
    assert problems["wrong@example.com"]["state"] == "refused"
    assert problems["limited@example.com"]["state"] == "waiting"
    assert problems["limited@example.com"]["retry_at"]
    assert stage.updater()["accounts"]["by_state"] == {"refused": 1, "waiting": 1, "good": 4}
    assert len(secrets(stage.tokens_file)) == 4
    stage.admin("/tokens/updater/force-update", "POST")
    counts = stage.simulator.state.sign_ins
    assert (counts["wrong@example.com"].attempts, counts["limited@example.com"].attempts) == (1, 1)
    assert not any(email in caplog.text for email in emails)


@pytest.mark.usefixtures("_sign_ins_are_far_between")
def test_an_account_whose_sign_in_gives_the_same_dead_token_again_is_set_aside(make_stage: MakeStage) -> None:
    bad = "bad@example.com"
    accounts = {email: Account() for email in EMAILS} | {bad: Account(faults=("rejected",))}
    options = SimulatorOptions(release="0.6.28", models=MODELS, accounts=accounts)  # its tokens are always the same
    stage = make_stage(tokens=(), accounts=tuple(accounts), options=options, **AUTO)
    until(lambda: stage.updater()["update_count"])
    until(lambda: stage.answer("hello") and "1" in failures(stage))
    for tried in (2, 3):  # once more with each full update, and no more often
        stage.admin("/tokens/updater/force-update", "POST")
        assert stage.simulator.state.sign_ins[bad].attempts == tried
        (problem,) = stage.updater()["accounts"]["problems"]
        assert (problem["email"], problem["state"]) == (bad, "set_aside")
        assert "refused" in problem["reason"]
        assert stage.admin("/tokens/stats")["total_tokens"] == len(EMAILS)


def test_a_script_of_the_users_own_makes_the_tokens(make_stage: MakeStage, tmp_path: Path) -> None:
    script = tmp_path / "my_tokens.py"
    script.write_text(
        "import sys\n"
        "accounts, tokens = sys.argv[1:]\n"
        "assert tokens.endswith('tokens.txt.tmp') and 'user0@example.com' in open(accounts).read()\n"
        f"open(tokens, 'w').write({mint_token('made@example.com')!r})\n"
    )
    stage = make_stage(accounts=EMAILS, GET_TOKENS_SCRIPT=str(script), **AUTO)
    assert stage.admin("/tokens/updater/force-update", "POST")["total_tokens"] == 1
    stage.answer("hello")
    assert stage.seen()[-1]["account"] == "made@example.com"
    assert sign_ins(stage) == 0
    script.write_text("raise SystemExit('no')")
    refused = stage.http.post("/admin/tokens/updater/force-update")
    assert refused.status_code == 502
    assert "exit code 1" in refused.json()["message"]
    stage.tokens_file.with_name("tokens.txt.tmp").write_text("left-by-an-earlier-run\n")
    script.write_text("pass")
    assert "holds no token" in stage.http.post("/admin/tokens/updater/force-update").json()["message"]
    assert not stage.tokens_file.with_name("tokens.txt.tmp").exists()
    stage.answer("hello")


def test_edited_files_are_taken_up(make_stage: MakeStage) -> None:
    stage = make_stage(tokens=("one@example.com",), accounts=EMAILS[:1], **AUTO)
    # Only what the watcher sees counts; it may not be listening yet, so the file is edited until it is.
    tokens = ["two@example.com", "three@example.com"]

    def edited() -> bool:
        stage.tokens_file.write_text("\n".join(map(mint_token, tokens)) + "\n# edited\n")
        return bool(stage.admin("/tokens/stats")["total_tokens"] == 2)

    until(edited)
    assert sign_ins(stage) == 0
    stage.accounts_file.write_text("".join(map(account_line, EMAILS[:2])))
    until(lambda: stage.admin("/tokens/stats")["total_tokens"] == 3)  # the account that is new, and no other
    assert len(secrets(stage.tokens_file)) == 3


# What is no token's fault


def test_an_outage_burns_no_token_and_says_when_to_come_back(make_stage: MakeStage) -> None:
    stage = make_stage(options=SimulatorOptions(models=MODELS, fault="503"))
    stage.http.get("/v1/models")
    response = stage.ask("hello")
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert len(stage.seen()) == 3
    assert failures(stage) == {"0": 3}
    assert stage.admin("/tokens/stats")["inactive_tokens"] == 0


def test_an_incident_ends_when_a_request_gets_through(make_stage: MakeStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incident, "FIRST_PAUSE", 0.25)
    stage = make_stage(UPSTREAM_MODEL=MODELS[0])
    for _ in range(2):
        assert stage.ask("[[fault=503]]").status_code == 503
    assert stage.admin("/tokens/stats")["incident_since"]
    stage.answer("hello")  # waits for its turn to find out
    assert stage.admin("/tokens/stats")["incident_since"] is None
    assert failures(stage) == {"0": 3}


def test_of_seventy_tokens_a_third_may_be_dead(make_stage: MakeStage) -> None:
    tokens = [f"t{number}@example.com" if number % 10 > 2 else f"dead-{number}" for number in range(70)]
    stage = make_stage(tokens=tuple(tokens))
    for _ in range(150):
        stage.answer("hello")
    assert stage.admin("/tokens/stats")["inactive_tokens"] == 21


# Waiting and cooling


def test_a_limited_token_cools_and_the_wait_is_told_exactly(make_stage: MakeStage) -> None:
    stage = make_stage(tokens=("one@example.com",))
    began = time.monotonic()
    response = stage.ask("[[fault=429_retry_after retry_after=1800]]")
    assert response.status_code == 429
    shown = stage.admin("/tokens")["tokens"][0]
    assert shown["state"] == "cooling"
    assert shown["cooling_until"]
    assert shown["failures"] == 0
    wait = int(response.headers["retry-after"])
    again = stage.ask("hello")
    assert again.status_code == 429
    passed = time.monotonic() - began
    assert wait - passed - 2 <= int(again.headers["retry-after"]) <= wait * 1.1 + 1
    assert "1 rate-limited" in again.json()["error"]["message"]


def test_a_token_carries_no_more_than_it_may(make_stage: MakeStage) -> None:
    options = SimulatorOptions(models=MODELS, first_delay=0.05, max_concurrent=1)
    stage = make_stage(
        tokens=("one@example.com", "two@example.com"), options=options, TOKEN_MAX_CONCURRENCY="1", POOL_WAIT="100"
    )
    statuses: list[int] = []
    askers = [threading.Thread(target=lambda: statuses.append(stage.ask("hello").status_code)) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert statuses == [200] * 8
    assert {record.status for record in stage.simulator.state.records} == {200}


def test_a_conversation_stays_with_its_token(make_stage: MakeStage) -> None:
    stage = make_stage(TOKEN_STRATEGY="sticky")
    for number in range(3):
        for _ in range(3):
            stage.ask("hello", prompt_cache_key=f"conversation {number}")
    for session in ("a", "b"):
        for _ in range(3):
            body = {"model": MODELS[0], "messages": [{"role": "user", "content": "hello"}]}
            stage.http.post("/v1/chat/completions", json=body, headers={"X-Session-ID": session})
    accounts = [record["account"] for record in stage.seen()]
    assert [len(set(accounts[start : start + 3])) for start in (0, 3, 6, 9, 12)] == [1] * 5


# Over a restart


def test_health_survives_a_restart(make_stage: MakeStage) -> None:
    first = make_stage(tokens=("one@example.com", DEAD[0], DEAD[1]))
    until(lambda: first.ask("hello").is_success and first.admin("/tokens/stats")["inactive_tokens"] == 2)
    first.admin("/tokens/0/disable", "POST")
    until(lambda: keeps(first, b"by hand"))
    second = make_stage(tokens=("one@example.com", DEAD[0], DEAD[1], "four@example.com"))
    states = [token["state"] for token in second.admin("/tokens")["tokens"]]
    # The first is another text each time: a freshly minted token.
    assert states == ["active", "disabled", "disabled", "active"]
