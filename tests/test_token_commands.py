"""`k2think tokens …` and `get_tokens.py`, before a simulated service and a running gateway. No secret is printed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2 as httpx
import msgspec
import pytest
from conftest import MakeStage, Stage
from serving import AsgiApp, serving
from waiting import PATIENCE

from k2think.cli import main
from k2think.credentials.credential import Credential
from k2think.credentials.health import Health
from k2think.credentials.persistence import KEY
from k2think.credentials.pool import BY_HAND
from k2think.settings.example import variables
from k2think.simulator.app import Account, SimulatorOptions, create_simulator, mint_token
from k2think.storage.directory import DirectoryStorage
from k2think.token_commands import relative

ROOT = Path(__file__).parents[1]
PASSWORD = "hunter2"
USERS = {
    "alice@example.com": Account(PASSWORD),
    "bob@example.com": Account(PASSWORD),
    "walter@example.com": Account(PASSWORD, faults=("wrong",)),
    "larry@example.com": Account(PASSWORD, faults=("limited",)),
}
NOWHERE = "http://127.0.0.1:9"
"""The discard port, where nothing listens."""
HOUR = 3600.0


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """A simulated service's base URL."""
    with serving(create_simulator(SimulatorOptions(accounts=USERS, sign_in_limit=0, openai_key="sk-right-key"))) as url:
        yield url


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs `k2think tokens …` in a folder of its own, variables by keyword: exit code, output, error output.

    It never has a key for clients, and must never print what is secret.
    """
    for variable in variables():
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **environ: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            for name, value in ({"K2THINK_API_URL": f"{service}/api/chat/completions"} | environ).items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as left:
                main(["tokens", *arguments])
        out, err = capsys.readouterr()
        assert isinstance(left.value.code, int)
        keep_secrets(out + err, tmp_path)
        return left.value.code, out, err

    return run


def keep_secrets(printed: str, folder: Path) -> None:
    """Fail where a password, an e-mail or a token of the folder's files was printed."""
    assert PASSWORD not in printed
    assert not [email for email in USERS if email in printed]
    for path in folder.rglob("*tokens*"):
        if path.is_file():
            assert not [line for line in path.read_text().splitlines() if len(line) > 3 and line in printed]


def account(name: str, password: str = PASSWORD) -> str:
    return json.dumps({"email": f"{name}@example.com", "k2_password": password})


def rows(out: str, columns: int = 3) -> list[list[str]]:
    """The table's rows, without its heading: split at blanks, the last cell whole."""
    _, found, table = out.partition("──\x20\n")
    assert found, out
    return [
        line.strip().split(maxsplit=columns - 1)
        for line in table.splitlines()
        if line.startswith("  ") and line.strip()
    ]


# fetch


def test_fetch_writes_a_token_for_each_account_that_gives_one(command: Command, tmp_path: Path) -> None:
    lines = [account(name) for name in ("alice", "walter", "larry", "bob")]
    (tmp_path / "accounts.txt").write_text("\n".join(lines))
    (tmp_path / "tokens.txt").write_text("the-old-token\n")
    code, out, err = command("fetch")
    assert (code, err) == (0, "")
    found = rows(out, columns=4)
    assert [row[:3] for row in found] == [
        ["1", "a…@example.com", "good"],
        ["2", "w…@example.com", "refused"],
        ["3", "l…@example.com", "limited"],
        ["4", "b…@example.com", "good"],
    ]
    assert "email or password provided is incorrect" in found[1][3]
    steps = [line for line in out.splitlines() if line.startswith("Signing in, ")]
    assert [line[:18] for line in steps] == [f"Signing in, {number} of 4" for number in (1, 2, 3, 4)]
    assert out.endswith(f"2 of 4 accounts gave a token; written to {tmp_path / 'tokens.txt'}\n")
    assert len((tmp_path / "tokens.txt").read_text().splitlines()) == 2
    assert command("check")[0] == 0


def test_with_no_good_account_the_token_file_stays_as_it_was(command: Command, tmp_path: Path) -> None:
    (tmp_path / "accounts.txt").write_text(account("walter") + "\n" + account("alice", "hunter2-mistyped"))
    (tmp_path / "tokens.txt").write_text("the-old-token\n")
    code, out, err = command("fetch")
    assert code == 1
    assert [row[2] for row in rows(out, columns=4)] == ["refused", "refused"]
    assert err == f"0 of 2 accounts gave a token; {tmp_path / 'tokens.txt'} stays as it was\n"
    assert (tmp_path / "tokens.txt").read_text() == "the-old-token\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["accounts.txt", "tokens.txt"]


