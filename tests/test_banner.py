"""What is printed at the start: by itself for all settings, and on a terminal by a gateway that has no token yet."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from conftest import KEY, MODEL
from rawhttp import RawAnswer, request
from running import SCRIPT, WITH_PACKAGE
from serving import serving
from waiting import PATIENCE, until

from k2think.banner import Line, banner
from k2think.credentials.health import Health
from k2think.credentials.persistence import KEY as KEPT
from k2think.credentials.token_file import read_tokens
from k2think.settings import Settings
from k2think.simulator.app import SimulatorOptions, create_simulator, mint_token
from k2think.storage.directory import DirectoryStorage

NOW = 1_800_000_000.0
URL = "http://127.0.0.1:8001"


def lines(directory: Path, **environ: str) -> dict[str, Line]:
    """The banner's lines, by their labels."""
    settings = Settings.load({"VALID_API_KEY": "sk-not-to-be-shown", **environ}, directory=directory)
    found = list(banner(settings, URL, NOW))
    assert all("not-to-be-shown" not in line.text for line in found)
    return {line.label: line for line in found}


def write(directory: Path, *ttls: float) -> Path:
    """A token file with tokens that expire in so many seconds."""
    path = directory / "tokens.txt"
    path.write_text("".join(f"{mint_token(f'{n}@example.com', ttl=ttl, now=NOW)}\n" for n, ttl in enumerate(ttls)))
    return path


def test_it_has_four_lines_and_says_where_and_what(tmp_path: Path) -> None:
    path = write(tmp_path, 60, 60)
    found = lines(tmp_path, HOST="::", K2THINK_API_URL="https://example.com/api/chat/completions")
    assert list(found) == ["API", "upstream", "tokens", "modes"]
    assert str(found["API"]) == f"  API       {URL}/v1   (listening on ::)"
    assert found["upstream"].text == "https://example.com/api/chat/completions   (protocol k2think)"
    assert found["tokens"].text == f"2 usable in {path}"
    assert not any(line.is_wrong for line in found.values())


def test_tokens_that_cannot_be_used_are_not_counted_as_usable(tmp_path: Path) -> None:
    path = write(tmp_path, 60, -60, 60, 60)
    assert lines(tmp_path)["tokens"].text == f"3 of 4 usable in {path} (1 expired)"
    first, _, third, _ = read_tokens(path)
    known = [Health(first.id, disabled="rejected"), Health(third.id, until=NOW + 10)]
    DirectoryStorage(tmp_path / "data" / "state").put(KEPT, msgspec.json.encode(known))
    assert lines(tmp_path)["tokens"].text == f"2 of 4 usable in {path} (1 resting, 1 disabled, 1 expired)"
    expired = write(tmp_path, -60)
    line = lines(tmp_path)["tokens"]
    assert line.is_wrong
    assert line.text.startswith(f"none usable in {expired} (1 expired): chats get 503. ")


def test_without_a_token_it_says_what_to_do(tmp_path: Path) -> None:
    line = lines(tmp_path)["tokens"]
    assert line.is_wrong
    assert "TOKENS_FILE" in line.text
    assert "k2think check" in line.text
    assert "taken up at once" in line.text


