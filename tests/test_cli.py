"""The documented commands, as people run them, and what the README prints.

What listens, and what must work without the package installed, runs in a process of its own; the rest runs in this one,
because to start a process takes a second or more.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from conftest import MODEL
from rawhttp import connected
from running import PATIENT, PLAIN, ROOT, SCRIPT, WITH_PACKAGE, Running, get, started, state_of
from serving import serving
from waiting import PATIENCE, until

from k2think.cli import main, simulate
from k2think.listening import AddressUnusable, listen
from k2think.settings.example import variables
from k2think.simulator.app import create_simulator
from k2think.simulator.options import SimulatorOptions
from k2think.simulator.tokens import mint_token
from k2think.telemetry.logs import FOREIGN, access

README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULE = ("-m", "k2think")
KEY = {"VALID_API_KEY": "sk-test"}


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
def upstream() -> Iterator[str]:
    """A simulated service: its URL."""
    with serving(create_simulator(SimulatorOptions(models=(MODEL,)))) as url:
        yield url


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line in an empty folder, variables by keyword: exit code, output, error output."""
    for variable in variables():
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **environ: str) -> tuple[int, str, str]:
        # A process that ends takes with it what it has made of signals and loggers; this one does not end.
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        loggers = [logging.getLogger(name) for name in ("k2think", access.name, *FOREIGN)]
        logs = [(list(logger.handlers), logger.propagate, logger.level) for logger in loggers]
        with monkeypatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as left:
                main(arguments)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for logger, (its_handlers, propagate, level) in zip(loggers, logs, strict=True):
            logger.handlers[:], logger.propagate = its_handlers, propagate
            logger.setLevel(level)
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


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no-such-host.invalid", "a..b"])
def test_an_address_of_another_machine_is_refused_in_one_line(host: str) -> None:
    with pytest.raises(AddressUnusable, match=rf"^Cannot listen on {host} \(.+\)\. HOST must .+$"):
        listen(host, 0)


def test_a_token_file_that_cannot_be_read_is_one_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").mkdir()
    code, out, err = command("serve", "--port", "0", **KEY)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert str(tmp_path / "tokens.txt") in err


@pytest.mark.parametrize(
    ("content", "said"), [(None, "is a folder"), (b"\xff\xfe", "is not UTF-8"), (b"hunter2 =' \n", "line 1, is not")]
)
def test_an_env_file_that_cannot_be_read_is_one_line(
    command: Command, content: bytes | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / ".env"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    code, out, err = command("serve", **KEY)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert str(path) in err
    assert said in err
    assert "hunter2" not in err


def test_it_serves_and_ctrl_c_twice_ends_it_at_once_and_quietly(upstream: str, tmp_path: Path) -> None:
    (tmp_path / "my-tokens.txt").write_text(mint_token("one@example.com"))
    environ = KEY | {
        "HOST": "127.0.0.1",
        "PORT": "0",
        "STREAM_DELAY": "1",
        "DRAIN_TIMEOUT": "300",
        "TOKENS_FILE": "my-tokens.txt",
        "K2THINK_API_URL": f"{upstream}/api/chat/completions",
    }
    with started(*PATIENT, environ=environ, directory=tmp_path) as running:
        url = running.wait_for(r"API +(http://127\.0\.0\.1:\d+)/v1")
        running.wait_for("(Ctrl-C)")
        assert get(f"{url}/health")[0] == 200
        with endless_stream(url) as stream:
            running.process.send_signal(signal.SIGINT)
            running.wait_for("(Ctrl-C once more)")
            assert running.process.poll() is None
            assert running.stop(signal.SIGINT) == 0
            assert last_error(stream) == "gateway_stopping"
    printed = "".join(running.printed)
    assert "STREAM_DELAY is ignored" in printed
    assert f"1 usable in {tmp_path / 'my-tokens.txt'}" in printed
    assert "\x1b" not in printed
    assert "sk-test" not in printed
    assert "Traceback" not in printed


def test_when_stopped_it_waits_as_long_as_it_was_told_and_its_log_is_for_programs(
    upstream: str, tmp_path: Path
) -> None:
    (tmp_path / "tokens.txt").write_text(mint_token("one@example.com"))
    environ = KEY | {
        "HOST": "127.0.0.1",
        "PORT": "0",
        "STREAM_DELAY": "1",
        "K2THINK_API_URL": f"{upstream}/api/chat/completions",
        "DRAIN_TIMEOUT": "0.2",
        "LOG_FORMAT": "json",
    }
    with started(*PATIENT, environ=environ, directory=tmp_path) as running:
        url = running.wait_for(r"(http://127\.0\.0\.1:\d+)/v1")
        assert get(f"{url}/health")[0] == 200
        with endless_stream(url) as stream:
            assert running.stop(signal.SIGTERM) == 0
            assert last_error(stream) == "gateway_stopping"
    lines = [json.loads(line) for line in running.printed]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert [line["path"] for line in lines if "path" in line] == ["/health"]
    warnings = [line["message"] for line in lines if line["level"] == "WARNING"]
    assert len(warnings) == 2
    assert "STREAM_DELAY is ignored" in warnings[0]
    assert "cut off: 1" in warnings[1]
    assert not any("exception" in line or line["level"] == "ERROR" for line in lines)


@pytest.mark.skipif(sys.platform != "linux", reason="a process is looked at in /proc")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_during_the_start_is_quiet(workers: str, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.txt"
    os.mkfifo(tokens)

    def being_read() -> int:
        """What the start waits for, once it does: something to write the tokens to."""
        try:
            return os.open(tokens, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return 0

    environ = KEY | {"HOST": "127.0.0.1", "PORT": "0", "WORKERS": workers}
    with started(*MODULE, "serve", environ=environ, directory=tmp_path) as running:
        other_end = until(being_read)
        # Python hears of a signal that comes just before it waits only when it has waited: until somebody writes.
        until(lambda: state_of(running.process.pid) == "S")
        assert running.stop(signal.SIGINT) == 0
        os.close(other_end)
    assert running.printed == []


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
        assert running.wait_for(r"tokens +none usable in (\S+):") == str(copy / "data" / "mine.txt")
        assert get(f"{url}/health")[0] == 200
        assert running.stop(signal.SIGINT) == 0
    assert "Traceback" not in "".join(running.printed)


@contextmanager
def endless_stream(url: str) -> Iterator[socket.socket]:
    """A connection with a stream that has begun and does not end by itself."""
    body = {
        "model": MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": "[[fault=stall after=1]] Go"}],
    }
    headers = {"Authorization": f"Bearer {KEY['VALID_API_KEY']}"}
    with connected(url, "POST", "/v1/chat/completions", headers=headers, body=body) as connection:
        assert connection.recv(9) == b"HTTP/1.1 "
        yield connection


def last_error(stream: socket.socket) -> str:
    """The code of the error with which the rest of a stream ends properly."""
    data = b""
    while part := stream.recv(65536):
        data += part
    found = re.search(rb'data: (\{"error".*\})\n\n\r\n0\r\n\r\n$', data)
    assert found, data
    code: str = json.loads(found.group(1))["error"]["code"]
    return code


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False), ("any", False)])
def test_colours_are_for_terminals_that_want_them(
    command: Command, monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool
) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("k2think.cli.__version__", "\x1b[31m1\x1b[0m")
    assert command("--version", NO_COLOR=no_color) == (0, "1\n", "")
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    command("--version", NO_COLOR=no_color)
    assert ("\x1b" in screen.getvalue()) == coloured


