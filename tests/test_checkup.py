"""`k2think check` finds what is wrong, one planted fault at a time, and nothing where nothing is. No secret is printed.

It runs in this process, in a folder of its own, before a simulated service.
"""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pytest
from conftest import Stage, client_of
from running import PLAIN, ROOT
from serving import serving
from waiting import PATIENCE

from k2think.checkup import network
from k2think.checkup.values import PUBLISHED_KEYS
from k2think.cli import DEMO_KEY, main
from k2think.settings.example import variables
from k2think.simulator.app import Account, SimulatorOptions, create_simulator, mint_token

SCRIPT = ROOT / "check_config_simple.py"
PASSWORD = "hunter2"
KEY = "sk-" + "k7Qx2mVb" * 3
USERS = {
    "good@example.com": Account(PASSWORD),
    "walter@example.com": Account(PASSWORD, faults=("wrong",)),
    "larry@example.com": Account(PASSWORD, faults=("limited",)),
    "rita@example.com": Account(PASSWORD, faults=("rejected",)),
    "emma@example.com": Account(PASSWORD, faults=("empty",)),
    "paul@example.com": Account(PASSWORD, faults=("429_retry_after",)),
    "sally@example.com": Account(PASSWORD, faults=("stall_before_headers",)),
}
MODEL = "MBZUAI-IFM/K2-Think-v2"


def token(name: str = "good", **options: Any) -> str:
    return mint_token(f"{name}@example.com", **options)


def account(name: str = "good") -> str:
    return json.dumps({"email": f"{name}@example.com", "k2_password": PASSWORD}) + "\n"


def late() -> str:
    """A token file of one that lives ten minutes more, counted from the test, not from the start of all tests."""
    return token(ttl=600.0) + "\n"


GOOD, OLD = token(), token(ttl=-1.0)
AHEAD = token(now=time.time() + 7200)
AUTO: dict[str, Any] = {"ENABLE_TOKEN_AUTO_UPDATE": "true"}
OPENAI: dict[str, Any] = {"UPSTREAM_PROTOCOL": "openai"}
OWN: dict[str, Any] = {"UPSTREAM_API_KEY": "sk-of-the-server"}

Content = str | bytes | Callable[[], str] | None
Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """A simulated service's base URL."""
    options = SimulatorOptions(accounts=USERS, sign_in_limit=0, openai_key="sk-right-key", models=(MODEL,))
    with serving(create_simulator(options)) as url:
        yield url


