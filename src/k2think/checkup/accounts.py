"""What the accounts file holds, and what else makes tokens of it."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

from k2think.checkup.finding import Finding, State
from k2think.credentials.accounts import AccountFileUnreadable, read_accounts
from k2think.credentials.credential import Account
from k2think.settings import Credentials, Settings


def check_accounts(settings: Settings) -> Generator[Finding, None, tuple[Account, ...]]:
    """Gives the accounts besides. What only making tokens needs is wrong only where they are to be made."""
    credentials = settings.credentials
    automatic = credentials.enable_token_auto_update
    if settings.upstream.protocol == "openai":
        if automatic and settings.upstream.upstream_api_key:
            yield Finding(
                "note",
                "ENABLE_TOKEN_AUTO_UPDATE is ignored: an OpenAI-compatible server is asked with UPSTREAM_API_KEY.",
                "Take it out.",
            )
        return ()
    bad: State = "wrong" if automatic else "note"
    path = credentials.accounts_file
    try:
        found = read_accounts(path)
    except AccountFileUnreadable as error:
        yield Finding(bad, str(error), "ACCOUNTS_FILE says which file it is.")
        return ()
    if found.accounts:
        yield Finding("ok", f"Accounts: {len(found.accounts)} in {path}")
    elif automatic:
        what = "holds no account" if found.version else "is not there"
        yield Finding(
            "wrong",
            f"Accounts: {path} {what}, and ENABLE_TOKEN_AUTO_UPDATE needs it.",
            "Write your accounts there (ACCOUNTS_FILE), or set ENABLE_TOKEN_AUTO_UPDATE=false.",
        )
    for fault in found.faults:
        yield Finding(bad, f"Accounts: {path}, {fault}", "Correct the line, or put a # in front of it.")
    yield from _script(credentials, bad)
    return found.accounts


def _script(credentials: Credentials, bad: State) -> Iterator[Finding]:
    script = credentials.get_tokens_script
    if script.name != Credentials().get_tokens_script.name and not (script.is_file() and os.access(script, os.R_OK)):
        yield Finding(
            bad,
            f"GET_TOKENS_SCRIPT: {script} cannot be read; the gateway would sign the accounts in itself.",
            "Name a script that is there, or take GET_TOKENS_SCRIPT out.",
        )
