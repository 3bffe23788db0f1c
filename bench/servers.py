"""The servers of a run: the upstream, the gateway with any settings, nginx as the ceiling of a proxy, the gateway's
libraries by themselves as what Python allows, and LiteLLM.

Each is started in a folder of its own below the run's temporary one, on 127.0.0.1, with its key in a file there.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.machine import Cores
from bench.processes import NotStarted, Process, running

ROOT = Path(__file__).parents[1]
MODEL = "MBZUAI-IFM/K2-Think"
CHAT = "/v1/chat/completions"
START_SECONDS = 300.0
TOKENS = 10


@dataclass(frozen=True)
class Server:
    """Something that answers chats."""

    name: str
    process: Process
    port: int
    key: Path | None = None
    start_seconds: float = 0.0
    """From the start of the process to its first whole answer."""


@dataclass(frozen=True)
class Ground:
    """Where servers are started: the compiled programs, the run's folder, the cores, and where the peers are."""

    programs: Path
    directory: Path
    cores: Cores
    peers: Path | None = None

    def folder(self, name: str) -> Path:
        """A new folder that only we can read."""
        folder = self.directory / f"{name}-{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        return folder

    @contextlib.contextmanager
    def upstream(self) -> Iterator[Server]:
        """The imitation of K2-Think's web service, which chooses its own port."""
        folder = self.folder("upstream")
        command = (self.programs / "upstream", "0")
        with running(command, cores=self.cores.others, directory=folder) as process:
            yield Server("direct", process, _printed_port(process))

    @contextlib.contextmanager
    def gateway(
        self,
        upstream: Server,
        name: str = "gateway",
        *,
        tokens: int = TOKENS,
        cores: frozenset[int] | None = None,
        **settings: str,
    ) -> Iterator[Server]:
        """The gateway with its defaults but for `settings`; its log, with a line for each request, goes to a file."""
        folder = self.folder("gateway")
        key = _key_file(folder)
        port = free_port()
        (folder / "tokens.txt").write_text("".join(f"token-{number}\n" for number in range(tokens)))
        chosen = {
            "K2THINK_API_URL": f"http://127.0.0.1:{upstream.port}/api/chat/completions",
            "VALID_API_KEY": key.read_text(),
            "TOKENS_FILE": "tokens.txt",
            "STATE_DIR": "state",
            "DATA_DIR": "data",
            "HOST": "127.0.0.1",
            "PORT": str(port),
            **settings,
        }
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in chosen.items()))
        command = (sys.executable, ROOT / "k2think_proxy.py")
        with running(command, cores=cores or self.cores.server, directory=folder) as process:
            yield _answering(name, process, port, key)

    @contextlib.contextmanager
    def nginx(self, upstream: Server) -> Iterator[Server]:
        """nginx with one worker, passing bytes through as they come. Raises `FileNotFoundError` where there is none."""
        program = find_nginx()
        if program is None:
            raise FileNotFoundError("There is no nginx here.")
        folder = self.folder("nginx")
        port = free_port()
        template = (ROOT / "bench" / "nginx.conf").read_text(encoding="utf-8")
        (folder / "nginx.conf").write_text(template.replace("@PORT@", str(port)).replace("@UP@", str(upstream.port)))
        command = (program, "-p", folder, "-c", "nginx.conf", "-e", "stderr")
        with running(command, cores=self.cores.server, directory=folder) as process:
            yield _answering("nginx", process, port, None)

    @contextlib.contextmanager
    def floor(self, upstream: Server) -> Iterator[Server]:
        """The gateway's libraries without the gateway."""
        folder = self.folder("floor")
        port = free_port()
        environ = {
            "PORT": str(port),
            "UPSTREAM": f"http://127.0.0.1:{upstream.port}/api/chat/completions",
            "PYTHONPATH": str(ROOT / "src"),
        }
        command = (sys.executable, ROOT / "bench" / "floor.py")
        with running(command, cores=self.cores.server, directory=folder, environ=environ) as process:
            yield _answering("floor", process, port, None)

    @contextlib.contextmanager
    def litellm(self, upstream: Server) -> Iterator[Server]:
        """LiteLLM's proxy as its documentation has it for production: one worker, uvloop, no logging.

        Raises `FileNotFoundError` where it is not to be measured, or not installed.
        """
        program = self.peers / "litellm" / "bin" / "litellm" if self.peers else None
        if program is None or not program.exists():
            raise FileNotFoundError("LiteLLM was left out: make bench PEERS=1.")
        folder = self.folder("litellm")
        key = _key_file(folder)
        port = free_port()
        config = {  # YAML is a superset of JSON
            "model_list": [
                {
                    "model_name": MODEL,
                    "litellm_params": {
                        "model": f"openai/{MODEL}",
                        "api_base": f"http://127.0.0.1:{upstream.port}/v1",
                        "api_key": "none",
                    },
                }
            ],
            "litellm_settings": {"num_retries": 0, "request_timeout": 600, "set_verbose": False},
            "general_settings": {"master_key": key.read_text()},
        }
        (folder / "config.yaml").write_text(json.dumps(config))
        command = (
            program, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port),
            "--num_workers", "1", "--telemetry", "False",
        )  # fmt: skip
        environ = {
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # nothing is fetched from outside
            "LITELLM_TELEMETRY": "False",
        }
        with running(command, cores=self.cores.server, directory=folder, environ=environ) as process:
            yield _answering("litellm", process, port, key)


