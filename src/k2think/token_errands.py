"""What the token commands ask of the service: a token for each account, and whether each token is good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from k2think.credentials.credential import Account, Credential
from k2think.credentials.signing_in import Outcome, sign_in_all
from k2think.errors import CredentialRejected, UpstreamError
from k2think.gateway import transport_of
from k2think.settings import Settings
from k2think.upstreams.k2think.login import K2ThinkLogin
from k2think.upstreams.openai import OpenAIUpstream
from k2think.upstreams.transport import Transport

Ask: TypeAlias = Callable[[Credential], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the service says of a token; `reason` is empty for a good one."""

    credential: Credential
    state: Literal["good", "rejected", "unknown"]
    reason: str = ""


async def sign_in(settings: Settings, accounts: Sequence[Account], told: Callable[[Outcome], None]) -> list[Outcome]:
    """Sign each account in; outcomes in the order of the accounts, and each to `told` as it comes."""
    async with _transport(settings, proxied=True) as transport:
        login = K2ThinkLogin(transport, settings.upstream.k2think_api_url)
        return await sign_in_all(login, accounts, workers=settings.credentials.token_max_workers, told=told)


async def verify(
    settings: Settings, credentials: Sequence[Credential], told: Callable[[Verdict], None]
) -> list[Verdict]:
    """Ask after each token; verdicts in the order of the tokens, and each to `told` as it comes.

    An OpenAI-compatible server knows no such question: there the models are listed with the key.
    """
    upstream = settings.upstream
    is_openai = upstream.protocol == "openai"
    places = asyncio.Semaphore(settings.credentials.token_max_workers)
    async with _transport(settings, proxied=upstream.proxy_chat or not is_openai) as transport:
        url = upstream.k2think_api_url
        ask: Ask = OpenAIUpstream(transport, url).models if is_openai else K2ThinkLogin(transport, url).verify

        async def judge(credential: Credential) -> Verdict:
            async with places:
                verdict = await _verdict(ask, credential)
            told(verdict)
            return verdict

        return await asyncio.gather(*map(judge, credentials))


async def _verdict(ask: Ask, credential: Credential) -> Verdict:
    try:
        await ask(credential)
    except UpstreamError as error:
        state: Literal["rejected", "unknown"] = "rejected" if isinstance(error, CredentialRejected) else "unknown"
        error.hide(credential.secret)  # some servers repeat the key that they refuse
        return Verdict(credential, state, error.message)
    return Verdict(credential, "good")


@asynccontextmanager
async def _transport(settings: Settings, *, proxied: bool) -> AsyncIterator[Transport]:
    transport = transport_of(settings, proxied=proxied)
    await transport.start()
    try:
        yield transport
    finally:
        await transport.close()
