"""Looks at the settings and the files they name, says what is there and what is wrong. Changes and sends nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from k2think.credentials.token_file import TokenFileUnreadable, read_tokens
from k2think.settings import Settings
from k2think.settings.example import text_of, variables


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the check-up. Holds no secret."""

    state: Literal["ok", "note", "wrong"]
    text: str

    def __str__(self) -> str:
        return f"{self.state:<6}{self.text}"


def findings(settings: Settings) -> Iterator[Finding]:
    """Everything worth a line, in the order a person would look."""
    yield Finding("ok", f"Settings from {settings.env_file or 'the environment alone (there is no .env)'}")
    for variable in variables():
        value = getattr(getattr(settings, variable.section), variable.name.lower())
        if variable.secret:
            count = len(value) if isinstance(value, tuple) else int(value is not None)
            if count:
                yield Finding("ok", f"{variable.name}: set" + (f", {count} keys" if count > 1 else ""))
        elif not isinstance(value, Path) and text_of(value) != variable.default:
            yield Finding("ok", f"{variable.name}: {' '.join(text_of(value).split())}")
    protocol = settings.upstream.protocol
    yield Finding("ok", f"Upstream: {settings.upstream.k2think_api_url} (protocol: {protocol})")
    if protocol == "k2think":
        yield from _files(settings)
    for warning in settings.warnings:
        yield Finding("note", warning)


def _files(settings: Settings) -> Iterator[Finding]:
    credentials = settings.credentials
    automatic = credentials.enable_token_auto_update
    try:
        tokens = len(read_tokens(credentials.tokens_file))
    except TokenFileUnreadable as error:
        yield Finding("wrong", str(error))
    else:
        if tokens:
            yield Finding("ok", f"Tokens: {tokens} in {credentials.tokens_file}")
        elif automatic:
            yield Finding("note", f"Tokens: none in {credentials.tokens_file} yet; they are made from the accounts.")
        else:
            yield Finding("wrong", f"Tokens: none in {credentials.tokens_file}. Put one a line there (TOKENS_FILE).")
    if credentials.accounts_file.is_file():
        yield Finding("ok", f"Accounts: {credentials.accounts_file}")
    elif automatic:
        text = f"Accounts: {credentials.accounts_file} is not there, and ENABLE_TOKEN_AUTO_UPDATE needs it."
        yield Finding("wrong", text)
