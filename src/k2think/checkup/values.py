"""What stands in the settings: which are set, whether keys can be guessed, and limits that do not go together."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pydantic import SecretStr

from k2think.checkup.finding import Finding
from k2think.credentials.credential import Credential
from k2think.settings import Access, Settings
from k2think.settings.example import text_of, variables

SHORTEST_KEY = 16
PUBLISHED_KEYS = frozenset({"sk-...", "sk-k2think-demo"})
"""Keys that stand in the instructions: everybody knows them."""

NEW_KEY = "Make a new one: python -c \"import secrets; print('sk-' + secrets.token_urlsafe(24))\""


def told_values(settings: Settings, without: Collection[str]) -> Iterator[Finding]:
    """What is set, and that a secret is. Paths are told where the files are looked at."""
    yield Finding("ok", f"Settings from {settings.env_file or 'the environment alone (there is no .env)'}")
    for variable in variables():
        value = getattr(getattr(settings, variable.section), variable.name.lower())
        if variable.name in without or isinstance(value, Path):
            continue
        if variable.secret:
            count = len(value) if isinstance(value, tuple) else int(value is not None)
            if count:
                yield Finding("ok", f"{variable.name}: set" + (f", {count} keys" if count > 1 else ""))
        elif text_of(value) != variable.default:
            yield Finding("ok", f"{variable.name}: {' '.join(text_of(value).split())}")
    upstream = settings.upstream
    yield Finding("ok", f"Upstream: {upstream.k2think_api_url} (protocol: {upstream.protocol})")


def check_keys(access: Access, without: Collection[str]) -> Iterator[Finding]:
    """Keys that somebody could guess."""
    admin = (access.admin_api_key,) if access.admin_api_key else ()
    for variable, keys in (("VALID_API_KEY", access.valid_api_key), ("ADMIN_API_KEY", admin)):
        if variable not in without:
            yield from _weak(variable, keys)


def _weak(variable: str, keys: Sequence[SecretStr]) -> Iterator[Finding]:
    for number, secret in enumerate(keys, start=1):
        key = secret.get_secret_value()
        which = f"{variable}, key {number} of {len(keys)}," if len(keys) > 1 else variable
        if key.lower() in PUBLISHED_KEYS:
            yield Finding("wrong", f"{which} is a key that the instructions show, so everybody knows it.", NEW_KEY)
        elif len(set(key.lower().removeprefix("sk-"))) == 1:
            yield Finding("note", f"{which} is one character, repeated, and easily guessed.", NEW_KEY)
        elif len(key) < SHORTEST_KEY:
            yield Finding("note", f"{which} is shorter than {SHORTEST_KEY} characters and could be guessed.", NEW_KEY)


def check_limits(settings: Settings, tokens: Sequence[Credential]) -> Iterator[Finding]:
    """Numbers of which one is too small for the other."""
    workers = settings.server.workers
    if workers > (cores := os.cpu_count() or 1):
        yield Finding(
            "note",
            f"WORKERS: {workers}, but there are {cores} cores; more than one for each gains nothing.",
            f"Set WORKERS={cores} or less.",
        )
    each = settings.credentials.token_max_concurrency
    if 0 < each < workers:
        few = 0 < len(tokens) * each < workers  # as each of them must serve, it then takes a place that is not there
        yield Finding(
            "note",
            f"TOKEN_MAX_CONCURRENCY: {each} is less than WORKERS, which is {workers}; so "
            + ("a token may carry more than that." if few else "no worker can use all tokens."),
            f"Set TOKEN_MAX_CONCURRENCY={workers} or more, or 0, or lower WORKERS.",
        )
    if settings.upstream.max_connections < workers:
        yield Finding(
            "note",
            f"MAX_CONNECTIONS: {settings.upstream.max_connections} is less than WORKERS; there will be one for each.",
            f"Set MAX_CONNECTIONS={workers} or more.",
        )
