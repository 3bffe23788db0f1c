"""The documented commands, as people run them, and what the README prints.

What listens, and what must work without the package installed, runs in a process of its own; the rest runs in this one,
because to start a process takes a second or more.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from running import PATIENCE, PLAIN, ROOT, SCRIPT, WITH_PACKAGE, Running, get, started

from k2think.checkup import findings
from k2think.cli import main, simulate
from k2think.listening import AddressUnusable, listen
from k2think.settings import Settings
from k2think.settings.example import variables
from k2think.simulator.options import SimulatorOptions
from k2think.simulator.tokens import mint_token

CHECK = ROOT / "check_config_simple.py"
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULE = ("-m", "k2think")
KEY = {"VALID_API_KEY": "sk-test"}
NOW = 1_800_000_000.0


def python(
    *arguments: str | Path, environ: dict[str, str] | None = None, directory: Path, package: bool = True
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=(WITH_PACKAGE if package else PLAIN) | (environ or {}),
        cwd=directory,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line in an empty folder, variables by keyword: exit code, output, error output."""
    for variable in variables():
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **environ: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as left:
                main(arguments)
        out, err = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, out, err

    return run


# serve


def test_without_a_key_it_does_not_start_and_says_so_in_one_line(tmp_path: Path) -> None:
    done = python(*MODULE, "serve", directory=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"VALID_API_KEY is not set\. .+\n", done.stderr)