def find_nginx() -> str | None:
    """Where nginx is: often in a folder that is only in an administrator's path."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin")


def free_port() -> int:
    """A port that was free a moment ago, for servers that cannot say which one they took."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def ask(port: int, key: Path | None) -> None:
    """One chat, whole. Raises OSError or HTTPException where nobody answers it yet."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Say something."}]})
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key.read_text()}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    with contextlib.closing(connection):
        connection.request("POST", CHAT, body, headers)
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise http.client.HTTPException(f"It answered {response.status}.")


def versions(peers: Path | None) -> dict[str, str]:
    """The versions of the programs that are measured, from the folders that they are installed in."""
    found = _installed(Path(sys.prefix), "uvicorn", "uvloop", "httptools", "msgspec")
    if peers:
        found |= {
            package if package == "litellm" else f"{package} under litellm": version
            for package, version in _installed(peers / "litellm", "litellm", "uvicorn", "uvloop").items()
        }
    if program := find_nginx():
        said = subprocess.run((program, "-v"), capture_output=True, text=True, check=False).stderr
        found["nginx"] = said.strip().rpartition("/")[2]
    return found


def _installed(environment: Path, *packages: str) -> dict[str, str]:
    folders = {
        package: sorted(environment.glob(f"lib/python3*/site-packages/{package}-*.dist-info")) for package in packages
    }
    return {
        package: there[-1].name.removesuffix(".dist-info").partition("-")[2]
        for package, there in folders.items()
        if there
    }


def _answering(name: str, process: Process, port: int, key: Path | None) -> Server:
    """The server, as soon as it has answered its first chat; paused until somebody measures it, so as to disturb
    nobody else's figures.
    """
    began = time.monotonic()
    last: Exception | None = None
    while time.monotonic() < began + START_SECONDS:
        process.check()
        try:
            ask(port, key)
        except (OSError, http.client.HTTPException) as error:
            last = error
            time.sleep(0.005)
        else:
            server = Server(name, process, port, key, time.monotonic() - process.started)
            process.pause()
            return server
    raise NotStarted(f"{name} does not answer ({last}): {process.last_words()}")


def _printed_port(process: Process) -> int:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        process.check()
        if found := re.search(r"listening (\d+)\n", process.last_words()):
            return int(found[1])
        time.sleep(0.005)
    raise NotStarted("The upstream did not say its port.")


def _key_file(folder: Path) -> Path:
    file = folder / "key"
    file.write_text(f"sk-{secrets.token_hex(16)}")
    file.chmod(0o600)
    return file
