"""Looks at the settings and the files they name, says what is there and what is wrong. Changes and sends nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from k2think.credentials.accounts import AccountFileUnreadable, read_accounts
from k2think.credentials.credential import Credential
from k2think.credentials.token_file import TokenFileUnreadable, read_tokens
from k2think.settings import Credentials, Settings
from k2think.settings.example import text_of, variables

SOON = 3600.0
"""Seconds before its expiry from which a token is worth a word."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the check-up. Holds no secret."""

    state: Literal["ok", "note", "wrong"]
    text: str

    def __str__(self) -> str:
        return f"{self.state:<6}{self.text}"


def findings(settings: Settings, now: float) -> Iterator[Finding]:
    """Everything worth a line, in the order a person would look. `now`: Unix seconds."""
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
        yield from _tokens(settings.credentials, now)
        yield from _accounts(settings.credentials)
    workers = settings.server.workers
    if workers > (cores := os.cpu_count() or 1):
        yield Finding("note", f"WORKERS: {workers}, but there are {cores} cores; more than one for each gains nothing.")
    if not _can_be_written(settings.storage.state_dir):
        text = "is no folder that this user may write to, so nothing is kept for the next start"
        if workers > 1:
            yield Finding(
                "wrong", f"State: {settings.storage.state_dir} {text}, nor shared by the workers (STATE_DIR)."
            )
        else:
            yield Finding("note", f"State: {settings.storage.state_dir} {text}.")
    if not _can_be_written(settings.files.data_dir):
        text = "is no folder that this user may write to, so no files can be uploaded (DATA_DIR)."
        yield Finding("note", f"Files: {settings.files.data_dir} {text}")
    for warning in settings.warnings:
        yield Finding("note", warning)


def _tokens(credentials: Credentials, now: float) -> Iterator[Finding]:
    automatic = credentials.enable_token_auto_update
    try:
        tokens = read_tokens(credentials.tokens_file)
    except TokenFileUnreadable as error:
        yield Finding("wrong", str(error))
        return
    if not tokens and automatic:
        yield Finding("note", f"Tokens: none in {credentials.tokens_file} yet; they are made from the accounts.")
    elif not tokens:
        yield Finding("wrong", f"Tokens: none in {credentials.tokens_file}. Put one a line there (TOKENS_FILE).")
    else:
        yield Finding("ok", f"Tokens: {len(tokens)} in {credentials.tokens_file}")
        yield from _expiries(tokens, now, automatic=automatic)


def _expiries(tokens: Sequence[Credential], now: float, *, automatic: bool) -> Iterator[Finding]:
    ends = [token.expires_at for token in tokens if token.expires_at is not None]
    expired = sum(end <= now for end in ends)
    soon = sum(now < end <= now + SOON for end in ends)
    if expired:
        none_left = expired == len(tokens) and not automatic
        yield Finding("wrong" if none_left else "note", f"Tokens: {expired} of {len(tokens)} expired already.")
    if soon:
        yield Finding("note", f"Tokens: {soon} of {len(tokens)} will expire within the hour.")


def _accounts(credentials: Credentials) -> Iterator[Finding]:
    """What only making tokens needs is wrong only where they are to be made."""
    automatic = credentials.enable_token_auto_update
    bad: Literal["note", "wrong"] = "wrong" if automatic else "note"
    path = credentials.accounts_file
    try:
        found = read_accounts(path)
    except AccountFileUnreadable as error:
        yield Finding(bad, str(error))
    else:
        if found.accounts:
            yield Finding("ok", f"Accounts: {len(found.accounts)} in {path}")
        elif automatic:
            what = "holds no account" if path.is_file() else "is not there"
            yield Finding("wrong", f"Accounts: {path} {what}, and ENABLE_TOKEN_AUTO_UPDATE needs it.")
        for fault in found.faults:
            yield Finding(bad, f"Accounts: {path}, {fault}")
    script = credentials.get_tokens_script
    if script.name != Credentials().get_tokens_script.name and not script.is_file():
        yield Finding(bad, f"GET_TOKENS_SCRIPT: {script} is not there; the gateway would sign the accounts in itself.")


def _can_be_written(folder: Path) -> bool:
    """Whether it is a folder that files can be put into, or could be made one."""
    there = next(place for place in (folder, *folder.parents) if os.access(place, os.F_OK))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
