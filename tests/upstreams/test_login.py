"""Signing in and asking after a token, over real HTTP: before the simulator, before odd servers, through a proxy."""

from __future__ import annotations

import asyncio
import base64
import json
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
from serving import serving

from k2think import errors
from k2think.credentials.credential import Account, Credential
from k2think.simulator.app import SimulatorOptions, create_simulator, mint_token
from k2think.simulator.options import RELEASES
from k2think.simulator.options import Account as User
from k2think.upstreams.k2think.login import K2ThinkLogin
from k2think.upstreams.patience import Patience
from k2think.upstreams.transport import USER_AGENT, Transport

T = TypeVar("T")

PASSWORD = 'Open-"Sesame"\\ünd 1'
JSON = ("content-type", "application/json")
HTML = ("content-type", "text/html; charset=utf-8")
PAGE = b"<!doctype html><title>no</title>"
ME = Account("me@example.com", PASSWORD)


def using(
    chat_url: str, act: Callable[[K2ThinkLogin], Awaitable[T]], *, proxy: str | None = None, patience: float = 60.0
) -> T:
    """Do something with a sign-in client, and take its connections down again."""

    async def run() -> T:
        transport = Transport(patience=Patience(60, 60, 60, 60), max_connections=4, proxy=proxy)
        await transport.start()
        try:
            return await act(K2ThinkLogin(transport, chat_url, patience=patience))
        finally:
            await transport.close()

    return asyncio.run(run())


def sign_in(chat_url: str, account: Account = ME, **how: Any) -> str:
    return using(chat_url, lambda login: login.sign_in(account), **how)


def verify(chat_url: str, token: str, **how: Any) -> None:
    using(chat_url, lambda login: login.verify(Credential.of(token)), **how)


