"""The commands `k2think tokens list | check | fetch | reset`: words, tables and exit codes, no secret among them.

What a command alone needs is imported in it: the HTTP client and the tables take longer to import than to use.

Exit codes: 0 done, 1 something is wrong (no token, a bad one, a file), 2 the settings cannot be used.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from k2think.addresses import base_url
from k2think.credentials.credential import Credential
from k2think.credentials.token_file import TokenFile, TokenFileUnreadable, UpdateUnusable
from k2think.settings import Settings, SettingsError

if TYPE_CHECKING:
    from k2think.credentials.accounts import AccountList
    from k2think.credentials.signing_in import Outcome
    from k2think.token_errands import Verdict
    from k2think.token_reset import Standing

UNITS = ((365.25 * 86400, "years"), (86400, "d"), (3600, "h"), (60, "min"), (1, "s"))

tokens_app = typer.Typer(help="The tokens that the service is asked with.", no_args_is_help=True)


@tokens_app.command("list")
def list_tokens(context: typer.Context) -> None:
    """List the tokens of the token file, masked."""
    from k2think.terminal import Terminal

    path = _settings(context).credentials.tokens_file
    tokens = _read(path)
    now = time.time()
    rows = [(str(index), token.masked(), relative(token.expires_at, now)) for index, token in enumerate(tokens)]
    if rows:
        Terminal().table(("index", "token", "expires"), rows)
    typer.echo(f"{_counted(len(tokens), 'token')} in {path}")
    raise typer.Exit(0 if tokens else 1)


@tokens_app.command("check")
def check_tokens(context: typer.Context) -> None:
    """Ask the service about every token: good, rejected or, where it cannot be asked, unknown."""
    from k2think.terminal import Terminal
    from k2think.token_errands import verify

    settings = _settings(context)
    credentials = _credentials(settings)
    if not credentials:
        _leave(f"There is no token in {settings.credentials.tokens_file}.")
    terminal = Terminal()
    with terminal.following("Asking", len(credentials)) as step:

        def told(verdict: Verdict) -> None:
            step(f"{_shown(verdict.credential)}  {_said(verdict.state, verdict.reason)}")

        verdicts = asyncio.run(verify(settings, credentials, told))
    now = time.time()
    terminal.table(
        ("index", "token", "expires", "state", "reason"),
        [
            (str(index), _shown(one.credential), relative(one.credential.expires_at, now), one.state, one.reason)
            for index, one in enumerate(verdicts)
        ],
    )
    good = sum(verdict.state == "good" for verdict in verdicts)
    typer.echo(f"{good} of {_counted(len(verdicts), 'token')} {'is' if good == 1 else 'are'} good")
    raise typer.Exit(int(good < len(verdicts)))


@tokens_app.command("fetch")
def fetch_tokens(
    context: typer.Context,
    accounts_file: Annotated[Path | None, typer.Argument(help="The accounts; by default ACCOUNTS_FILE.")] = None,
    tokens_file: Annotated[Path | None, typer.Argument(help="The tokens; by default TOKENS_FILE.")] = None,
) -> None:
    """Sign every account in and put the tokens into the token file, in place of all that were there (see .backup)."""
    from k2think.terminal import Terminal
    from k2think.token_errands import sign_in

    settings = _settings(context)
    if settings.upstream.protocol != "k2think":
        _leave("An OpenAI-compatible server has no sign-in; it takes the keys in UPSTREAM_API_KEY.", 2)
    found = _accounts(accounts_file or settings.credentials.accounts_file)
    target = tokens_file or settings.credentials.tokens_file
    if not target.absolute().parent.is_dir():  # to be told before everybody is signed in, not after
        _leave(f"{target} cannot be written: there is no folder {target.absolute().parent}.")
    terminal = Terminal()
    with terminal.following("Signing in", len(found.accounts)) as step:

        def told(outcome: Outcome) -> None:
            step(f"{outcome.account.masked()}  {_said(*_result(outcome))}")

        outcomes = asyncio.run(sign_in(settings, found.accounts, told))
    rows = [(str(number), one.account.masked(), *_result(one)) for number, one in enumerate(outcomes, 1)]
    terminal.table(("", "account", "sign-in", "reason"), rows)
    secrets = [one.credential.secret for one in outcomes if one.credential]
    result = f"{len(secrets)} of {_counted(len(outcomes), 'account')} gave a token"
    if not secrets:
        _leave(f"{result}; {target} stays as it was")
    try:
        TokenFile(target).write(secrets)
    except UpdateUnusable as error:
        _leave(f"{result}; but {error}")
    typer.echo(f"{result}; written to {target}")


@tokens_app.command("reset")
def reset_tokens(
    context: typer.Context,
    index: Annotated[int | None, typer.Argument(min=0, help="Of one token only, as `list` shows it.")] = None,
) -> None:
    """Make tokens usable again that were rejected or limited; in the running gateway, else for its next start."""
    from k2think.credentials.health import UnknownToken
    from k2think.storage.base import StorageUnusable
    from k2think.terminal import plain
    from k2think.token_reset import ResetRefused, reset_in_gateway, reset_kept

    settings = _settings(context)
    url = base_url(settings.server.host, settings.server.port)
    try:
        standing = asyncio.run(reset_in_gateway(settings, index))
        if standing is not None:
            typer.echo(f"Done by the gateway that runs at {url}.")
        else:
            standing = reset_kept(settings, _credentials(settings), index)
            typer.echo(f"No gateway answers at {url}, so this was done for its next start.")
    except (ResetRefused, UnknownToken, StorageUnusable) as error:
        _leave(plain(str(error)))
    typer.echo(_standing(standing, index))


def relative(at: float | None, now: float) -> str:
    """When a token expires (Unix seconds), as a person says it: "in 11 h", "expired 3 h ago"."""
    if at is None:
        return "not told"
    seconds = abs(at - now)
    size, unit = next((unit for unit in UNITS if seconds >= 2 * unit[0]), UNITS[-1])
    span = f"{seconds // size:.3g} {unit}"
    return f"in {span}" if at > now else f"expired {span} ago"


def _settings(context: typer.Context) -> Settings:
    """The settings; that clients have no key yet is no matter of the tokens."""
    try:
        try:
            return Settings.load(beside=context.obj)
        except SettingsError:
            return Settings.load(beside=context.obj, overrides={"VALID_API_KEY": "none"})
    except SettingsError as error:
        _leave(str(error), 2)


def _read(path: Path) -> tuple[Credential, ...]:
    try:
        return TokenFile(path).read()
    except TokenFileUnreadable as error:
        _leave(str(error))


def _credentials(settings: Settings) -> tuple[Credential, ...]:
    """What a gateway with these settings would ask the service with."""
    from k2think.gateway import keys_of

    tokens = _read(settings.credentials.tokens_file)
    return keys_of(settings, tokens) or tokens


def _accounts(path: Path) -> AccountList:
    from k2think.credentials.accounts import AccountFileUnreadable, read_accounts

    try:
        found = read_accounts(path)
    except AccountFileUnreadable as error:
        _leave(str(error))
    for fault in found.faults:
        typer.echo(f"{path}, {fault}", err=True)
    if not found.accounts:
        _leave(f"There is no account in {path}." if path.exists() else f"{path} is not there.")
    return found


def _result(outcome: Outcome) -> tuple[str, str]:
    from k2think.errors import QuotaExceeded, SignInRefused

    match outcome.error:
        case None if outcome.credential is None:
            return "spared", "The upstream failed for the accounts before this one."
        case None:
            return "good", ""
        case SignInRefused(message=reason):
            return "refused", reason
        case QuotaExceeded(message=reason):
            return "limited", reason
        case error:
            return "failed", error.message


def _standing(standing: Standing, index: int | None) -> str:
    if index is not None:
        if standing.active:
            return f"Token {index} can be used now."
        if standing.expired:
            return f"Token {index} has expired; a new one is needed (k2think tokens fetch)."
        return f"Token {index} was disabled by hand and stays so; POST /admin/tokens/{index}/enable ends that."
    total = standing.active + standing.disabled + standing.expired
    said = [f"{standing.active} of {_counted(total, 'token')} can be used now."]
    if standing.disabled:
        said.append(f"Disabled by hand: {standing.disabled}; POST /admin/tokens/INDEX/enable ends that.")
    if standing.expired:
        said.append(f"Expired: {standing.expired}; new ones are needed (k2think tokens fetch).")
    return " ".join(said)


def _shown(credential: Credential) -> str:
    return credential.masked() if credential.secret else "no key"


def _said(state: str, reason: str) -> str:
    return f"{state}: {reason}" if reason else state


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _leave(message: str, code: int = 1) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)
