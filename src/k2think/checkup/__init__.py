"""Looks at the settings, the files they name and the network, and says what is there and what is wrong.

Changes nothing. Without `told` it also sends nothing: it only sees whether it could listen and could connect.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from k2think.checkup.accounts import check_accounts
from k2think.checkup.finding import Finding
from k2think.checkup.network import check_address, check_connections
from k2think.checkup.permissions import check_folders, check_secrecy, check_token_updates
from k2think.checkup.tokens import check_tokens
from k2think.checkup.values import check_keys, check_limits, told_values
from k2think.settings import Settings

__all__ = ["Finding", "findings"]


def findings(
    settings: Settings,
    now: float,
    *,
    told: Callable[[str], None] | None = None,
    without: Collection[str] = (),
) -> Iterator[Finding]:
    """Everything worth a line, in the order a person would look. `now`: Unix seconds.

    With `told` the service itself is asked too, and `told` hears before each question what is being done. `without`:
    variables of which nothing is to be said, because they hold only a stand-in.
    """
    yield from told_values(settings, without)
    yield from check_keys(settings.access, without)
    tokens = yield from check_tokens(settings, now)
    accounts = yield from check_accounts(settings)
    yield from check_token_updates(settings)
    yield from check_folders(settings)
    yield from check_secrecy(settings)
    yield from check_limits(settings, tokens)
    for warning in settings.warnings:
        yield Finding("note", warning, "Correct it, or take it out.")
    yield from check_address(settings.server)
    connected = yield from check_connections(settings.upstream)
    if told is None:
        return
    if not connected:
        yield Finding("note", "Online: nobody was asked, for there is no connection.", "See above.")
        return
    from k2think.checkup.online import check_service  # noqa: PLC0415 - the HTTP client, which only this needs

    yield from check_service(settings, tokens, accounts, told)
