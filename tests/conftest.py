"""A gateway in front of a simulator, both real servers on loopback, for every test that asks."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx
import hypothesis
import pytest
from openai import OpenAI
from serving import serving
from waiting import PATIENCE

from k2think import gateway, token_reset
from k2think.app import create_app
from k2think.checkup import network
from k2think.settings import Settings
from k2think.simulator.app import Simulator, SimulatorOptions, create_simulator, mint_token
from k2think.upstreams import exchange
from k2think.upstreams.patience import Patience

# A busy machine is no fault, and a run says the same each time: whoever changes one thing must not fail by another.
# `pytest --hypothesis-profile thorough` tries many examples, others each time.
hypothesis.settings.register_profile(
    "here", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(
    "thorough", hypothesis.settings.get_profile("here"), derandomize=False, max_examples=1000
)
hypothesis.settings.load_profile("here")

KEY = "sk-test-key"
MODEL = "MBZUAI-IFM/K2-Think"


@dataclass(frozen=True)
class Stage:
    """What a test plays on: the gateway's URL, a client with the key and one without, and the simulator behind."""

    url: str
    http: httpx.Client
    anyone: httpx.Client
    simulator: Simulator
    simulator_url: str
    tokens_file: Path
    accounts_file: Path

    def ask(self, text: str, **fields: Any) -> httpx.Response:
        """Ask one question."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}
        return self.http.post("/v1/chat/completions", json=body)

    def answer(self, text: str, **fields: Any) -> dict[str, Any]:
        """Ask one question and expect an answer: its message."""
        response = self.ask(text, **fields)
        assert response.status_code == 200, response.text
        message: dict[str, Any] = response.json()["choices"][0]["message"]
        return message

    @contextmanager
    def stream(self, text: str, **fields: Any) -> Iterator[httpx.Response]:
        """Ask for a stream; the response's body is still to be read."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": True, **fields}
        with self.http.stream("POST", "/v1/chat/completions", json=body) as response:
            yield response

    def admin(self, path: str, method: str = "GET", **fields: Any) -> dict[str, Any]:
        """Call the admin API from this machine, without a key; expect success: its data."""
        response = self.anyone.request(method, f"{self.url}/admin{path}", **fields)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        assert answer["status"] == "success"
        data: dict[str, Any] = answer["data"]
        return data

    def updater(self) -> dict[str, Any]:
        """How the automatic update is doing."""
        return self.admin("/tokens/updater/status")

    def seen(self) -> list[dict[str, Any]]:
        """The chats that reached the simulator, oldest first."""
        found: list[dict[str, Any]] = self.anyone.get(f"{self.simulator_url}/simulator/requests").json()["requests"]
        return found

    @contextmanager
    def openai(self, key: str = KEY) -> Iterator[OpenAI]:
        """The official client, without retries of its own."""
        with OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, http_client=client_of()) as client:
            yield client


MakeStage = Callable[..., Stage]


@contextmanager
def staging(directory: Path) -> Iterator[MakeStage]:
    """Everything that is made inside is stopped at the end."""
    with ExitStack() as stack:

        def make(
            *,
            tokens: tuple[str, ...] = ("one@example.com", "two@example.com", "three@example.com"),
            accounts: tuple[str, ...] = (),
            options: SimulatorOptions | None = None,
            path: str = "/api/chat/completions",
            **settings: str,
        ) -> Stage:
            options = options or SimulatorOptions(models=(MODEL,))
            simulator = create_simulator(options)
            simulator_url = stack.enter_context(serving(simulator))
            tokens_file = directory / "tokens.txt"
            tokens_file.write_text("\n".join(_token(token, options) for token in tokens))
            accounts_file = directory / "accounts.txt"
            accounts_file.write_text("".join(map(account_line, accounts)))
            environ = {
                "VALID_API_KEY": KEY,
                "K2THINK_API_URL": f"{simulator_url}{path}",
                "TOKENS_FILE": str(tokens_file),
                "ACCOUNTS_FILE": str(accounts_file),
                **settings,
            }
            url = stack.enter_context(serving(create_app(Settings.load(environ, directory=directory))))
            http = stack.enter_context(client_of(base_url=url, headers={"Authorization": f"Bearer {KEY}"}))
            return Stage(
                url, http, stack.enter_context(client_of()), simulator, simulator_url, tokens_file, accounts_file
            )

        yield make


def client_of(**options: Any) -> httpx.Client:
    """An HTTP client for loopback: one that loads no certificates, which takes longer than most tests."""
    return httpx.Client(verify=False, timeout=PATIENCE, trust_env=False, **options)


def account_line(email: str) -> str:
    """A line of the accounts file, for an account whose password is `password`."""
    return f'{{"email": "{email}", "k2_password": "password"}}\n'


def _token(token: str, options: SimulatorOptions) -> str:
    if "@" not in token:
        return token
    return mint_token(token, ttl=options.ttl, secret=options.secret, release=options.release)


@pytest.fixture
def make_stage(tmp_path: Path) -> Iterator[MakeStage]:
    """Make a stage: `tokens` (texts, or e-mails of simulated accounts), e-mails for the accounts file, the simulator's
    `options`, settings by name.
    """
    with staging(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The stage that most tests share."""
    with staging(tmp_path_factory.mktemp("stage")) as make:
        yield make()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of 127.0.0.1 where nobody listens, and nobody else can: one that was merely freed is soon another's."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture(scope="session", autouse=True)
def patient() -> Iterator[None]:
    """Short waits that no setting makes longer: on a machine that stands still for a while they would run out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "MODELS_PATIENCE", 60.0)
        patch.setattr(network, "PATIENCE", 60.0)
        patch.setattr(gateway, "Texts", partial(vars(gateway)["Texts"], patience=PATIENCE))
        patch.setattr(token_reset, "PATIENCE", Patience(connect=60, first_event=60, silence=60, total=120))
        yield