@pytest.fixture
def command(
    service: str, closed_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs `k2think check`; gives the exit code and the output, in which no secret may be.

    `environ` is put on top of what is sound, `files` (None: a folder) beside a sound token file.
    """
    for variable in variables():
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    sound = {
        "VALID_API_KEY": KEY,
        "HOST": "127.0.0.1",
        "PORT": "0",
        "K2THINK_API_URL": f"{service}/api/chat/completions",
    }
    places = {"service": service, "service_port": service.rpartition(":")[2], "closed": closed_port}

    def run(
        *arguments: str, files: Mapping[str, Content] | None = None, mode: int = 0o600, **environ: str
    ) -> tuple[int, str]:
        given = {name: value.format_map(places) for name, value in (sound | environ).items()}
        for name, content in ({"tokens.txt": f"{GOOD}\n"} | dict(files or {})).items():
            put(tmp_path / name, content, mode)
        with monkeypatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as left:
                main(["check", *arguments])
        out, err = capsys.readouterr()
        assert err == ""
        assert isinstance(left.value.code, int)
        keep_secrets(out, given, tmp_path)
        return left.value.code, out

    return run


def put(path: Path, content: Content, mode: int) -> None:
    if content is None:
        path.mkdir()
        return
    if callable(content):
        content = content()
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)


def keep_secrets(printed: str, environ: Mapping[str, str], folder: Path) -> None:
    """Fail where a password, an e-mail, a key or a token was printed."""
    secret = {variable.name for variable in variables() if variable.secret}
    held = [PASSWORD, *USERS]
    for name in secret & environ.keys():
        held += filter(None, environ[name].split(","))
    tokens = folder / "tokens.txt"
    if tokens.is_file():
        held += [line for line in tokens.read_text(errors="replace").splitlines() if len(line) > 3]
    assert [text for text in held if text in printed] == []


def notable(out: str) -> list[tuple[str, str, str]]:
    """The notes and what is wrong: the word, the text, the remedy."""
    return re.findall(r"^(note|wrong) +(.+)\n(?: {6}(.+)\n)?", out, re.MULTILINE)


def test_a_sound_configuration_is_well(command: Command) -> None:
    code, out = command()
    assert (code, notable(out)) == (0, [])
    assert out.endswith("\nAll is well.\n")
    assert len(re.findall(r"^ok    .+$", out, re.MULTILINE)) == len(out.splitlines()) - 1


@pytest.mark.parametrize(
    ("environ", "files"),
    [
        (AUTO, {"tokens.txt": "# none yet\n", "accounts.txt": account()}),
        (AUTO, {"tokens.txt": late, "accounts.txt": account()}),
        (OPENAI | OWN, {"tokens.txt": ""}),
        ({"CORS_ORIGINS": "*", "WORKERS": "2", "TOKEN_MAX_CONCURRENCY": "2"}, {}),
        ({}, {"tokens.txt": "sk-an-api-key-of-the-service\n"}),
        ({}, {".env": "LOG_LEVEL=DEBUG # more\nMY_OWN=1\n"}),
    ],
    ids=["automatic", "renewed", "openai", "workers", "api-key", "env"],
)
def test_what_else_is_sound_is_well_too(
    command: Command, environ: dict[str, str], files: Mapping[str, Content]
) -> None:
    code, out = command(files=files, **environ)
    assert (code, notable(out)) == (0, [])


def test_it_tells_what_is_set_and_what_was_tried(command: Command, service: str, tmp_path: Path) -> None:
    environ = {"VALID_API_KEY": f"{KEY},{KEY}x", "PROXY_URL": f"http://me:{PASSWORD}@127.0.0.1:{{service_port}}"}
    code, out = command(files={".env": "TOOL_RETRIES=3\n"}, **environ)
    assert code == 0
    port = service.rpartition(":")[2]
    for said in (
        f"Settings from {tmp_path / '.env'}",
        "VALID_API_KEY: set, 2 keys",
        "PROXY_URL: set",
        "TOOL_RETRIES: 3",
        f"Tokens: 1 in {tmp_path / 'tokens.txt'}",
        f"Proxy: 127.0.0.1, port {port} takes connections (nothing was sent)",
    ):
        assert f"ok    {said}\n" in out
    assert "takes connections" not in out.replace(f"Proxy: 127.0.0.1, port {port} takes connections", "")


def planted(
    name: str,
    state: Literal["note", "wrong"],
    *says: str,
    files: Mapping[str, Content] | None = None,
    mode: int = 0o600,
    **environ: str,
) -> Any:
    """A fault: how it is planted, and what the check says of it, folded into one line."""
    return pytest.param(state, says, {"files": files, "mode": mode, **environ}, id=name)


FAULTS = [
    # keys
    planted("no-key", "wrong", "VALID_API_KEY is not set", VALID_API_KEY=""),
    planted("short-key", "note", "VALID_API_KEY is shorter than 16", VALID_API_KEY="hunter2-hunter2"),
    planted("short-second-key", "note", "VALID_API_KEY, key 2 of 2,", VALID_API_KEY=f"{KEY},hunter2"),
    planted("one-character", "note", "VALID_API_KEY is one character, repeated", VALID_API_KEY="sk-" + "a" * 30),
    planted("key-of-the-demo", "wrong", "VALID_API_KEY is a key that the instructions show", VALID_API_KEY=DEMO_KEY),
    planted("key-of-the-example", "wrong", "VALID_API_KEY is a key that the instructions show", VALID_API_KEY="sk-..."),
    planted("foreign-key", "wrong", "VALID_API_KEY holds a character", VALID_API_KEY="schlüssel-der-niemandem-gehört"),
    planted("short-admin-key", "note", "ADMIN_API_KEY is shorter", ADMIN_API_KEY="hunter2"),
    # values
    planted("port", "wrong", "PORT is 'x'", PORT="x"),
    planted("template", "wrong", "TOOLIFY_CUSTOM_PROMPT", "{tools_list}", TOOLIFY_CUSTOM_PROMPT="Use the tools."),
    planted("proxy-url", "wrong", "PROXY_URL has no http://", PROXY_URL="hunter2"),
    planted("no-chat-endpoint", "note", "K2THINK_API_URL", "chat endpoint", K2THINK_API_URL="{service}/api"),
    planted("simulated-stream", "note", "STREAM_DELAY is ignored", files={".env": "STREAM_DELAY=1\n"}),
    planted("native", "note", "UPSTREAM_NATIVE is ignored", UPSTREAM_NATIVE="tools"),
    planted("file-mode", "note", "FILE_MODE=upstream is ignored", FILE_MODE="upstream", **OPENAI, **OWN),
    planted("typo", "note", "TOKEN_FILE in .env", "Did you mean TOKENS_FILE?", files={".env": "TOKEN_FILE=x\n"}),
    planted("typo-outside", "note", "TOKEN_FILE in the environment", "Did you mean TOKENS_FILE?", TOKEN_FILE="x"),
    planted("env-line", "wrong", ".env, line 2,", "not understood", files={".env": 'WORKERS=1\nLOG_LEVEL="x\n'}),
    planted("env-not-text", "wrong", ".env is not UTF-8", files={".env": b"LOG_LEVEL=\xff\n"}),
    planted("env-folder", "wrong", ".env is a folder", files={".env": None}),
    # tokens
    planted("no-tokens", "wrong", "mine.txt is not there", "TOKENS_FILE", TOKENS_FILE="mine.txt"),
    planted("empty-tokens", "wrong", "tokens.txt holds no token", "TOKENS_FILE", files={"tokens.txt": "# none\n"}),
    planted("token-folder", "wrong", "mine cannot be read", "Docker", TOKENS_FILE="mine", files={"mine": None}),
    planted("tokens-not-text", "wrong", "tokens.txt is not UTF-8", files={"tokens.txt": b"\xff\xfe"}),
    planted("blank", "note", "1 of 2 have a blank", "index 1", files={"tokens.txt": f"{GOOD}\n{GOOD[:9]} {GOOD}\n"}),
    planted("only-blank", "wrong", "1 of 1 have a blank", "index 0", files={"tokens.txt": f"{GOOD[:9]} {GOOD}\n"}),
    planted("no-jwt", "note", "1 of 2 do not look like", files={"tokens.txt": f"{GOOD}\n{GOOD[:90]}\n"}),
    planted("expired", "note", "1 of 2 expired", files={"tokens.txt": f"{OLD}\n{GOOD}\n"}),
    planted("all-expired", "wrong", "1 of 1 expired", files={"tokens.txt": f"{OLD}\n"}),
    planted("soon", "note", "1 of 1 will expire within the hour", files={"tokens.txt": late}),
    planted(
        "expired-but-renewed",
        "note",
        "1 of 1 expired",
        "next update",
        files={"tokens.txt": OLD, "accounts.txt": account()},
        **AUTO,
    ),
    planted("clock", "note", "Clock: 1 of 2", "slow", files={"tokens.txt": f"{GOOD}\n{AHEAD}\n"}),
    planted("no-server-key", "note", "UPSTREAM_API_KEY", "with the tokens of", **OPENAI),
    planted("no-key-at-all", "note", "UPSTREAM_API_KEY", "without a key", files={"tokens.txt": ""}, **OPENAI),
    # accounts
    planted(
        "account-line",
        "wrong",
        "accounts.txt, line 3: is no JSON",
        files={"accounts.txt": f"{account()}\nme\n"},
        **AUTO,
    ),
    planted("account-line-unused", "note", "accounts.txt, line 1: is no JSON", files={"accounts.txt": "me\n"}),
    planted(
        "no-password",
        "wrong",
        "line 2: has no `k2_password`",
        files={"accounts.txt": account() + '{"email": "a@b.c"}'},
        **AUTO,
    ),
    planted("same-account", "wrong", "line 2: has the e-mail of line 1", files={"accounts.txt": account() * 2}, **AUTO),
    planted("no-accounts", "wrong", "accounts.txt is not there", "ENABLE_TOKEN_AUTO_UPDATE", **AUTO),
    planted("empty-accounts", "wrong", "accounts.txt holds no account", files={"accounts.txt": "\n"}, **AUTO),
    planted("account-folder", "wrong", "accounts.txt is a folder", files={"accounts.txt": None}, **AUTO),
    planted("accounts-not-text", "wrong", "accounts.txt is not UTF-8", files={"accounts.txt": b"\xff"}, **AUTO),
    planted(
        "script",
        "wrong",
        "GET_TOKENS_SCRIPT",
        "my.py cannot be read",
        files={"accounts.txt": account()},
        GET_TOKENS_SCRIPT="my.py",
        **AUTO,
    ),
    planted("no-accounts-there", "note", "ENABLE_TOKEN_AUTO_UPDATE is ignored", **AUTO, **OPENAI, **OWN),
    # who may read and write
    planted("open-tokens", "note", "Secrets:", "tokens.txt", "chmod 600", mode=0o640),
    planted("state", "note", "below", "STATE_DIR", files={"file": ""}, STATE_DIR="file/below"),
    planted("shared-state", "wrong", "workers", "STATE_DIR", files={"file": ""}, STATE_DIR="file/below", WORKERS="2"),
    planted("data", "note", "below", "DATA_DIR", files={"file": ""}, DATA_DIR="file/below"),
    planted(
        "no-token-folder",
        "wrong",
        "there is no folder",
        "nowhere",
        "TOKENS_FILE",
        files={"accounts.txt": account()},
        TOKENS_FILE="nowhere/tokens.txt",
        **AUTO,
    ),
    # limits
    planted("workers", "note", "WORKERS: 3, but there are 2 cores", WORKERS="3"),
    planted("places", "note", "TOKEN_MAX_CONCURRENCY: 1", "may carry more", TOKEN_MAX_CONCURRENCY="1", WORKERS="2"),
    planted(
        "shares",
        "note",
        "TOKEN_MAX_CONCURRENCY: 1",
        "no worker can use all tokens",
        files={"tokens.txt": f"{GOOD}\n{token('rita')}\n"},
        TOKEN_MAX_CONCURRENCY="1",
        WORKERS="2",
    ),
    planted("connections", "note", "MAX_CONNECTIONS: 1 is less than WORKERS", MAX_CONNECTIONS="1", WORKERS="2"),
    # network
    planted("port-taken", "wrong", "PORT: Port", "is taken on 127.0.0.1.", "Stop what uses it", PORT="{service_port}"),
    planted("foreign-host", "wrong", "HOST: Cannot listen on 192.0.2.1", HOST="192.0.2.1"),
    planted("odd-host", "wrong", "HOST: Cannot listen on a..b (", HOST="a..b"),
    planted(
        "upstream",
        "wrong",
        "Upstream: no connection to 127.0.0.1",
        K2THINK_API_URL="http://127.0.0.1:{closed}/api/chat/completions",
    ),
    planted("proxy", "wrong", "Proxy: no connection to 127.0.0.1", PROXY_URL="http://me:hunter2@127.0.0.1:{closed}"),
    planted(
        "unused-proxy",
        "note",
        "PROXY_URL is not used",
        PROXY_URL="http://127.0.0.1:{closed}",
        PROXY_CHAT="false",
        **OPENAI,
        **OWN,
    ),
]


@pytest.mark.parametrize(("state", "says", "plan"), FAULTS)
def test_a_fault_is_found_and_nothing_else(
    command: Command, state: str, says: tuple[str, ...], plan: dict[str, Any]
) -> None:
    code, out = command(**plan)
    ((word, text, remedy),) = notable(out)
    assert word == state
    assert [said for said in says if said not in f"{text} {remedy}"] == []
    assert remedy
    assert code == int(state == "wrong")
    assert out.endswith("Something is wrong: see above.\n" if code else "Nothing is wrong; see the notes above.\n")


def test_the_key_of_the_demo_is_known_to_be_published() -> None:
    assert DEMO_KEY in PUBLISHED_KEYS


def test_without_a_key_all_else_is_looked_at_too(command: Command) -> None:
    code, out = command(VALID_API_KEY="", files={"tokens.txt": ""})
    assert code == 1
    assert [text.partition(" ")[0] for _, text, _ in notable(out)] == ["VALID_API_KEY", "Tokens:"]
    assert "VALID_API_KEY: set" not in out
    _, out = command(VALID_API_KEY="", PORT="x")
    assert sorted(text.partition(" ")[0] for _, text, _ in notable(out)) == ["PORT", "VALID_API_KEY"]
    assert "The rest is looked at once this is right.\n" in out


def test_it_makes_nothing(command: Command, tmp_path: Path) -> None:
    command(files={"accounts.txt": account()}, **AUTO)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["accounts.txt", "tokens.txt"]


def test_new_tokens_count_that_an_interrupted_update_has_left(command: Command) -> None:
    code, out = command(files={"tokens.txt": OLD, "tokens.txt.pending": f"{GOOD}\n{token('rita')}\n"})
    assert code == 0
    assert "Tokens: 2 in" in out


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is this machine on Linux only")
def test_of_a_name_with_several_addresses_one_that_answers_will_do(
    command: Command, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(service.rpartition(":")[2])
    real = socket.getaddrinfo

    def find(host: str, *rest: Any, **options: Any) -> list[Any]:
        if host != "two.example":
            return real(host, *rest, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", find)
    with socket.create_server(("127.0.0.2", port), backlog=0) as silent, ExitStack() as waiting:
        for _ in range(4):  # its queue is full, so that whoever comes next hears nothing
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(silent.getsockname())
        code, out = command(K2THINK_API_URL=f"http://two.example:{port}/api/chat/completions")
    assert (code, notable(out)) == (0, [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_token_file_that_cannot_be_renewed(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    put(folder / "tokens.txt", GOOD, 0o400)
    environ = AUTO | {"TOKENS_FILE": "kept/tokens.txt"}
    code, out = command(files={"accounts.txt": account()}, **environ)
    assert (code, [word for word, *_ in notable(out)]) == (0, ["note"])
    folder.chmod(0o500)
    code, out = command(files={"accounts.txt": account()}, **environ)
    folder.chmod(0o700)
    assert code == 1
    ((_, text, _),) = notable(out)
    assert f"may not write into {folder}" in text


def test_a_gateway_that_runs_already_is_no_stranger(command: Command, stage: Stage) -> None:
    code, out = command(PORT=stage.url.rpartition(":")[2])
    ((word, text, _),) = notable(out)
    assert (code, word) == (0, "note")
    assert "a K2Think API Proxy is running on 127.0.0.1" in text


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("K2THINK_API_URL", "http://127.0.0.1:{port}/api/chat/completions"),
        ("PROXY_URL", "http://me:hunter2@127.0.0.1:{port}"),
    ],
)
def test_it_connects_and_says_nothing(command: Command, variable: str, url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        code, _ = command(**{variable: url.format(port=listener.getsockname()[1])})
        assert code == 0
        listener.settimeout(PATIENCE)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(PATIENCE)
            assert connection.recv(1) == b""
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):  # nor did it come again
            listener.accept()


def test_what_does_not_answer_is_not_waited_for(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, but never answers
        code, out = command(PORT=str(silent.getsockname()[1]))
    assert code == 1
    assert "is taken on 127.0.0.1" in out
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]  # more than wait there: no more connections are taken
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        code, out = command(K2THINK_API_URL=f"http://127.0.0.1:{address[1]}/api/chat/completions")
        for one in waiting:
            one.close()
    assert code == 1
    ((_, text, _),) = notable(out)
    assert text.startswith("Upstream: no connection")


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_are_for_terminals_that_want_them(
    command: Command, monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool
) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert "\x1b" not in command(files={"tokens.txt": ""}, STREAM_DELAY="1", NO_COLOR=no_color)[1]
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    command(files={"tokens.txt": ""}, STREAM_DELAY="1", NO_COLOR=no_color)
    shown = screen.getvalue()
    assert "wrong" in shown
    for colour, word in ((32, "ok"), (33, "note"), (31, "wrong")):
        assert (f"\x1b[{colour}m{word}\x1b[0m" in shown) == coloured
    assert ("\x1b" in shown) == coloured


# --online


def test_online_signs_in_and_asks_for_a_word(command: Command, service: str) -> None:
    files = {"tokens.txt": "", "accounts.txt": account() + account("walter")}
    code, out = command("--online", files=files, **AUTO)
    assert (code, notable(out)) == (0, [])
    lines = out.splitlines()[-5:]
    assert lines[:3] == [
        "...   Signing g…@example.com in",
        "ok    Sign-in: g…@example.com gave a token",
        "...   Asking the model for one word (up to 60 s)",
    ]
    assert re.fullmatch(rf"ok    Chat: {re.escape(MODEL)} answered in [\d.]+ s", lines[3])
    with client_of() as http:
        chat = http.get(f"{service}/simulator/requests").json()["requests"][-1]
    assert chat["account"] == "good@example.com"
    assert chat["body"]["max_tokens"] <= 16


@pytest.mark.parametrize(
    ("environ", "files", "state", "says"),
    [
        (AUTO, {"accounts.txt": account("walter")}, "wrong", ("Sign-in: w…@example.com", "ACCOUNTS_FILE")),
        (AUTO, {"accounts.txt": account("larry")}, "note", ("Sign-in: l…@example.com", "limits")),
        ({}, {"tokens.txt": token("rita")}, "wrong", ("Online: the first token was refused",)),
        ({}, {"tokens.txt": token("emma")}, "wrong", ("Chat: ", "empty answer")),
        ({}, {"tokens.txt": token("paul")}, "note", ("Chat: ", "limits")),
        (
            {"K2THINK_API_URL": "{service}/v1/chat/completions", "UPSTREAM_API_KEY": "sk-wrong-key"},
            {},
            "wrong",
            ("Online: the first key was refused",),
        ),
        (
            {"K2THINK_API_URL": "{service}/elsewhere/v9/chat/completions"},
            {},
            "wrong",
            ("Chat: ", "K2THINK_API_URL"),
        ),
    ],
    ids=["sign-in", "limited-sign-in", "token", "empty", "limited-chat", "key", "elsewhere"],
)
def test_online_tells_what_the_service_refuses(
    command: Command, environ: dict[str, str], files: dict[str, Content], state: str, says: tuple[str, ...]
) -> None:
    code, out = command("--online", files=files, **environ)
    ((word, text, remedy),) = notable(out)
    assert word == state
    assert [said for said in says if said not in f"{text} {remedy}"] == []
    assert remedy
    assert code == int(state == "wrong")


def test_online_asks_an_openai_compatible_server_with_its_key(command: Command) -> None:
    environ = {"K2THINK_API_URL": "{service}/v1/chat/completions", "UPSTREAM_API_KEY": "sk-right-key"}
    code, out = command("--online", **environ)
    assert (code, notable(out)) == (0, [])
    assert "ok    Online: the first key is good\n" in out
    assert f"ok    Chat: {MODEL} answered" in out


def test_online_does_not_wait_for_ever(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2think.checkup.online.PATIENCE", 0.5)
    code, out = command("--online", files={"tokens.txt": token("sally")})
    ((_, text, _),) = notable(out)
    assert (code, text) == (1, "Chat: there was no answer within 0.5 s.")


def test_online_asks_nobody_without_a_connection(command: Command) -> None:
    code, out = command("--online", K2THINK_API_URL="http://127.0.0.1:{closed}/api/chat/completions")
    assert code == 1
    assert [(word, text.partition(":")[0]) for word, text, _ in notable(out)] == [
        ("wrong", "Upstream"),
        ("note", "Online"),
    ]
    assert "..." not in out


# check_config_simple.py


def test_the_script_prints_the_example_configuration(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--example"],
        env=PLAIN,
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (ROOT / ".env.example").read_text(encoding="utf-8")


def test_the_script_checks_and_asks(
    command: Command,
    service: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"K2THINK_API_URL={service}/api/chat/completions"
    put(tmp_path / ".env", f"VALID_API_KEY={KEY}\nHOST=127.0.0.1\nPORT=0\n{url}\n", 0o600)
    put(tmp_path / "tokens.txt", GOOD, 0o600)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--online"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    out, err = capsys.readouterr()
    assert (left.value.code, err, notable(out)) == (0, "", [])
    assert "ok    Online: the first token is good\n" in out
    assert out.endswith("All is well.\n")
