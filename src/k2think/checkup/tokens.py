"""What the token file holds: whether it can be read, whether its lines can be tokens, and how long they are good."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence

from k2think.checkup.finding import Finding, State
from k2think.credentials.credential import Credential, claims_of
from k2think.credentials.token_file import TokenFile, TokenFileUnreadable
from k2think.settings import Settings

SOON = 3600.0
"""Seconds before its expiry from which a token is worth a word."""
SKEW = 60.0
"""Seconds that two right clocks may differ."""
API_KEY = "sk-"
"""What an API key of the web service begins with; it serves as a token, but is no JWT."""


def check_tokens(settings: Settings, now: float) -> Generator[Finding, None, tuple[Credential, ...]]:
    """Gives the tokens besides."""
    path = settings.credentials.tokens_file
    try:
        tokens = TokenFile(path).read()
    except TokenFileUnreadable as error:
        remedy = (
            "Remove it and write a file (Docker makes a folder of a file it does not find)."
            if isinstance(error.__cause__, IsADirectoryError)
            else "Let this user read it, save it as UTF-8 text, or name another file (TOKENS_FILE)."
        )
        yield Finding("wrong", str(error), remedy)
        return ()
    if settings.upstream.protocol == "openai":
        yield from _keys(settings, tokens)
        return tokens
    automatic = settings.credentials.enable_token_auto_update
    if tokens:
        yield Finding("ok", f"Tokens: {len(tokens)} in {path}")
        yield from _unusable(tokens, now, automatic=automatic)
        yield from _clock(tokens, now)
    elif automatic:
        yield Finding("ok", f"Tokens: none in {path} yet; they are made from the accounts.")
    else:
        what = "holds no token" if os.access(path, os.F_OK) else "is not there"
        yield Finding(
            "wrong",
            f"Tokens: {path} {what} (TOKENS_FILE).",
            "Write one a line there, or set ENABLE_TOKEN_AUTO_UPDATE=true and write accounts into ACCOUNTS_FILE.",
        )
    return tokens


def _keys(settings: Settings, tokens: Sequence[Credential]) -> Iterator[Finding]:
    """What an OpenAI-compatible server is asked with."""
    if settings.upstream.upstream_api_key:
        return
    how = f"with the tokens of {settings.credentials.tokens_file}" if tokens else "without a key"
    yield Finding(
        "note",
        f"UPSTREAM_API_KEY: it is not set, so the server is asked {how}.",
        "Set it, if the server wants a key.",
    )


def _unusable(tokens: Sequence[Credential], now: float, *, automatic: bool) -> Iterator[Finding]:
    """Tokens that the service cannot accept. Without another one, and without new ones to come, nothing works."""
    total = len(tokens)
    broken = [index for index, token in enumerate(tokens) if not _can_be_sent(token.secret)]
    odd = [index for index, token in enumerate(tokens) if index not in broken and not _looks_right(token.secret)]
    ends = [float("inf") if token.expires_at is None else token.expires_at for token in tokens]
    expired = [index for index, end in enumerate(ends) if end <= now]
    soon = sum(now < end <= now + SOON for end in ends)
    bad: State = "wrong" if len({*broken, *expired}) == total and not automatic else "note"
    if broken:
        yield Finding(
            bad,
            f"Tokens: {len(broken)} of {total} have a blank or a foreign character inside{_first(broken)}.",
            "Copy each token anew, one a line and nothing else.",
        )
    if odd:
        yield Finding(
            "note",
            f"Tokens: {len(odd)} of {total} do not look like tokens of K2-Think (eyJ….….…){_first(odd)}.",
            "See that all of it was copied; `k2think tokens check` asks the service about each.",
        )
    if expired:
        remedy = "The next update replaces them." if automatic else "Write new ones (k2think tokens fetch makes them)."
        yield Finding(bad, f"Tokens: {len(expired)} of {total} expired already.", remedy)
    if soon and not automatic:
        yield Finding(
            "note",
            f"Tokens: {soon} of {total} will expire within the hour.",
            "Write new ones (k2think tokens fetch makes them), or set ENABLE_TOKEN_AUTO_UPDATE=true.",
        )


def _clock(tokens: Sequence[Credential], now: float) -> Iterator[Finding]:
    """The service's clock as its tokens tell it: whoever was made later than now shows that this clock is behind."""
    issued = (claims.iat for token in tokens if (claims := claims_of(token.secret)) and claims.iat is not None)
    ahead = [at - now for at in issued if at > now + SKEW]
    if ahead:
        minutes = max(ahead) / 60
        yield Finding(
            "note",
            f"Clock: {len(ahead)} of {len(tokens)} tokens were made in the future. So this machine's clock is slow, by "
            f"{minutes:.0f} minutes or more, and takes expired tokens for good ones.",
            "Set the clock, best by NTP.",
        )


def _first(indexes: Sequence[int]) -> str:
    where = "" if len(indexes) == 1 else "the first "
    return f" ({where}has the index {indexes[0]} in `k2think tokens list`)"


def _can_be_sent(secret: str) -> bool:
    return secret.isascii() and " " not in secret


def _looks_right(secret: str) -> bool:
    return secret.startswith(API_KEY) or claims_of(secret) is not None
