"""Asks the service itself: signs one account in, or has one token judged, and asks the model for one word.

This spends a few tokens of a real account, so it is done only for who asks for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import aclosing

from k2think.checkup.finding import Finding
from k2think.credentials.credential import Account, Credential
from k2think.credentials.keeper import Keeper
from k2think.credentials.pool import Pool
from k2think.dialogue.events import ReasoningDelta, TextDelta
from k2think.dialogue.prompt import Message, Prompt, Sampling
from k2think.errors import CredentialRejected, GatewayError, QuotaExceeded, SignInRefused
from k2think.gateway import keys_of, transport_of
from k2think.settings import Settings
from k2think.terminal import plain
from k2think.token_errands import sign_in, verify
from k2think.upstreams.base import Upstream
from k2think.upstreams.catalog import K2_THINK, Catalog
from k2think.upstreams.k2think.upstream import K2ThinkUpstream
from k2think.upstreams.openai import OpenAIUpstream

PATIENCE = 60.0
"""Seconds for the model's word, its list of models included."""
ENOUGH = 200
"""Characters after which it is hung up on, should it ignore how few were asked for."""
QUESTION = Prompt(
    model=K2_THINK,
    messages=(Message("user", "Say only the word: ready"),),
    sampling=Sampling(max_tokens=16),
    live=True,
)

Told = Callable[[str], None]


class _NoWord(Exception):
    """The model did not say anything; the message says how."""


def check_service(
    settings: Settings, tokens: Sequence[Credential], accounts: Sequence[Account], told: Told
) -> Iterator[Finding]:
    """Ask with what a gateway with these settings would ask with."""
    credential = yield from _credential(settings, tokens, accounts, told)
    if credential is None:
        return
    told(f"Asking the model for one word (up to {PATIENCE:g} s)")
    began = time.monotonic()
    try:
        model = asyncio.run(_one_word(settings, credential))
    except GatewayError as error:
        error.hide(credential.secret)  # some servers repeat it
        yield _failure("Chat: the model was asked and did not answer", error)
    except _NoWord as error:
        yield Finding("wrong", f"Chat: {error}", "Try again later; the service may have trouble with its model.")
    else:
        yield Finding("ok", f"Chat: {plain(model)} answered in {time.monotonic() - began:.1f} s")


def _credential(
    settings: Settings, tokens: Sequence[Credential], accounts: Sequence[Account], told: Told
) -> Generator[Finding, None, Credential | None]:
    """Something that the service has accepted."""
    if accounts and settings.credentials.enable_token_auto_update:
        account = accounts[0]
        told(f"Signing {plain(account.masked())} in")
        (outcome,) = asyncio.run(sign_in(settings, [account], lambda _: None))
        if outcome.credential:
            yield Finding("ok", f"Sign-in: {plain(account.masked())} gave a token")
            return outcome.credential
        assert outcome.error is not None  # the only account is never spared
        yield _failure(f"Sign-in: {plain(account.masked())} could not be signed in", outcome.error)
    now = time.time()
    candidates = keys_of(settings, tuple(tokens)) or tokens
    good = (one for one in candidates if one.expires_at is None or one.expires_at > now)
    if (credential := next(good, None)) is None:
        yield Finding(
            "note", "Online: the model was not asked, for there is no token that is still good.", "See above."
        )
        return None
    what = "key" if settings.upstream.protocol == "openai" else "token"
    told(f"Asking the service about the first {what}")
    (verdict,) = asyncio.run(verify(settings, [credential], lambda _: None))
    if verdict.state == "good":
        yield Finding("ok", f"Online: the first {what} is good")
        return credential
    reason = plain(verdict.reason)
    if verdict.state == "rejected":
        remedy = "Write a new one; `k2think tokens check` asks about all of them."
        yield Finding("wrong", f"Online: the first {what} was refused. {reason}", remedy)
    else:
        remedy = "Try again later; if it stays so, see to K2THINK_API_URL and PROXY_URL."
        yield Finding("wrong", f"Online: the service could not be asked about the first {what}. {reason}", remedy)
    return None


async def _one_word(settings: Settings, credential: Credential) -> str:
    """Ask the model; gives its id. Raises `GatewayError`, `_NoWord`."""
    upstream = settings.upstream
    transport = transport_of(settings, proxied=upstream.proxy_chat)
    url = upstream.k2think_api_url
    service: Upstream = (
        OpenAIUpstream(transport, url) if upstream.protocol == "openai" else K2ThinkUpstream(transport, url)
    )
    catalog = Catalog(
        service,
        Keeper(Pool((credential,), max_failures=1), wait=0.0),
        preferred=upstream.upstream_model,
    )
    await transport.start()
    try:
        async with asyncio.timeout(PATIENCE):
            if not upstream.upstream_model:
                await catalog.refresh()
            model = (await catalog.resolve(K2_THINK)).id
            if not await _says_something(service, model, credential):
                raise _NoWord(f"{plain(model)} gave an empty answer.")
    except TimeoutError:
        raise _NoWord(f"there was no answer within {PATIENCE:g} s.") from None
    finally:
        await transport.close()
    return model


async def _says_something(service: Upstream, model: str, credential: Credential) -> bool:
    length = 0
    async with aclosing(service.open(QUESTION, model, credential)) as batches:
        async for batch in batches:
            length += sum(len(event.text) for event in batch if isinstance(event, TextDelta | ReasoningDelta))
            if length >= ENOUGH:
                break
    return length > 0


def _failure(what: str, error: GatewayError) -> Finding:
    text = f"{what}. {plain(error.message)}"
    match error:
        case QuotaExceeded():
            return Finding("note", text, "The service limits how often it may be asked. Try again later.")
        case SignInRefused():
            return Finding("wrong", text, "Correct the first account in ACCOUNTS_FILE.")
        case CredentialRejected():
            return Finding("wrong", text, "Write a new token or key; `k2think tokens check` asks about all of them.")
        case _:
            return Finding("wrong", text, "Try again later; if it stays so, see to K2THINK_API_URL and PROXY_URL.")