def test_a_token_file_that_has_become_unreadable_is_told(tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").mkdir()
    line = lines(tmp_path)["tokens"]
    assert line.is_wrong
    assert line.text.startswith(f"{tmp_path / 'tokens.txt'} cannot be read")


def test_with_automatic_update_the_accounts_matter(tmp_path: Path) -> None:
    automatic = {"ENABLE_TOKEN_AUTO_UPDATE": "true"}
    accounts = tmp_path / "accounts.txt"
    none = lines(tmp_path, **automatic)["tokens"]
    assert none.is_wrong
    assert f"there is no account in {accounts}" in none.text
    accounts.mkdir()
    assert f"{accounts} is a folder" in lines(tmp_path, **automatic)["tokens"].text
    accounts.rmdir()
    accounts.write_text('{"email": "me@example.com", "k2_password": "hunter2"}')
    coming = lines(tmp_path, **automatic)["tokens"]
    assert not coming.is_wrong
    assert coming.text == f"none usable in {tmp_path / 'tokens.txt'} yet; they are being made from {accounts}"
    write(tmp_path, 60)
    assert lines(tmp_path, **automatic)["tokens"].text.endswith(f"; renewed from {accounts}")


def test_an_openai_compatible_server_has_keys_or_tokens_or_neither(tmp_path: Path) -> None:
    openai = {"K2THINK_API_URL": "https://example.com/v1/chat/completions"}
    assert lines(tmp_path, **openai)["upstream"].text.endswith("(protocol openai)")
    neither = lines(tmp_path, **openai)["tokens"]
    assert not neither.is_wrong
    assert "no API key" in neither.text
    keys = lines(tmp_path, **openai, UPSTREAM_API_KEY="sk-not-to-be-shown-1,sk-not-to-be-shown-2")["tokens"]
    assert keys.text == "not needed: 2 API keys (UPSTREAM_API_KEY)"
    write(tmp_path, 60)
    assert lines(tmp_path, **openai)["tokens"].text.startswith("1 usable in ")


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "accounts: off (ENABLE_TOKEN_AUTO_UPDATE=false); admin: without a key from this machine"),
        ({"ENABLE_TOKEN_AUTO_UPDATE": "true"}, "admin: without a key from this machine"),
        ({"UPSTREAM_PROTOCOL": "openai"}, "admin: without a key from this machine"),
        ({"ADMIN_KEYLESS": "false"}, "admin: with a key only (ADMIN_KEYLESS=false)"),
        ({"ENABLE_TOOLIFY": "false"}, "tools: off (ENABLE_TOOLIFY=false)"),
        ({"ENABLE_ACCESS_LOG": "false"}, "request log: off (ENABLE_ACCESS_LOG=false)"),
        ({"WORKERS": "3"}, "workers: 3"),
    ],
)
def test_what_is_off_or_open_is_said_with_its_setting(environ: dict[str, str], said: str, tmp_path: Path) -> None:
    text = lines(tmp_path, **environ)["modes"].text
    assert said in text
    assert len(environ) != 1 or "workers" in said or "workers" not in text
    if "ENABLE_TOKEN_AUTO_UPDATE" in environ or "UPSTREAM_PROTOCOL" in environ:
        assert text == said


def chat(url: str) -> RawAnswer:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    return request(url, "POST", "/v1/chat/completions", headers={"Authorization": f"Bearer {KEY}"}, body=body)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_a_gateway_without_a_token_says_so_in_red_stays_up_and_serves_once_there_is_one(tmp_path: Path) -> None:
    terminal, its_end = os.openpty()
    screen = bytearray()

    def read() -> str:
        while select.select([terminal], [], [], 0)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # nobody is at its other end any more
                break
            screen.extend(part)
        return screen.decode(errors="replace")  # it may end within a character

    with serving(create_simulator(SimulatorOptions(models=(MODEL,)))) as upstream:
        environ = {
            "VALID_API_KEY": KEY,
            "HOST": "127.0.0.1",
            "PORT": "0",
            "K2THINK_API_URL": f"{upstream}/api/chat/completions",
        }
        command = [sys.executable, str(SCRIPT)]
        with subprocess.Popen(
            command, env=WITH_PACKAGE | environ, cwd=tmp_path, stdin=its_end, stdout=its_end, stderr=its_end
        ) as process:
            os.close(its_end)
            try:
                until(lambda: "Ctrl-C" in read())
                found = re.search(r"API +(http://\S+)/v1", read())
                assert found
                assert re.search(r"\x1b\[31m  tokens .+TOKENS_FILE.+\x1b\[0m", read())
                refused = chat(found.group(1))
                assert refused.status == 503
                error = refused.json()["error"]
                assert error["code"] == "no_usable_token"
                assert "TOKENS_FILE" in error["message"]
                assert "k2think check" in error["message"]
                (tmp_path / "tokens.txt").write_text(mint_token("one@example.com", ttl=3600, now=time.time()))
                until(lambda: chat(found.group(1)).status == 200)
                process.send_signal(signal.SIGINT)
                assert process.wait(PATIENCE) == 0
            finally:
                process.kill()
    assert "Traceback" not in read()
    assert KEY not in read()
    os.close(terminal)