def everything_said(error: BaseException) -> str:
    """All that a log of the error could show."""
    shown = traceback.format_exception(error)
    cause: BaseException | None = error
    while cause is not None:
        shown.append(repr(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n".join(shown)


# Before the simulator


@pytest.fixture(scope="module", params=RELEASES)
def options(request: pytest.FixtureRequest) -> SimulatorOptions:
    users = {
        "me@example.com": User(PASSWORD),
        "wrong@example.com": User(PASSWORD, faults=("wrong",)),
        "limited@example.com": User(PASSWORD, faults=("limited",)),
        "rejected@example.com": User(PASSWORD, faults=("rejected",)),
        "pending@example.com": User(PASSWORD, role="pending"),
    }
    return SimulatorOptions(release=request.param, accounts=users)


@pytest.fixture(scope="module")
def chat_url(options: SimulatorOptions) -> Iterator[str]:
    with serving(create_simulator(options)) as url:
        yield f"{url}/api/chat/completions"


def test_a_token_is_given_that_the_service_takes(chat_url: str) -> None:
    async def both(login: K2ThinkLogin) -> str:
        token = await login.sign_in(Account("Me@Example.com", PASSWORD))
        await login.verify(Credential.of(token))
        return token

    assert using(chat_url, both).count(".") == 2


@pytest.mark.parametrize(
    ("email", "password"),
    [("me@example.com", "another"), ("nobody@example.com", PASSWORD), ("wrong@example.com", PASSWORD)],
)
def test_a_wrong_account_is_refused_with_advice_and_the_services_words(
    chat_url: str, email: str, password: str
) -> None:
    with pytest.raises(errors.SignInRefused, match=r"accounts file.*email or password provided is incorrect") as caught:
        sign_in(chat_url, Account(email, password))
    assert not caught.value.retryable


def test_a_limited_sign_in_is_to_be_tried_later(chat_url: str) -> None:
    with pytest.raises(errors.QuotaExceeded) as caught:
        sign_in(chat_url, Account("limited@example.com", PASSWORD))
    assert caught.value.retry_after is None


def test_a_pending_user_is_told_so(chat_url: str, options: SimulatorOptions) -> None:
    with pytest.raises(errors.SignInRefused, match="pending"):
        sign_in(chat_url, Account("pending@example.com", PASSWORD))
    token = mint_token("pending@example.com", release=options.release)
    with pytest.raises(errors.CredentialRejected, match="pending"):
        verify(chat_url, token)


def test_a_token_that_the_service_refuses_is_rejected(chat_url: str, options: SimulatorOptions) -> None:
    refused = [
        sign_in(chat_url, Account("rejected@example.com", PASSWORD)),
        mint_token("me@example.com", ttl=-1, release=options.release),
        "garbage",
        "",
    ]
    for token in refused:
        with pytest.raises(errors.CredentialRejected):
            verify(chat_url, token)


def test_a_place_without_sign_in_is_said_to_be_the_wrong_one(chat_url: str) -> None:
    elsewhere = chat_url.replace("/api/", "/elsewhere/api/")
    with pytest.raises(errors.UpstreamUnavailable, match="K2THINK_API_URL"):
        sign_in(elsewhere)  # 405, as Open WebUI answers there
    with pytest.raises(errors.UpstreamUnavailable, match="K2THINK_API_URL"):
        verify(elsewhere, "token")  # its web page


# Before odd servers


@dataclass
class OddServer:
    """Answers `/NAME/api/…` as `answers[NAME]` says: status, headers, body; None: never. `seen`: the requests."""

    answers: dict[str, tuple[int, list[tuple[str, str]], bytes] | None]
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for stage in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{stage}.complete"})
            return
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        body += message["body"]
        self.seen.append((scope["method"], scope["path"], {k.decode(): v.decode() for k, v in scope["headers"]}, body))
        answer = self.answers[scope["path"].split("/")[1]]
        if answer is None:
            await receive()  # until the client leaves
            return
        status, headers, content = answer
        raw = [(name.encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": content})


def detail(words: Any) -> bytes:
    return json.dumps({"detail": words}).encode()


@pytest.fixture(scope="module")
def odd() -> Iterator[tuple[str, OddServer]]:
    echo = detail([{"type": "missing", "loc": ["body"], "input": {"email": "me@example.com", "password": PASSWORD}}])
    server = OddServer(
        {
            "body": (200, [JSON, ("set-cookie", "token=from-cookie; Path=/")], b'{"token": "from-body"}'),
            "cookie": (
                200,
                [
                    JSON,
                    ("set-cookie", "oauth_id_token=not-this; expires=Fri, 15 Jan 2027 08:00:00 GMT; HttpOnly"),
                    ("set-cookie", "token=from-cookie; expires=Fri, 15 Jan 2027 08:00:00 GMT; HttpOnly; Path=/"),
                    ("set-cookie", "csrf_token=nor-this"),
                ],
                b'{"token": null, "id": "x"}',
            ),
            "other-cookie": (200, [JSON, ("set-cookie", "oauth_id_token=not-this")], b'{"id": "x"}'),
            "second-factor": (
                200,
                [JSON, ("set-cookie", "token=half")],
                b'{"next_step": "totp", "token": null, "role": "user"}',
            ),
            "empty": (200, [JSON], b""),
            "null": (200, [JSON], b"null"),
            "nested": (200, [JSON], b"[" * 60_000),
            "not-json": (200, [JSON], b"welcome"),
            "page": (200, [HTML, ("set-cookie", "token=from-page")], PAGE),
            "long": (200, [JSON], b" " * 2_000_000),
            "two-lines": (200, [JSON], b'{"id": 1, "token": "ab\\ncd"}'),
            "comma": (200, [JSON], b'{"id": 1, "token": "ab,cd"}'),
            "blank": (200, [JSON], b'{"id": 1, "token": "ab cd"}'),
            "too-long": (200, [JSON], b'{"id": 1, "token": "' + b"x" * 20_000 + b'"}'),
            "number": (200, [JSON], b'{"id": 1, "token": 12}'),
            "nobody": (200, [JSON], b'{"token": "x"}'),
            "wrong": (400, [JSON], detail("Wrong.")),
            "not-authenticated": (401, [JSON], detail("Who?")),
            "no-form": (403, [JSON], detail("Not here.")),
            "echo": (422, [JSON], echo),
            "echo-400": (400, [JSON], echo.replace(b"[", b"").replace(b"]", b"")),
            "echo-429": (429, [JSON, ("retry-after", "9")], echo),
            "echo-500": (500, [("content-type", "text/plain")], f"on fire: {PASSWORD}".encode()),
            "foreign-401": (401, [], b""),
            "foreign-400": (400, [JSON], b'{"error": {"message": "Bad gateway rule."}}'),
            "firewall-403": (403, [HTML], PAGE),
            "firewall-405": (405, [HTML], PAGE),
            "limit": (429, [JSON], b'{"detail": "Too many. Try again in 1m30s."}'),
            "limit-header": (429, [JSON, ("retry-after", "7")], detail("Too many.")),
            "down": (503, [HTML, ("retry-after", "5")], PAGE),
            "not-found": (404, [JSON], detail("Not Found")),
            "moved": (307, [("location", "/body/api/v1/auths/signin")], b""),
            "proxy": (407, [HTML], PAGE),
            "created": (201, [JSON], b'{"token": "x"}'),
            "silent": None,
        }
    )
    with serving(server) as url:
        yield url, server


def at(odd: tuple[str, OddServer], name: str) -> str:
    return f"{odd[0]}/{name}/api/chat/completions"


def test_a_sign_in_is_asked_for_honestly(odd: tuple[str, OddServer]) -> None:
    sign_in(at(odd, "body"))
    method, path, headers, body = odd[1].seen[-1]
    assert (method, path) == ("POST", "/body/api/v1/auths/signin")
    assert json.loads(body) == {"email": "me@example.com", "password": PASSWORD}
    assert headers["content-type"] == headers["accept"] == "application/json"
    assert headers["user-agent"] == USER_AGENT
    assert not {"authorization", "cookie"} & set(headers)


def test_a_token_is_asked_after_as_the_service_wants_it(odd: tuple[str, OddServer]) -> None:
    with pytest.raises(errors.UpstreamUnavailable, match="whose"):
        verify(at(odd, "nobody"), "my-token")
    method, path, headers, _ = odd[1].seen[-1]
    assert (method, path) == ("GET", "/nobody/api/v1/auths/")
    assert headers["authorization"] == "Bearer my-token"


@pytest.mark.parametrize(("name", "token"), [("body", "from-body"), ("cookie", "from-cookie")])
def test_the_token_is_taken_from_the_body_or_else_from_its_cookie(
    odd: tuple[str, OddServer], name: str, token: str
) -> None:
    assert sign_in(at(odd, name)) == token


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("second-factor", errors.SignInRefused, "second factor"),
        ("wrong", errors.SignInRefused, "accounts file.*Wrong."),
        ("not-authenticated", errors.SignInRefused, "Who?"),
        ("no-form", errors.SignInRefused, "Not here."),
        ("echo", errors.SignInRefused, "accounts file"),
        ("echo-400", errors.SignInRefused, "accounts file"),
        ("echo-429", errors.QuotaExceeded, "rate"),
        ("echo-500", errors.UpstreamUnavailable, "500"),
        ("foreign-401", errors.UpstreamUnavailable, "401"),
        ("foreign-400", errors.UpstreamUnavailable, "400"),
        ("firewall-403", errors.EdgeBlocked, "403"),
        ("firewall-405", errors.EdgeBlocked, "405"),
        ("down", errors.UpstreamUnavailable, "503"),
        ("not-found", errors.UpstreamUnavailable, "K2THINK_API_URL"),
        ("moved", errors.UpstreamUnavailable, "K2THINK_API_URL"),
        ("created", errors.UpstreamUnavailable, "201"),
        ("proxy", errors.UpstreamUnavailable, "PROXY_URL"),
        ("page", errors.UpstreamUnavailable, "web page.*K2THINK_API_URL"),
        ("other-cookie", errors.UpstreamUnavailable, "without a token"),
        *((name, errors.UpstreamUnavailable, "JSON") for name in ("empty", "null", "nested", "not-json")),
        *(
            (name, errors.UpstreamUnavailable, "header")
            for name in ("two-lines", "comma", "blank", "too-long", "number")
        ),
        ("long", errors.UpstreamUnavailable, "longer"),
    ],
)
def test_another_answer_is_an_error_of_its_class(
    odd: tuple[str, OddServer], name: str, kind: type[errors.UpstreamError], words: str
) -> None:
    with pytest.raises(errors.UpstreamError, match=words) as caught:
        sign_in(at(odd, name))
    assert type(caught.value) is kind
    said = everything_said(caught.value)
    assert "Sesame" not in said


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("not-authenticated", errors.CredentialRejected),
        ("foreign-401", errors.CredentialRejected),
        ("firewall-403", errors.EdgeBlocked),
        ("limit-header", errors.QuotaExceeded),
        ("down", errors.UpstreamUnavailable),
        ("wrong", errors.UpstreamUnavailable),
        ("not-found", errors.UpstreamUnavailable),
        ("null", errors.UpstreamUnavailable),
    ],
)
def test_only_the_services_own_word_rejects_a_token(
    odd: tuple[str, OddServer], name: str, kind: type[errors.UpstreamError]
) -> None:
    with pytest.raises(errors.UpstreamError) as caught:
        verify(at(odd, name), "my-token")
    assert type(caught.value) is kind


