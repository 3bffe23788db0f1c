"""Several workers on one STATE_DIR and one token file: whichever is asked, they decide as one. Over real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY, MODEL, Stage, account_line, client_of
from serving import serving
from waiting import until

from k2think.app import create_app
from k2think.credentials import leadership
from k2think.credentials.leadership import STANDING
from k2think.credentials.token_file import read_tokens
from k2think.credentials.worker import Worker
from k2think.settings import Settings
from k2think.simulator.app import SimulatorOptions, create_simulator, mint_token
from k2think.storage import board
from k2think.storage.directory import DirectoryStorage

AUTO = {"ENABLE_TOKEN_AUTO_UPDATE": "true"}
EMAILS = tuple(f"user{number}@example.com" for number in range(3))


@dataclass(frozen=True)
class Crew:
    """The workers, each as a stage, and how to end one."""

    workers: list[Stage]
    end: Callable[[int], None]

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.workers)

    def sign_ins(self) -> int:
        return sum(counts.attempts for counts in self.workers[0].simulator.state.sign_ins.values())

    def secrets(self) -> list[str]:
        return [credential.secret for credential in read_tokens(self.workers[0].tokens_file)]

    def states(self) -> list[list[str]]:
        return [[token["state"] for token in worker.admin("/tokens")["tokens"]] for worker in self]


MakeCrew = Callable[..., Crew]


@pytest.fixture
def make_crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeCrew]:
    # A busy machine is no fault.
    monkeypatch.setattr(board, "PATIENCE", 60.0)
    monkeypatch.setattr(leadership, "WORD_PATIENCE", 60.0)
    monkeypatch.setattr(leadership, "GIVE_UP_AFTER", 120.0)
    with ExitStack() as stack:

        def make(
            number: int = 2,
            *,
            tokens: tuple[str, ...] = ("one@example.com", "two@example.com", "three@example.com"),
            accounts: tuple[str, ...] = (),
            options: SimulatorOptions | None = None,
            **settings: str,
        ) -> Crew:
            simulator = create_simulator(options or SimulatorOptions(models=(MODEL,)))
            simulator_url = stack.enter_context(serving(simulator))
            tokens_file, accounts_file = tmp_path / "tokens.txt", tmp_path / "accounts.txt"
            tokens_file.write_text("".join(f"{mint_token(one) if '@' in one else one}\n" for one in tokens))
            accounts_file.write_text("".join(map(account_line, accounts)))
            environ = {
                "VALID_API_KEY": KEY,
                "K2THINK_API_URL": f"{simulator_url}/api/chat/completions",
                "TOKENS_FILE": str(tokens_file),
                "POOL_WAIT": "60",
                "ACCOUNTS_FILE": str(accounts_file),
                **settings,
            }
            state = DirectoryStorage(tmp_path / "data" / "state")
            loaded = Settings.load(environ, directory=tmp_path)
            ends = [stack.enter_context(ExitStack()) for _ in range(number)]
            anyone = stack.enter_context(client_of())
            workers = []
            for place, end in enumerate(ends):
                url = end.enter_context(serving(create_app(loaded, worker=Worker(place, number))))
                if "ENABLE_TOKEN_AUTO_UPDATE" in settings and not place:
                    until(lambda: state.get(STANDING))  # the first leads
                http = stack.enter_context(client_of(base_url=url, headers={"Authorization": f"Bearer {KEY}"}))
                workers.append(Stage(url, http, anyone, simulator, simulator_url, tokens_file, accounts_file))
            return Crew(workers, lambda place: ends[place].close())

        yield make


# What is known of the tokens


def test_rejections_in_two_workers_add_up_and_disable_in_both(
    make_crew: MakeCrew, caplog: pytest.LogCaptureFixture
) -> None:
    crew = make_crew(tokens=("dead-token", "one@example.com"), UPSTREAM_MODEL=MODEL)
    one, other = crew

    def failures(worker: Stage) -> int:
        found: int = worker.admin("/tokens")["tokens"][0]["failures"]
        return found

    until(lambda: one.ask("hello").is_success and failures(one) == 2)
    until(lambda: failures(other) == 2)
    until(lambda: other.ask("hello").is_success and failures(other) == 3)
    until(lambda: crew.states() == [["disabled", "active"]] * 2)
    assert caplog.text.count("upstream_rejected_token") == 3


def test_what_a_hand_does_at_one_holds_at_the_other(make_crew: MakeCrew) -> None:
    crew = make_crew(tokens=("one@example.com", "two@example.com"))
    one, other = crew
    one.admin("/tokens/0/disable", "POST")
    until(lambda: crew.states() == [["disabled", "active"]] * 2)
    for _ in range(3):
        other.answer("hello")
    assert {record["account"] for record in one.seen()} == {"two@example.com"}
    other.admin("/tokens/0/enable", "POST")
    until(lambda: crew.states() == [["active", "active"]] * 2)
    added = other.admin("/tokens", "POST", json={"tokens": [mint_token("three@example.com")]})
    assert added["total_tokens"] == one.admin("/tokens/stats")["total_tokens"] == 3  # at once, not when it is noticed
    one.admin("/tokens/0", "DELETE")
    assert other.admin("/tokens/stats")["total_tokens"] == 2


def test_workers_that_start_together_do_not_disturb_each_other(make_crew: MakeCrew) -> None:
    crew = make_crew(3, tokens=("one@example.com", "dead-token"))
    statuses: list[int] = []
    askers = [
        threading.Thread(target=lambda worker=worker: statuses.append(worker.ask("hello").status_code))
        for worker in crew
        for _ in range(4)
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert statuses == [200] * 12
    until(lambda: crew.states() == [["active", "disabled"]] * 3 if all(w.ask("x").is_success for w in crew) else False)


# Asking the others


def told_by(worker: Stage, request: str) -> dict[str, Any]:
    """What a worker tells of a request, though the one that served it may once be too slow to answer."""
    told: dict[str, Any] = until(lambda: worker.http.get(f"/admin/requests/{request}").json().get("data"))
    return told


def test_a_request_is_told_of_by_whichever_worker_is_asked(make_crew: MakeCrew) -> None:
    crew = make_crew()
    request = crew.workers[0].ask("hello").headers["x-request-id"]
    told = [told_by(worker, request) for worker in crew]
    assert told[0] == told[1]
    assert told[1]["id"] == request
    unknown = crew.workers[1].http.get("/admin/requests/req_unknown")
    assert (unknown.status_code, unknown.json()["status"]) == (404, "error")
    assert crew.workers[1].http.get(f"/admin/requests/{'x' * 5000}").status_code == 404


def test_calls_of_tools_are_counted_over_all_workers(make_crew: MakeCrew) -> None:
    crew = make_crew()
    tool = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
    for worker in crew:
        worker.ask("[[call=clock]]", tools=[tool], tool_choice="required")
    until(lambda: all(sum(worker.admin("/tools/stats")["tools"]["clock"].values()) == 2 for worker in crew))


# One makes the tokens


def test_one_worker_makes_the_tokens_and_all_use_them(make_crew: MakeCrew) -> None:
    crew = make_crew(tokens=(), accounts=EMAILS, **AUTO)
    answers: list[Any] = []
    askers = [threading.Thread(target=lambda w=worker: answers.append(w.ask("hello").status_code)) for worker in crew]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert answers == [200, 200]  # they wait for the first tokens, wherever they are
    until(lambda: all(worker.updater()["update_count"] == 1 for worker in crew))
    assert crew.sign_ins() == len(EMAILS)
    assert [worker.updater()["accounts"] for worker in crew] == [
        {"total": 3, "by_state": {"good": 3}, "problems": []}
    ] * 2
    until(lambda: all(w.admin("/tokens")["tokens"][2]["account"] == EMAILS[2] for w in crew))


def test_an_update_may_be_asked_for_at_any_worker(make_crew: MakeCrew) -> None:
    crew = make_crew(accounts=EMAILS, **AUTO)
    before = crew.secrets()
    for count, worker in enumerate(crew, start=1):
        worker.simulator.state.sign_ins.clear()
        assert worker.admin("/tokens/updater/force-update", "POST")["total_tokens"] == 6
        assert worker.updater()["error_count"] == 0
        assert worker.updater()["update_count"] == count
        assert {token["account"] for token in worker.admin("/tokens")["tokens"][:3]} == set(EMAILS)
    assert set(before) < set(crew.secrets())
    crew.workers[0].accounts_file.write_text("")
    refused = [worker.http.post("/admin/tokens/updater/force-update") for worker in crew]
    assert [answer.status_code for answer in refused] == [502, 502]
    assert all("no account" in answer.json()["message"] for answer in refused)


def test_rejections_that_another_worker_meets_bring_an_update(make_crew: MakeCrew) -> None:
    crew = make_crew(tokens=("dead-1", "dead-2", "dead-3"), accounts=EMAILS, UPSTREAM_MODEL=MODEL, **AUTO)
    leader, follower = crew
    assert follower.answer("hello")  # waits until the leader has made new ones
    until(lambda: leader.updater()["update_count"] == 1)
    assert crew.sign_ins() == len(EMAILS)
    assert leader.seen()[-1]["account"] in EMAILS
    until(lambda: leader.admin("/tokens/stats")["consecutive_failures"] == 0)


def test_when_the_leader_ends_another_makes_the_tokens(make_crew: MakeCrew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "WORD_PATIENCE", 1.5)  # whoever asks just before will not hear
    crew = make_crew(3, accounts=EMAILS[:1], **AUTO)
    leader, *others = crew
    leader.admin("/tokens/updater/force-update", "POST")
    crew.end(0)
    others[0].admin("/tokens/updater/force-update", "POST")
    assert crew.sign_ins() in {1, 2}  # one that is fresh is left as it is
    assert [worker.updater()["is_running"] for worker in others] == [True, True]
    assert others[0].updater()["last_update"] == others[1].updater()["last_update"]