# health


def test_health_asks_the_gateway_that_runs_here(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2think.cli.HEALTH_SECONDS", 60.0)
    statuses = iter((200, 503))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while scope["type"] == "lifespan":
            await send({"type": f"{(await receive())['type']}.complete"})
        assert (scope["method"], scope["path"]) == ("GET", "/health")
        await send({"type": "http.response.start", "status": next(statuses), "headers": []})
        await send({"type": "http.response.body", "body": b"well"})

    with serving(app) as url:
        port = url.rpartition(":")[2]
        asked = f"http://127.0.0.1:{port}/health"
        assert command("health", **KEY, PORT=port) == (0, f"{asked} answers: the gateway is well.\n", "")
        assert command("health", "--port", port, "--host", "127.0.0.1", **KEY) == (1, "", f"{asked} answers 503.\n")


@pytest.mark.parametrize(
    ("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]")]
)
def test_health_says_where_nobody_answers(command: Command, host: str, shown: str) -> None:
    family = socket.AF_INET6 if ":" in shown else socket.AF_INET
    with socket.socket(family) as bound:  # nobody listens there, and nobody else can
        bound.bind((shown.strip("[]"), 0))
        port = bound.getsockname()[1]
        code, out, err = command("health", **KEY, HOST=host, PORT=str(port))
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith(f"http://{shown}:{port}/health does not answer")


def test_health_does_not_wait_for_ever(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2think.cli.HEALTH_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, _, err = command("health", **KEY, PORT=str(silent.getsockname()[1]))
    assert code == 1
    assert "does not answer within 0.1 s" in err


def test_health_needs_settings_and_a_known_port(command: Command) -> None:
    code, _, err = command("health", PORT="none")
    assert code == 1
    assert err.startswith("PORT is ")
    assert "VALID_API_KEY" not in err  # nobody is asked for one
    code, _, err = command("health", **KEY, PORT="0")
    assert code == 1
    assert "--port" in err


def test_health_takes_nothing_along_that_it_does_not_need(tmp_path: Path) -> None:
    program = """
import sys
from k2think.cli import main
try:
    main(["health"])
except SystemExit as left:
    print(left.code, *sorted({"aiohttp", "fastapi", "rich", "starlette", "uvicorn"} & sys.modules.keys()))
"""
    done = python("-c", program, environ=KEY | {"PORT": "0"}, directory=tmp_path)
    assert done.stdout == "1\n"


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