def test_bad_lines_are_told_with_their_numbers_and_hinder_nobody(command: Command, tmp_path: Path) -> None:
    lines = [account("alice"), "", "bob@example.com:hunter2", '{"email": "bob@example.com"}', account("bob")]
    (tmp_path / "mine.txt").write_text("\n".join(lines))
    code, out, err = command("fetch", "mine.txt", "made.txt.tmp")
    assert code == 0
    assert [line.split(": ")[0] for line in err.splitlines()] == ["mine.txt, line 3", "mine.txt, line 4"]
    assert out.endswith("2 of 2 accounts gave a token; written to made.txt.tmp\n")
    assert len((tmp_path / "made.txt.tmp").read_text().splitlines()) == 2


def test_fetch_without_an_account_says_what_is_missing(command: Command, tmp_path: Path) -> None:
    code, out, err = command("fetch")
    assert (code, out, err) == (1, "", f"{tmp_path / 'accounts.txt'} is not there.\n")
    (tmp_path / "accounts.txt").write_text("# later\n")
    assert command("fetch") == (1, "", f"There is no account in {tmp_path / 'accounts.txt'}.\n")
    assert command("fetch", str(tmp_path))[::2] == (
        1,
        f"{tmp_path} is a folder. Remove it and write a file (Docker makes a folder of a file it does not find).\n",
    )


def test_where_nothing_can_be_written_nobody_is_signed_in(command: Command, service: str, tmp_path: Path) -> None:
    def signed_in() -> object:
        return httpx.get(f"{service}/simulator/state").json()["sign_ins"]

    (tmp_path / "accounts.txt").write_text(account("alice"))
    before = signed_in()
    code, _, err = command("fetch", "accounts.txt", "no/such/tokens.txt")
    assert code == 1
    assert f"there is no folder {tmp_path / 'no' / 'such'}" in err
    assert signed_in() == before


def test_a_service_that_cannot_be_reached_is_no_fault_of_the_accounts(command: Command, tmp_path: Path) -> None:
    (tmp_path / "accounts.txt").write_text(account("alice"))
    code, out, _ = command("fetch", K2THINK_API_URL=f"{NOWHERE}/api/chat/completions")
    assert code == 1
    assert rows(out, columns=4)[0][:3] == ["1", "a…@example.com", "failed"]
    code, out, _ = command("fetch", PROXY_URL="http://me:hunter2@127.0.0.1:9")
    assert code == 1
    assert "PROXY_URL" in rows(out, columns=4)[0][3]


@pytest.mark.parametrize(
    ("environ", "named"), [({"PORT": "x"}, "PORT"), ({"UPSTREAM_PROTOCOL": "openai"}, "UPSTREAM_API_KEY")]
)
def test_settings_that_cannot_be_used_are_told(
    command: Command, tmp_path: Path, environ: dict[str, str], named: str
) -> None:
    (tmp_path / "accounts.txt").write_text(account("alice"))
    code, out, err = command("fetch", **environ)
    assert (code, out) == (2, "")
    assert named in err
    assert "VALID_API_KEY" not in err


