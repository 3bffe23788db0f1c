"""What a person reads when the gateway has started: where it is, what it asks, with whose tokens, what is off and why.

Holds no secret. Reads the token file and what is remembered of its tokens, as the gateway itself has done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from k2think import NAME, __version__
from k2think.credentials.accounts import AccountFileUnreadable, read_accounts
from k2think.credentials.health import PoolSummary
from k2think.credentials.persistence import kept_health
from k2think.credentials.pool import Pool
from k2think.credentials.token_file import TokenFile, TokenFileUnreadable
from k2think.settings import Settings
from k2think.storage.base import StorageUnusable
from k2think.storage.directory import DirectoryStorage

TITLE = f"{NAME} {__version__}"
GOODBYE = "Ctrl-C stops it."


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `is_wrong`: the gateway runs, but somebody has to do something."""

    label: str
    text: str
    is_wrong: bool = False

    def __str__(self) -> str:
        return f"  {self.label:<10}{self.text}"


def banner(settings: Settings, url: str, now: float) -> Iterator[Line]:
    """The lines between title and goodbye. `url`: where it is reached; `now`: Unix seconds."""
    yield Line("API", f"{url}/v1   (listening on {settings.server.host})")
    yield Line("upstream", f"{settings.upstream.k2think_api_url}   (protocol {settings.upstream.protocol})")
    yield _tokens(settings, now)
    yield Line("modes", "; ".join(_modes(settings)))


def _tokens(settings: Settings, now: float) -> Line:
    keys = len(settings.upstream.upstream_api_key)
    is_openai = settings.upstream.protocol == "openai"
    if is_openai and keys:
        return Line("tokens", f"not needed: {_counted(keys, 'API key')} (UPSTREAM_API_KEY)")
    path = settings.credentials.tokens_file
    try:
        summary = _summary(settings, now)
    except TokenFileUnreadable as error:
        return Line("tokens", str(error), is_wrong=True)
    if is_openai and not summary.total:
        return Line("tokens", "none, and no API key (UPSTREAM_API_KEY): the server is asked without one")
    is_automatic = settings.credentials.enable_token_auto_update
    states = ((summary.cooling, "resting"), (summary.disabled, "disabled"), (summary.expired, "expired"))
    others = ", ".join(f"{count} {state}" for count, state in states if count)
    usable = summary.active + summary.cooling
    if usable:
        found = f"{usable} of {summary.total} usable in {path} ({others})" if others else f"{usable} usable in {path}"
        return Line("tokens", f"{found}; renewed from {settings.credentials.accounts_file}" if is_automatic else found)
    found = f"none usable in {path}" + (f" ({others})" if others else "")
    if not is_automatic:
        what = "Put tokens there (TOKENS_FILE), one a line; they are taken up at once"
        return Line("tokens", f"{found}: chats get 503. {what}. `k2think check` says more.", is_wrong=True)
    if missing := _missing_accounts(settings.credentials.accounts_file):
        return Line("tokens", f"{found}, and {missing} Chats get 503. `k2think check` says more.", is_wrong=True)
    return Line("tokens", f"{found} yet; they are being made from {settings.credentials.accounts_file}")


def _summary(settings: Settings, now: float) -> PoolSummary:
    """How the tokens stand, from what the gateway has read too. Raises `TokenFileUnreadable`."""
    credentials = settings.credentials
    pool = Pool(TokenFile(credentials.tokens_file).read(), max_failures=credentials.max_token_failures)
    with suppress(StorageUnusable):  # the log has it
        pool.restore(kept_health(DirectoryStorage(settings.storage.state_dir)), now)
    return pool.summary(now)


def _missing_accounts(path: Path) -> str:
    """What is wrong with the accounts that tokens are to be made from; empty if nothing is."""
    try:
        if read_accounts(path).accounts:
            return ""
    except AccountFileUnreadable as error:
        return str(error)
    return f"there is no account in {path} (ACCOUNTS_FILE)."


def _modes(settings: Settings) -> Iterator[str]:
    if settings.upstream.protocol == "k2think" and not settings.credentials.enable_token_auto_update:
        yield "accounts: off (ENABLE_TOKEN_AUTO_UPDATE=false)"
    if not settings.tools.enable_toolify:
        yield "tools: off (ENABLE_TOOLIFY=false)"
    if not settings.server.enable_access_log:
        yield "request log: off (ENABLE_ACCESS_LOG=false)"
    keyless = settings.access.admin_keyless
    yield "admin: without a key from this machine" if keyless else "admin: with a key only (ADMIN_KEYLESS=false)"
    if settings.server.workers > 1:
        yield f"workers: {settings.server.workers}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