def test_every_fault_has_a_line_of_its_own(command: Command, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=http\nPROXY_URL=hunter2\n")
    code, out, err = command("serve")
    assert (code, out) == (2, "")
    assert sorted(line.split()[0] for line in err.splitlines()) == ["PORT", "PROXY_URL", "VALID_API_KEY"]
    assert "hunter2" not in err


@pytest.mark.parametrize("name", ["serve", "demo", "simulate"])
def test_a_taken_port_is_one_line(command: Command, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = command(name, "--port", str(port), **KEY, HOST="127.0.0.1")
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"Port {port} is taken .+--port {port + 1}\.\n", err)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_refused_in_one_line(host: str) -> None:
    with pytest.raises(AddressUnusable, match=f"^Cannot listen on {host}, .+$"):
        listen(host, 0)


def test_a_token_file_that_cannot_be_read_is_one_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").mkdir()
    code, out, err = command("serve", "--port", "0", **KEY)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert str(tmp_path / "tokens.txt") in err


def test_it_serves_and_leaves_quietly(tmp_path: Path) -> None:
    environ = KEY | {"HOST": "127.0.0.1", "PORT": "0", "STREAM_DELAY": "1", "TOKENS_FILE": "my-tokens.txt"}
    with started(*MODULE, "serve", environ=environ, directory=tmp_path) as running:
        url = running.wait_for(r"API +(http://127\.0\.0\.1:\d+)/v1")
        running.wait_for("(Ctrl-C)")
        assert get(f"{url}/health")[0] == 200
        assert running.stop(signal.SIGINT) == 0
    printed = "".join(running.printed)
    assert "STREAM_DELAY is ignored" in printed
    assert str(tmp_path / "my-tokens.txt") in printed
    assert "sk-test" not in printed
    assert "Traceback" not in printed


def test_the_script_works_from_any_folder_without_the_package_installed(tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    shutil.copy(SCRIPT, copy)
    (copy / "src").symlink_to(ROOT / "src")
    (copy / ".env").write_text("VALID_API_KEY=sk-beside\nHOST=127.0.0.1\nTOKENS_FILE=data/mine.txt\n")
    work = tmp_path / "work"
    work.mkdir()
    with started(copy / SCRIPT.name, "--port", "0", environ={"PYTHONPATH": ""}, directory=work) as running:
        url = running.wait_for(r"API +(http://\S+)/v1")
        assert running.wait_for(r"tokens +(.+)") == str(copy / "data" / "mine.txt")
        assert get(f"{url}/health")[0] == 200
        assert running.stop(signal.SIGINT) == 0


# demo


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose .env would stop the demo if it were read."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / ".env").write_text("PORT=http\nVALID_API_KEY=other\n")
    return folder


@pytest.fixture(scope="module")
def demo(demo_folder: Path) -> Iterator[Running]:
    """A demo on a free port."""
    environ = {"VALID_API_KEY": "other", "TMPDIR": str(demo_folder)}
    with started(*MODULE, "demo", "--port", "0", environ=environ, directory=demo_folder) as running:
        running.wait_for(r"(Ctrl-C)")
        yield running


@pytest.fixture(scope="module")
def demo_url(demo: Running) -> str:
    found = re.search(r"base URL +(http://\S+)/v1", "".join(demo.printed))
    assert found
    return found.group(1)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def shell(command: str, directory: Path) -> str:
    done = subprocess.run(
        ["bash", "-c", command],
        env=PLAIN,
        cwd=directory,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def streamed(output: str) -> tuple[str, str]:
    """Thinking and answer of a stream as curl prints it."""
    frames = [line.removeprefix("data: ") for line in output.splitlines() if line.startswith("data: ")]
    assert frames[-1] == "[DONE]"
    deltas = [choice["delta"] for frame in frames[:-1] for choice in json.loads(frame)["choices"]]
    thinking = "".join(delta.get("reasoning_content") or "" for delta in deltas)
    return thinking, "".join(delta.get("content") or "" for delta in deltas)


def test_the_demo_says_plainly_that_it_is_one(demo: Running) -> None:
    assert "the answers are simulated" in "".join(demo.printed)


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")
def test_the_command_that_the_demo_prints_works(demo: Running, tmp_path: Path) -> None:
    command = re.search(r"^curl .*?'$", "".join(demo.printed), re.MULTILINE | re.DOTALL)
    assert command
    thinking, answer = streamed(shell(command.group(), tmp_path))
    assert thinking
    assert "391" in answer


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")
def test_the_commands_of_the_readme_work(demo_url: str, tmp_path: Path) -> None:
    commands = [block for block in blocks("bash") if "curl" in block]
    assert commands
    for command in commands:
        thinking, answer = streamed(shell(command.replace("http://localhost:8001", demo_url), tmp_path))
        assert thinking
        assert "391" in answer


@pytest.mark.parametrize("place", range(3))
def test_the_programs_of_the_readme_work(
    place: int, demo_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = blocks("python")[place]
    path = tmp_path / "program.py"
    path.write_text(program.replace("http://localhost:8001", demo_url), encoding="utf-8")
    runpy.run_path(str(path), run_name="__main__")
    assert ("get_weather" if "tools=" in program else "391") in capsys.readouterr().out


def test_all_programs_of_the_readme_are_run() -> None:
    assert len(blocks("python")) == 3


def test_the_demo_leaves_nothing_behind(demo: Running, demo_folder: Path) -> None:
    # The last of the tests that need the demo.
    assert list(demo_folder.glob("k2think-demo-*"))
    assert demo.stop(signal.SIGTERM) == 0
    assert list(demo_folder.glob("k2think-demo-*")) == []
    assert "Traceback" not in "".join(demo.printed)


# simulate


def test_the_simulator_says_where_it_is(tmp_path: Path) -> None:
    with started(*MODULE, "simulate", "--port", "0", "--model", "m/one", directory=tmp_path) as running:
        url = running.wait_for(r"(http://127\.0\.0\.1:\d+)")
        assert get(f"{url}/health")[0] == 200
        assert running.stop(signal.SIGINT) == 0


def test_every_option_of_the_simulator_is_a_flag() -> None:
    several = {"models": "model", "accounts": "account"}
    options = {several.get(field.name, field.name) for field in fields(SimulatorOptions)}
    assert set(simulate.__annotations__) - {"return", "host", "port"} == options


# check


def test_check_says_all_is_well(command: Command, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("VALID_API_KEY=hunter2,hunter3\nPORT=9000\nPROXY_URL=http://me:hunter4@host\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tokens.txt").write_text("# mine\none\ntwo\none\n")
    code, out, err = command("check")
    assert (code, err) == (0, "")
    assert f"2 in {tmp_path / 'data' / 'tokens.txt'}" in out
    assert str(tmp_path / ".env") in out
    assert "PORT: 9000" in out
    assert "hunter" not in out


def test_check_says_what_is_wrong(command: Command) -> None:
    code, out, err = command("check", **KEY, PORT="x")
    assert (code, err) == (1, "")
    assert out.startswith("wrong PORT is 'x'.")
    code, out, err = command("check", **KEY)
    assert (code, err) == (1, "")
    assert out.endswith("Something is wrong: see above.\n")


def found(state: str, environ: dict[str, str], directory: Path) -> list[str]:
    """What the check-up says of this state."""
    said = findings(Settings.load(KEY | environ, directory=directory), NOW)
    return [finding.text for finding in said if finding.state == state]


def wrong(environ: dict[str, str], directory: Path) -> list[str]:
    return found("wrong", environ, directory)


def test_check_misses_the_files_that_are_needed_and_no_others(tmp_path: Path) -> None:
    (no_tokens,) = wrong({}, tmp_path)
    assert "TOKENS_FILE" in no_tokens
    (no_accounts,) = wrong({"ENABLE_TOKEN_AUTO_UPDATE": "true"}, tmp_path)
    assert "accounts.txt is not there" in no_accounts
    assert wrong({"UPSTREAM_PROTOCOL": "openai"}, tmp_path) == []
    (tmp_path / "tokens.txt").mkdir()
    (unreadable,) = wrong({}, tmp_path)
    assert "tokens.txt cannot be read" in unreadable


def test_check_prints_the_example_configuration(tmp_path: Path) -> None:
    done = python(CHECK, "--example", directory=tmp_path, package=False)
    assert done.returncode == 0
    assert done.stdout == (ROOT / ".env.example").read_text(encoding="utf-8")


def test_check_counts_the_tokens_that_have_expired_or_soon_will(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.txt"
    old, late, good = (mint_token(f"{ttl}@example.com", ttl=ttl, now=NOW) for ttl in (-1.0, 600.0, 86400.0))
    tokens.write_text(f"{old}\n{late}\n{good}\nsk-says-nothing\n")
    assert wrong({}, tmp_path) == []
    assert found("note", {}, tmp_path) == [
        "Tokens: 1 of 4 expired already.",
        "Tokens: 1 of 4 will expire within the hour.",
    ]
    tokens.write_text(old)
    assert wrong({}, tmp_path) == ["Tokens: 1 of 1 expired already."]


def test_check_names_bad_lines_of_the_accounts_file_and_quotes_none(tmp_path: Path) -> None:
    (tmp_path / "accounts.txt").write_text(
        '{"email": "me@example.com", "k2_password": "hunter2"}\n\nme@example.com hunter2\n'
    )
    automatic = {"ENABLE_TOKEN_AUTO_UPDATE": "true"}
    (bad,) = wrong(automatic, tmp_path)
    assert "accounts.txt, line 3: " in bad
    assert "hunter2" not in bad
    assert f"Accounts: 1 in {tmp_path / 'accounts.txt'}" in found("ok", automatic, tmp_path)
    (tmp_path / "accounts.txt").write_text("# none\n")
    (none,) = wrong(automatic, tmp_path)
    assert "holds no account" in none


def test_check_misses_a_script_that_was_named(tmp_path: Path) -> None:
    (tmp_path / "accounts.txt").write_text('{"email": "me@example.com", "k2_password": "hunter2"}')
    automatic = {"ENABLE_TOKEN_AUTO_UPDATE": "true"}
    assert wrong(automatic, tmp_path) == []
    (missing,) = wrong(automatic | {"GET_TOKENS_SCRIPT": "mine.py"}, tmp_path)
    assert missing.startswith(f"GET_TOKENS_SCRIPT: {tmp_path / 'mine.py'} is not there")


@pytest.mark.parametrize(("variable", "title"), [("STATE_DIR", "State"), ("DATA_DIR", "Files")])
def test_check_says_when_nothing_can_be_kept_and_makes_nothing(variable: str, title: str, tmp_path: Path) -> None:
    assert not [text for text in found("note", {}, tmp_path) if text.startswith(title)]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    (said,) = (text for text in found("note", {variable: "file/below"}, tmp_path) if text.startswith(title))
    assert str(tmp_path / "file" / "below") in said


def test_check_wants_several_workers_to_have_a_core_each_and_a_folder_to_share(tmp_path: Path) -> None:
    def notes(workers: int) -> list[str]:
        return [text for text in found("note", {"WORKERS": str(workers)}, tmp_path) if text.startswith("WORKERS")]

    cores = os.cpu_count() or 1
    assert not notes(cores)
    assert notes(cores + 1)
    (tmp_path / "file").touch()
    (tmp_path / "tokens.txt").write_text("one")
    environ = {"STATE_DIR": "file/below"}
    assert not wrong(environ, tmp_path)
    (not_shared,) = wrong(environ | {"WORKERS": "2"}, tmp_path)
    assert "STATE_DIR" in not_shared