def test_on_a_terminal_a_bar_stands_for_the_lines(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "accounts.txt").write_text(account("alice") + "\n" + account("walter"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    code, out, _ = command("fetch")
    assert code == 0
    assert "\x1b[" in out
    assert "2/2" in out
    assert "Signing in, 1" not in out


def test_the_script_works_from_another_folder(service: str, tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    shutil.copy(ROOT / "get_tokens.py", home)
    (home / "src").symlink_to(ROOT / "src")
    (home / ".env").write_text(f"K2THINK_API_URL={service}/api/chat/completions\nTOKENS_FILE=not-this.txt\n")
    (work / "a.txt").write_text(account("alice") + "\n" + account("walter"))
    done = subprocess.run(
        [sys.executable, home / "get_tokens.py", "a.txt", "t.txt"],
        env={name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT") if name in os.environ},
        cwd=work,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("1 of 2 accounts gave a token; written to t.txt\n")
    assert len((work / "t.txt").read_text().splitlines()) == 1
    assert not (home / "not-this.txt").exists()
    keep_secrets(done.stdout, work)


# list


def test_tokens_are_listed_masked_and_with_their_expiry(command: Command, tmp_path: Path) -> None:
    token, old = (mint_token("alice@example.com", ttl=ttl) for ttl in (11.5 * HOUR, -3.5 * HOUR))
    (tmp_path / "tokens.txt").write_text(f"{token}\nshort-secret\n{old}\n")
    code, out, _ = command("list")
    assert code == 0
    assert rows(out) == [
        ["0", f"{token[:4]}…{token[-4:]}", "in 11 h"],
        ["1", "…", "not told"],
        ["2", f"{old[:4]}…{old[-4:]}", "expired 3 h ago"],
    ]
    assert out.endswith(f"3 tokens in {tmp_path / 'tokens.txt'}\n")


def test_no_token_is_a_failure(command: Command, tmp_path: Path) -> None:
    assert command("list")[:2] == (1, f"0 tokens in {tmp_path / 'tokens.txt'}\n")
    assert command("check")[0] == 1
    (tmp_path / "tokens.txt").mkdir()
    code, _, err = command("list")
    assert (code, len(err.splitlines())) == (1, 1)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (1.5, "in 1 s"),
        (119, "in 119 s"),
        (120, "in 2 min"),
        (2 * HOUR - 1, "in 119 min"),
        (47.9 * HOUR, "in 47 h"),
        (28 * 24 * HOUR, "in 28 d"),
        (1e9, "in 31 years"),
        (1e300, "in 3.17e+292 years"),
        (0, "expired 0 s ago"),
        (-90, "expired 90 s ago"),
        (-3 * HOUR, "expired 3 h ago"),
    ],
)
def test_an_expiry_is_told_as_people_say_it(seconds: float, said: str) -> None:
    assert relative(1000.0 + seconds, 1000.0) == said


@pytest.mark.parametrize("length", range(60))
def test_a_masked_token_shows_eight_characters_at_most_and_never_much_of_it(length: int) -> None:
    secret = "".join(chr(ord("A") + index) for index in range(length))
    shown = Credential.of(secret).masked().replace("…", "")
    assert len(shown) <= min(8, length / 3)


# check


def test_check_asks_after_every_token(command: Command, tmp_path: Path) -> None:
    good = mint_token("alice@example.com")
    expired = mint_token("alice@example.com", ttl=-HOUR)
    (tmp_path / "tokens.txt").write_text(f"{good}\n{expired}\nno\x01token: it could stand in no header\n")
    code, out, err = command("check")
    assert (code, err) == (1, "")
    assert [(row[0], "rejected" in row[-1], "good" in row[-1]) for row in rows(out)] == [
        ("0", False, True),
        ("1", True, False),
    ]
    assert out.endswith("1 of 2 tokens is good\n")
    (tmp_path / "tokens.txt").write_text(good)
    code, out, _ = command("check")
    assert code == 0
    assert out.endswith("1 of 1 token is good\n")


def test_what_cannot_be_asked_is_unknown(command: Command, tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").write_text(mint_token("alice@example.com"))
    code, out, _ = command("check", K2THINK_API_URL=f"{NOWHERE}/api/chat/completions")
    assert code == 1
    assert "unknown" in rows(out)[0][2]


def test_keys_of_an_openai_compatible_server_are_tried_on_its_models(command: Command, service: str) -> None:
    url = f"{service}/v1/chat/completions"
    assert command("check", K2THINK_API_URL=url, UPSTREAM_API_KEY="sk-right-key")[0] == 0
    code, out, _ = command("check", K2THINK_API_URL=url, UPSTREAM_API_KEY="sk-right-key,sk-wrong-key")
    assert code == 1
    assert ["rejected" in row[2] for row in rows(out)] == [False, True]
    assert "wrong-key" not in out
    code, out, _ = command("check", K2THINK_API_URL=url)
    assert code == 1
    assert "no key" in out


# reset


def keep(folder: Path, tokens: list[str]) -> DirectoryStorage:
    """Let the last run have left the first token rejected, the second disabled by hand and the third limited."""
    ids = [Credential.of(token).id for token in tokens]
    storage = DirectoryStorage(folder / "data" / "state")
    kept = [
        Health(ids[0], failures=3, disabled="rejected 3 times in a row", error="upstream_rejected_token"),
        Health(ids[1], disabled=BY_HAND),
        Health(ids[2], limits=1, until=4e9),
    ]
    storage.put(KEY, msgspec.json.encode(kept))
    return storage


def kept_now(storage: DirectoryStorage) -> list[Health]:
    return msgspec.json.decode(storage.get(KEY) or b"[]", type=list[Health])


@pytest.fixture
def tokens() -> list[str]:
    return [mint_token(f"{name}@example.com") for name in ("one", "two", "three")]


def test_without_a_gateway_the_kept_health_is_reset(command: Command, tmp_path: Path, tokens: list[str]) -> None:
    (tmp_path / "tokens.txt").write_text("\n".join(tokens))
    storage = keep(tmp_path, tokens)
    code, out, err = command("reset", "2", PORT="9")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "No gateway answers at http://127.0.0.1:9, so this was done for its next start.",
        "Token 2 can be used now.",
    ]
    assert [health.id for health in kept_now(storage)] == [Credential.of(token).id for token in tokens[:2]]
    code, out, _ = command("reset", PORT="9")
    assert code == 0
    assert "2 of 3 tokens can be used now. Disabled by hand: 1;" in out
    assert kept_now(storage) == [Health(Credential.of(tokens[1]).id, disabled=BY_HAND)]
    assert "was disabled by hand" in command("reset", "1", PORT="9")[1]


def test_a_token_that_is_not_there_cannot_be_reset(command: Command, tmp_path: Path, tokens: list[str]) -> None:
    (tmp_path / "tokens.txt").write_text("\n".join(tokens))
    storage = keep(tmp_path, tokens)
    before = storage.get(KEY)
    assert command("reset", "7", PORT="9") == (1, "", "There is no token 7. Their indices are 0 to 2.\n")
    assert storage.get(KEY) == before


def test_where_nothing_was_kept_nothing_is_written(command: Command, tmp_path: Path, tokens: list[str]) -> None:
    (tmp_path / "tokens.txt").write_text("\n".join([*tokens, mint_token("old@example.com", ttl=-HOUR)]))
    code, out, _ = command("reset", PORT="0")
    assert code == 0
    assert "3 of 4 tokens can be used now. Expired: 1;" in out
    assert not (tmp_path / "data").exists()


def states(stage: Stage) -> list[str]:
    return [token["state"] for token in stage.http.get("/admin/tokens").json()["data"]["tokens"]]


def test_the_running_gateway_resets_its_tokens_itself(
    command: Command, make_stage: MakeStage, tmp_path: Path, tokens: list[str]
) -> None:
    keep(tmp_path, tokens)
    stage = make_stage(tokens=tuple(tokens))
    port = str(urlsplit(stage.url).port)
    assert states(stage) == ["disabled", "disabled", "cooling"]
    code, out, err = command("reset", "0", PORT=port)
    assert (code, err) == (0, "")
    assert out == f"Done by the gateway that runs at {stage.url}.\nToken 0 can be used now.\n"
    assert states(stage) == ["active", "disabled", "cooling"]
    code, out, _ = command("reset", PORT=port, HOST="127.0.0.1")
    assert code == 0
    assert "2 of 3 tokens can be used now. Disabled by hand: 1;" in out
    assert states(stage) == ["active", "disabled", "active"]
    code, out, err = command("reset", "7", PORT=port)
    assert (code, out) == (1, "")
    assert "There is no token 7" in err


def stranger(name: str, keys: list[str]) -> AsgiApp:
    """Something that calls itself `name`, wants the key `sk-admin` and writes down the keys that it is shown."""

    async def app(scope: dict[str, object], receive: object, send: Callable[..., object]) -> None:
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()  # type: ignore[operator]
                await send({"type": f"lifespan.{event}.complete"})  # type: ignore[misc]
            return
        headers = dict(scope["headers"])  # type: ignore[call-overload]
        key = headers.get(b"authorization", b"").decode()
        keys.append(f"{scope['method']} {key}".strip())
        status, body = 200, b'{"name": "%s", "data": {"active_tokens": 5}}' % name.encode()
        if scope["method"] == "POST" and key != "Bearer sk-admin":
            status, body = 401, b'{"error": {"message": "The API key is wrong."}}'
        await send({"type": "http.response.start", "status": status, "headers": []})  # type: ignore[misc]
        await send({"type": "http.response.body", "body": body})  # type: ignore[misc]

    return app


def test_a_key_is_shown_only_to_a_gateway_that_asks_for_one(command: Command) -> None:
    seen: list[str] = []
    with serving(stranger("K2Think API Proxy", seen)) as url:
        port = str(urlsplit(url).port)
        code, out, _ = command("reset", PORT=port, ADMIN_API_KEY="sk-admin", VALID_API_KEY="sk-client")
        assert code == 0
        assert "5 of 5 tokens can be used now." in out
        assert seen == ["GET", "POST", "POST Bearer sk-admin"]
        assert command("reset", PORT=port, VALID_API_KEY="sk-client") == (
            1,
            "",
            f"The gateway at {url} answered 401: The API key is wrong.\n",
        )


def test_something_else_on_that_port_is_told_nothing(command: Command) -> None:
    seen: list[str] = []
    with serving(stranger("Some other service", seen)) as url:
        code, out, _ = command("reset", PORT=str(urlsplit(url).port), VALID_API_KEY="sk-client")
    assert code == 0
    assert out.startswith(f"No gateway answers at {url}")
    assert seen == ["GET"]


# All of it


def test_the_command_line_starts_without_what_only_some_commands_need() -> None:
    asked = "print([name for name in ('aiohttp', 'fastapi', 'starlette', 'rich') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, k2think.cli; {asked}"],
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == "[]\n"