@pytest.mark.parametrize(("name", "seconds"), [("limit", 90), ("limit-header", 7), ("echo-429", 9), ("down", 5)])
def test_a_wait_that_is_asked_for_is_passed_on(odd: tuple[str, OddServer], name: str, seconds: float) -> None:
    with pytest.raises(errors.UpstreamError) as caught:
        sign_in(at(odd, name))
    assert caught.value.retry_after == seconds


def test_a_sign_in_has_a_deadline_of_its_own(odd: tuple[str, OddServer]) -> None:
    with pytest.raises(errors.UpstreamTimeout, match=r"0\.2 s"):
        sign_in(at(odd, "silent"), patience=0.2)


def test_a_server_that_is_not_there_is_unavailable(closed_port: int) -> None:
    with pytest.raises(errors.UpstreamUnavailable):
        sign_in(f"http://127.0.0.1:{closed_port}/api/chat/completions")


# Through a proxy


@asynccontextmanager
async def forward_proxy(heads: list[list[str]], to_tunnels: bytes) -> AsyncIterator[int]:
    """A proxy for `http://` that opens no tunnel; `heads` gets each request's lines. Gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        heads.append(head)
        method, target, _ = head[0].split(" ")
        if method == "CONNECT":
            writer.write(to_tunnels)
        else:
            lengths = [line.partition(":")[2] for line in head if line.lower().startswith("content-length:")]
            body = await reader.readexactly(int(lengths[0])) if lengths else b""
            url = urlsplit(target)
            there, to_there = await asyncio.open_connection(url.hostname, url.port)
            kept = [line for line in head[1:-2] if not line.lower().startswith("proxy-")]
            onward = [f"{method} {url.path} HTTP/1.1", *kept, "Connection: close", "", ""]
            to_there.write("\r\n".join(onward).encode() + body)
            writer.write(await there.read())
            to_there.close()
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def through_proxy(chat_url: str, heads: list[list[str]], to_tunnels: bytes = b"") -> str:
    async def run() -> str:
        async with forward_proxy(heads, to_tunnels) as port:
            proxy = f"http://someone:pr%40xy-secret@127.0.0.1:{port}"
            transport = Transport(patience=Patience(60, 60, 60, 60), max_connections=4, proxy=proxy)
            await transport.start()
            try:
                return await K2ThinkLogin(transport, chat_url).sign_in(ME)
            finally:
                await transport.close()

    return asyncio.run(run())


CREDENTIALS = f"proxy-authorization: basic {base64.b64encode(b'someone:pr@xy-secret').decode()}".lower()


def test_a_sign_in_goes_through_the_proxy_with_the_credentials_of_its_url(odd: tuple[str, OddServer]) -> None:
    heads: list[list[str]] = []
    assert through_proxy(at(odd, "body"), heads) == "from-body"
    [head] = heads
    assert head[0] == f"POST {odd[0]}/body/api/v1/auths/signin HTTP/1.1"
    assert CREDENTIALS in [line.lower() for line in head]
    assert "proxy-authorization" not in odd[1].seen[-1][2]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "PROXY_URL answered 403"),
        (b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "PROXY_URL answered 407"),
        (b"what?\r\n\r\n", "connection to the upstream failed"),
        (b"", "connection to the upstream failed"),
    ],
)
def test_a_tunnel_is_asked_for_with_the_credentials_and_its_refusal_does_not_show_them(
    answer: bytes, words: str
) -> None:
    heads: list[list[str]] = []
    with pytest.raises(errors.UpstreamUnavailable, match=words) as caught:
        through_proxy("https://k2think.example/api/chat/completions", heads, answer)
    assert {head[0] for head in heads} == {"CONNECT k2think.example:443 HTTP/1.1"}
    assert all(CREDENTIALS in [line.lower() for line in head] for head in heads)
    said = everything_said(caught.value).lower()
    assert {hidden for hidden in ("xy-secret", CREDENTIALS[-12:], "sesame") if hidden in said} == set()


def test_a_proxy_that_is_not_there_is_named_without_its_password(closed_port: int) -> None:
    proxy = f"http://me:xyzzy@127.0.0.1:{closed_port}"
    with pytest.raises(errors.UpstreamUnavailable, match="PROXY_URL") as caught:
        sign_in("http://k2think.example/api/chat/completions", proxy=proxy)
    assert "xyzzy" not in everything_said(caught.value)
