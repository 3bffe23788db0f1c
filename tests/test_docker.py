"""What the image, the compose file and the examples for servers promise, as far as it shows without Docker.

.github/workflows/image.yml builds and runs the image. That a token file which is mounted by itself is updated too, is
tested in credentials/test_token_file.py.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from running import ROOT, started
from waiting import PATIENCE

from k2think import workers
from k2think.cli import app
from k2think.settings.example import variables
from k2think.settings.sections import Files, Server, Upstream

DEFAULTS = {variable.name: variable.default for variable in variables()}

# .dockerignore


def ignored(path: str, rules: list[str]) -> bool:
    """Whether Docker leaves the file out: of the rules that match it or a folder above, the last one decides."""
    parts = path.split("/")
    places = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    left_out = False
    for rule in rules:
        pattern = rule.removeprefix("!")
        if any(matches(place, pattern) for place in places):
            left_out = not rule.startswith("!")
    return left_out


def matches(place: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        rest = pattern.removeprefix("**/")
        parts = place.split("/")
        return any(matches("/".join(parts[start:]), rest) for start in range(len(parts)))
    return place.count("/") == pattern.count("/") and fnmatch.fnmatchcase(place, pattern)


@pytest.fixture(scope="module")
def rules() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_rules_are_read_as_docker_reads_them() -> None:
    assert ignored("src/a.pyc", ["*", "!src", "**/*.pyc"])
    assert not ignored("src/a.py", ["*", "!src", "**/*.pyc"])
    assert ignored("src/deep/.env", ["*", "!src", "**/.env*"])
    assert ignored(".env", ["*"])
    assert not ignored("data/tokens.txt", ["*.txt"])
    assert not ignored("data/tokens.txt", ["data", "!data/tokens.txt"])


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".env.local",
        "tokens.txt",
        "tokens.txt.backup",
        "tokens.txt.pending",
        "tokens.txt.tmp",
        "accounts.txt",
        "data/accounts.txt",
        "data/files/file-1",
        "data/state/credentials%2fhealth",
        "data/tokens.txt",
        "data/tokens.txt.backup",
        "my-secrets.json",
        "src/.env",
        "src/k2think/accounts.txt",
        "src/k2think/tokens.txt.tmp",
    ],
)
def test_no_secret_gets_into_a_build(path: str, rules: list[str]) -> None:
    assert ignored(path, rules)


@pytest.mark.parametrize("path", [".git/config", ".venv/bin/python", "tests/conftest.py", "src/__pycache__/a.pyc"])
def test_a_build_takes_no_more_than_it_needs(path: str, rules: list[str]) -> None:
    assert ignored(path, rules)


# Dockerfile


@dataclass(frozen=True)
class Instruction:
    word: str
    rest: str

    @property
    def exec_form(self) -> list[str]:
        """Its words where it is a JSON array, which Docker runs without a shell."""
        found: list[str] = json.loads(self.rest)
        return found


@dataclass(frozen=True)
class Stage:
    base: str
    name: str
    instructions: tuple[Instruction, ...]

    def all(self, word: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.word == word]

    def one(self, word: str) -> Instruction:
        (instruction,) = self.all(word)
        return instruction


def instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield Instruction(word, " ".join(rest.split()))


def stages(text: str) -> list[Stage]:
    arguments: dict[str, str] = {}
    found: list[tuple[str, str, list[Instruction]]] = []
    for instruction in instructions(text):
        if instruction.word == "FROM":
            base, _, name = instruction.rest.partition(" AS ")
            found.append((re.sub(r"\$\{(\w+)\}", lambda use: arguments[use[1]], base), name, []))
        elif not found:
            assert instruction.word == "ARG"
            name, _, value = instruction.rest.partition("=")
            arguments[name] = value
        else:
            found[-1][2].append(instruction)
    return [Stage(base, name, tuple(held)) for base, name, held in found]


@pytest.fixture(scope="module")
def image() -> list[Stage]:
    return stages((ROOT / "Dockerfile").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def final(image: list[Stage]) -> Stage:
    return image[-1]


def sources(stage: Stage) -> list[str]:
    """What it copies out of this folder."""
    copies = [shlex.split(copy.rest) for copy in stage.all("COPY")]
    return [source for words in copies if not words[0].startswith("--from=") for source in words[:-1]]


def test_the_base_changes_only_on_purpose(image: list[Stage]) -> None:
    assert len(image) == 2
    for stage in image:
        assert re.fullmatch(r"python:3\.\d+\.\d+-slim-bookworm(@sha256:[0-9a-f]{64})?", stage.base)


def test_everything_that_is_copied_is_there_and_gets_into_the_build(image: list[Stage], rules: list[str]) -> None:
    names = [name for stage in image for name in sources(stage)]
    assert {"src", "requirements.txt", "pyproject.toml"} <= set(names)
    assert [name for name in names if not (ROOT / name).exists()] == []
    files = [
        str(path.relative_to(ROOT))
        for name in names
        for path in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert len(files) > 50
    assert [name for name in files if ignored(name, rules)] == []


def test_whole_folders_are_not_copied(image: list[Stage]) -> None:
    assert [name for stage in image for name in sources(stage) if name in {".", "./", "*", "data"}] == []


def test_only_pinned_releases_are_installed(image: list[Stage]) -> None:
    runs = " && ".join(run.rest for stage in image for run in stage.all("RUN"))
    installs = [step.split() for step in runs.split(" && ") if " install " in step and "pip" in step]
    assert len(installs) == 3
    for words in installs:
        assert "--no-deps" in words
        assert "--no-index" in words or {"--require-hashes", "--only-binary=:all:"} <= set(words)
    assert "apt-get" not in runs
    assert "curl" not in runs


def test_it_does_not_run_as_root(final: Stage) -> None:
    assert final.one("USER").rest == "10001:10001"
    (run,) = final.all("RUN")
    assert "--uid 10001 --gid 10001" in run.rest
    assert "sudo" not in run.rest


def test_it_works_where_the_mounted_files_are_looked_for(final: Stage) -> None:
    assert final.one("WORKDIR").rest == "/app"
    (run,) = final.all("RUN")
    assert re.search(r"install -d -o 10001 -g 10001 -m 0777 /app /app/data$", run.rest)


def test_commands_are_run_without_a_shell_and_exist(final: Stage) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (program,) = final.one("ENTRYPOINT").exec_form
    assert program in project["scripts"]
    commands = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    (command,) = final.one("CMD").exec_form
    assert command in commands
    options, _, asked = final.one("HEALTHCHECK").rest.partition(" CMD ")
    called, *words = json.loads(asked)
    assert called == program
    assert words == ["health"]
    assert words[0] in commands
    assert {option.partition("=")[0] for option in options.split()} == {
        "--interval",
        "--timeout",
        "--start-period",
        "--retries",
    }
    assert final.one("STOPSIGNAL").rest == "SIGTERM"
    assert final.one("EXPOSE").rest == DEFAULTS["PORT"]


def test_neither_secrets_nor_settings_are_baked_in(image: list[Stage]) -> None:
    baked = {
        name
        for stage in image
        for instruction in (*stage.all("ENV"), *stage.all("ARG"))
        for name in re.findall(r"([A-Z_0-9]+)=", instruction.rest)
    }
    assert "PATH" in baked
    assert baked & DEFAULTS.keys() == set()
    assert {name for name in baked if re.search("KEY|TOKEN|SECRET|PASSWORD", name)} == set()


# docker-compose.yml


def plain_yaml(text: str) -> Any:
    """What a YAML file says that is made of blocks of mappings and lists, with plain or quoted texts in them."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found, rest = _block([(len(line) - len(line.lstrip()), line.strip()) for line in lines])
    assert not rest
    return found


def _block(lines: list[tuple[int, str]]) -> tuple[Any, list[tuple[int, str]]]:
    indent = lines[0][0]
    items: list[Any] = []
    fields: dict[str, Any] = {}
    while lines and lines[0][0] == indent:
        _, line = lines[0]
        if line.startswith("- "):
            item = line.removeprefix("- ")
            if re.match(r"\w+: ", item):
                held, lines = _block([(indent + 2, item), *lines[1:]])
                items.append(held)
            else:
                items.append(item.strip('"'))
                lines = lines[1:]
        else:
            name, colon, value = line.partition(":")
            assert colon, line
            lines = lines[1:]
            if value:
                fields[name] = value.strip().strip('"')
            else:
                assert lines
                assert lines[0][0] > indent, line
                fields[name], lines = _block(lines)
    assert not (items and fields)
    return items or fields, lines


def test_the_reader_of_yaml_reads_what_is_here() -> None:
    text = 'a:\n  b: "1"\n  # no\n  c:\n    - x:y\n    - d: 1\n      e:\n        f: g\ng: h\n'
    assert plain_yaml(text) == {"a": {"b": "1", "c": ["x:y", {"d": "1", "e": {"f": "g"}}]}, "g": "h"}


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    compose = plain_yaml((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert list(compose["services"]) == ["k2think-api"]
    found: dict[str, Any] = compose["services"]["k2think-api"]
    return found


def test_compose_runs_the_image_of_the_documented_command(service: dict[str, Any]) -> None:
    assert (service["build"], service["image"]) == (".", "k2think-api")
    assert service["ports"] == [f"${{PUBLISH:-0.0.0.0}}:${{PORT:-{DEFAULTS['PORT']}}}:{service['environment']['PORT']}"]
    assert service["restart"] == "unless-stopped"
    assert not {"command", "entrypoint", "healthcheck"} & service.keys()  # those are the image's


def test_compose_gives_the_container_no_more_than_it_needs(service: dict[str, Any], final: Stage) -> None:
    assert service["user"] == f"${{CONTAINER_USER:-{final.one('USER').rest}}}"
    assert service["read_only"] == "true"
    assert service["tmpfs"] == ["/tmp:size=64m"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"cap_add", "privileged", "network_mode", "devices", "pid"} & service.keys()


def test_compose_mounts_the_secrets_and_names_none(service: dict[str, Any]) -> None:
    settings, data = service["volumes"]
    assert settings == {
        "type": "bind",
        "source": "./.env",
        "target": "/app/.env",
        "read_only": "true",
        "bind": {"create_host_path": "false"},
    }
    assert data == "./data:/app/data"
    secret = {variable.name for variable in variables() if variable.secret}
    assert service["environment"].keys() <= DEFAULTS.keys() - secret


def test_compose_lets_everything_be_written_where_something_is_mounted(service: dict[str, Any]) -> None:
    folders = {name: service["environment"][name] for name in DEFAULTS if name.endswith(("_DIR", "S_FILE"))}
    assert folders.keys() == {"TOKENS_FILE", "ACCOUNTS_FILE", "STATE_DIR", "DATA_DIR"}
    assert all(folder.partition("/")[0] == "data" for folder in folders.values())


def test_compose_waits_until_running_answers_have_ended(service: dict[str, Any]) -> None:
    patience = int(service["stop_grace_period"].removesuffix("s"))
    assert patience > Server().drain_timeout + workers.CLOSING_SECONDS


def test_compose_bounds_the_log(service: dict[str, Any]) -> None:
    assert service["logging"]["driver"] == "json-file"
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


# Running where nothing but data/ can be written


def without_privileges() -> list[str]:
    """What to put before a command so that the permissions of files hold for it, as for a user who is not root."""
    if os.getuid():
        return []
    words = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]
    can = shutil.which("setpriv") and subprocess.run([*words, "true"], check=False, timeout=PATIENCE).returncode == 0
    if not can:
        pytest.skip("root cannot do without its privileges here")
    return words


def test_it_serves_where_only_data_can_be_written(tmp_path: Path) -> None:
    home = tmp_path / "app"
    data = home / "data"
    data.mkdir(parents=True)
    (home / ".env").write_text("VALID_API_KEY=sk-test\nHOST=127.0.0.1\nPORT=0\n")
    (data / "tokens.txt").write_text("sk-one\nsk-two\n")
    home.chmod(0o555)
    environ = {"PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}
    program = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
    command = [*without_privileges(), sys.executable]
    try:
        tried = [*command, "-c", "open('written', 'w')"]
        assert subprocess.run(tried, cwd=home, capture_output=True, check=False, timeout=PATIENCE).returncode == 1
        with started("-c", program, *command, "-m", "k2think", "serve", environ=environ, directory=home) as running:
            url = running.wait_for(r"API +(http://127\.0\.0\.1:\d+)/v1")
            assert running.wait_for(r"tokens +(.+)").endswith(str(data / "tokens.txt"))
            assert upload(url) == 200
            assert running.stop(signal.SIGTERM) == 0
    finally:
        home.chmod(0o755)
    printed = "".join(running.printed)
    assert "Traceback" not in printed
    assert "Permission" not in printed
    assert sorted(path.name for path in home.iterdir()) == [".env", "data"]
    assert list((data / "files").iterdir())


def upload(url: str) -> int:
    import httpx2 as httpx

    headers = {"Authorization": "Bearer sk-test"}
    files = {"file": ("a.txt", b"Hello.", "text/plain")}
    with httpx.Client(verify=False, trust_env=False, timeout=PATIENCE) as client:
        return client.post(f"{url}/v1/files", headers=headers, data={"purpose": "user_data"}, files=files).status_code


# deploy/


def test_nginx_says_that_it_forwards_and_holds_nothing_back() -> None:
    text = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    said = [line.strip().rstrip(";").split(None, 1) for line in text.splitlines() if line.strip().endswith(";")]
    directives = [(name, " ".join(value.split())) for name, value in said]
    assert ("proxy_set_header", "X-Forwarded-For $proxy_add_x_forwarded_for") in directives
    assert ("proxy_buffering", "off") in directives
    values = dict(directives)
    assert int(values["client_max_body_size"].removesuffix("m")) > Files().max_file_mb
    assert int(values["proxy_read_timeout"].removesuffix("s")) >= Upstream().total_timeout
    assert values["server"] == f"127.0.0.1:{DEFAULTS['PORT']}"


def test_caddy_lets_as_much_through() -> None:
    text = (ROOT / "deploy" / "Caddyfile").read_text(encoding="utf-8")
    found = re.search(r"^\t\tmax_size (\d+)MiB$", text, re.MULTILINE)
    assert found
    assert int(found.group(1)) > Files().max_file_mb
    assert f"reverse_proxy 127.0.0.1:{DEFAULTS['PORT']} {{\n" in text
    directives = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    assert not any("flush_interval" in line for line in directives)


def test_systemd_gives_it_the_time_it_needs_and_does_not_start_it_in_vain() -> None:
    text = (ROOT / "deploy" / "k2think-api.service").read_text(encoding="utf-8")
    values = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z]\w+=", line))
    assert values["ExecStart"].endswith("/bin/k2think serve")
    assert values["User"] not in {"root", "0"}
    assert values["RestartPreventExitStatus"] == str(workers.CANNOT_START)
    assert float(values["TimeoutStopSec"]) > Server().drain_timeout + workers.CLOSING_SECONDS
    assert values["WorkingDirectory"] == f"/var/lib/{values['StateDirectory'].split()[0]}"
