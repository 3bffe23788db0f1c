"""The command line: `k2think serve`, `demo`, `simulate`, `check`, `health`, `tokens`. Words and exit codes, no logic.

Whatever serves or asks is imported by the commands that do: that takes longer than all the rest.

Exit codes: 0 done, 1 something is wrong (check, health, tokens), 2 cannot start.
"""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from k2think import NAME, __version__
from k2think.addresses import ask, base_url
from k2think.check_command import check
from k2think.credentials.token_file import TokenFileUnreadable
from k2think.credentials.worker import Worker
from k2think.settings import Server, Settings, SettingsError
from k2think.simulator.options import Account, Release, SimulatorOptions
from k2think.simulator.tokens import mint_token
from k2think.telemetry.logs import configure_logging
from k2think.token_commands import tokens_app

if TYPE_CHECKING:
    from k2think.listening import AsgiApp

logger = logging.getLogger(__name__)

DEMO_KEY = "sk-k2think-demo"
DEMO_TOKENS = 3
HEALTH_SECONDS = 5.0
"""Seconds that a gateway has to say that it is well."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(tokens_app, name="tokens")
app.command()(check)

Host = Annotated[str | None, typer.Option(help="Address to listen on; wins over HOST.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free one.")]


def main(arguments: Sequence[str] | None = None, *, beside: Path | None = None) -> NoReturn:
    """Run the command line; `arguments` without the program's name, by default those of the process.

    `beside` is the folder of the script that was started, where a `.env` may be; commands find it as `context.obj`.
    """
    app(args=arguments, prog_name="k2think", obj=beside)
    raise SystemExit(0)


@app.callback(invoke_without_command=True)
def above_the_commands(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    no_color: Annotated[str, typer.Option(envvar="NO_COLOR", hidden=True)] = "",
) -> None:
    """An OpenAI-compatible gateway for MBZUAI's K2-Think."""
    if no_color:
        context.color = False  # and so for every command below
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def serve(context: typer.Context, host: Host = None, port: Port = None) -> None:
    """Serve the gateway with the settings of the environment and .env."""
    _leave_quietly()
    try:
        settings = Settings.load(beside=context.obj, overrides=_overrides(host, port))
    except SettingsError as error:
        _cannot_start(error)
    for_programs = settings.logging.log_format == "json"
    log = partial(
        configure_logging,
        settings.logging.log_level,
        debug=settings.logging.debug_logging,
        requests=settings.server.enable_access_log,
        written=settings.logging.log_format,
        colours=_has_colours(context),
    )
    log()
    # Only now, so that what is wrong with the settings is told at once.
    from k2think.app import create_app
    from k2think.banner import GOODBYE, TITLE, banner
    from k2think.listening import AddressUnusable, listen_several, run, url_of

    def cannot_start(error: Exception) -> NoReturn:
        if not for_programs:
            _cannot_start(error)
        logger.critical("%s", error)
        raise SystemExit(2) from None

    count, drain = settings.server.workers, settings.server.drain_timeout
    try:
        alone = create_app(settings) if count == 1 else None
        listeners = listen_several(settings.server.host, settings.server.port, count)
    except (TokenFileUnreadable, AddressUnusable) as error:
        cannot_start(error)
    for warning in settings.warnings:
        if for_programs:
            logger.warning("%s", warning)
        else:
            typer.echo(f"Note: {warning}", err=True)

    def ready() -> None:
        lines = list(banner(settings, url_of(listeners[0]), time.time()))
        if for_programs:
            for line in lines:
                logger.log(logging.WARNING if line.is_wrong else logging.INFO, "%s: %s", line.label, line.text)
            return
        typer.echo(typer.style(TITLE, bold=True))
        for line in lines:
            typer.echo(typer.style(str(line), fg="red") if line.is_wrong else str(line))
        typer.echo(f"  {GOODBYE}")

    if alone:
        run(alone, listeners[0], ready, drain=drain)
        return
    from k2think.workers import supervise

    def worker(number: int) -> AsgiApp:
        log(worker=number)
        try:
            return create_app(settings, worker=Worker(number, count))
        except TokenFileUnreadable as error:
            cannot_start(error)

    raise typer.Exit(supervise(worker, listeners, ready, drain=drain))


@app.command()
def demo(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the gateway.")] = 8001,
) -> None:
    """Serve the gateway in front of a simulated K2-Think: needs no account, no token and no network."""
    _leave_quietly()
    from k2think.app import create_app
    from k2think.listening import AddressUnusable, listen, run, running_beside, url_of
    from k2think.simulator.app import create_simulator

    try:
        gateway = listen("127.0.0.1", port)
        upstream = listen("127.0.0.1", 0)
    except AddressUnusable as error:
        _cannot_start(error)
    configure_logging("INFO", debug=False, colours=_has_colours(context))
    service = create_simulator(
        SimulatorOptions(models=("MBZUAI-IFM/K2-Think",), first_delay=0.1, delay=0.005, vision=False)
    )
    with (
        tempfile.TemporaryDirectory(prefix="k2think-demo-") as folder,
        running_beside(service, upstream, drain=0),  # once the gateway has stopped, nobody waits for its answers
    ):
        tokens = [mint_token(f"demo{number}@example.com") for number in range(DEMO_TOKENS)]
        Path(folder, "tokens.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
        settings = Settings.load(
            {"VALID_API_KEY": DEMO_KEY, "K2THINK_API_URL": f"{url_of(upstream)}/api/chat/completions"},
            directory=Path(folder),
        )
        drain = settings.server.drain_timeout
        run(create_app(settings), gateway, lambda: typer.echo(_demo_banner(url_of(gateway))), drain=drain)


@app.command()
def simulate(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free one.")] = 8002,
    release: Annotated[Release, typer.Option(help="Release of Open WebUI to play.")] = "0.12.4",
    shape: Annotated[str, typer.Option(help="How thinking and answer are written.")] = "think_answer",
    openai_shape: Annotated[str, typer.Option(help="The same for /v1.")] = "reasoning_content",
    fault: Annotated[str, typer.Option(help="What goes wrong with every chat; empty: nothing.")] = "",
    token_ttl: Annotated[float | None, typer.Option(help="Seconds that a token is good.")] = None,
    jti: Annotated[bool | None, typer.Option(help="Give tokens a random id.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Model to offer; may be given again.")] = None,
    first_delay: Annotated[float, typer.Option(help="Seconds before an answer begins.")] = 0.0,
    delay: Annotated[float, typer.Option(help="Seconds between two deltas.")] = 0.0,
    max_concurrent: Annotated[int, typer.Option(help="Chats at a time per account; 0: any number.")] = 0,
    account: Annotated[list[str] | None, typer.Option(help="EMAIL=PASSWORD that may sign in; again for more.")] = None,
    sign_in_delay: Annotated[float, typer.Option(help="Seconds before a sign-in is answered.")] = 0.0,
    sign_in_limit: Annotated[int, typer.Option(help="Sign-ins per e-mail and window; 0: any number.")] = 15,
    sign_in_window: Annotated[float, typer.Option(help="Seconds of that window.")] = 180.0,
    secret: Annotated[str | None, typer.Option(help="Secret that signs the tokens.")] = None,
    hidden_prompt_tokens: Annotated[int, typer.Option(help="Tokens of a hidden system prompt.")] = 0,
    time_info: Annotated[bool, typer.Option(help="Add time_info to answers.")] = False,
    system_fingerprint: Annotated[bool, typer.Option(help="Add system_fingerprint to answers.")] = False,
    compress: Annotated[bool, typer.Option(help="Send JSON with gzip.")] = True,
    chats_exist: Annotated[bool, typer.Option(help="Treat every chat_id as one of a saved chat.")] = True,
    refuses: Annotated[list[str] | None, typer.Option(help="A field that /v1 refuses, such as tools.")] = None,
    openai_key: Annotated[str | None, typer.Option(help="Key that /v1 asks for.")] = None,
    file_faults: Annotated[list[str] | None, typer.Option(help="What goes wrong with files; again for more.")] = None,
    file_processing_seconds: Annotated[float, typer.Option(help="Seconds until a file is processed.")] = 0.0,
    vision: Annotated[bool | None, typer.Option(help="Say in the list of models that they see images.")] = True,
) -> None:
    """Serve a simulated K2-Think web service, for tests and for trying things out."""
    _leave_quietly()
    from k2think.listening import AddressUnusable, listen, run, url_of
    from k2think.simulator.app import create_simulator

    options = SimulatorOptions(
        release=release,
        shape=shape,
        openai_shape=openai_shape,
        fault=fault,
        token_ttl=token_ttl,
        jti=jti,
        models=tuple(model) if model else SimulatorOptions.models,
        first_delay=first_delay,
        delay=delay,
        max_concurrent=max_concurrent,
        accounts=dict(map(_account, account or ())),
        sign_in_delay=sign_in_delay,
        sign_in_limit=sign_in_limit,
        sign_in_window=sign_in_window,
        secret=secret or SimulatorOptions.secret,
        hidden_prompt_tokens=hidden_prompt_tokens,
        time_info=time_info,
        system_fingerprint=system_fingerprint,
        compress=compress,
        chats_exist=chats_exist,
        refuses=tuple(refuses or ()),
        openai_key=openai_key,
        file_faults=tuple(file_faults or ()),
        file_processing_seconds=file_processing_seconds,
        vision=vision,
    )
    try:
        simulator = create_simulator(options)
        listener = listen(host, port)
    except (ValueError, AddressUnusable) as error:
        _cannot_start(error)
    run(
        simulator,
        listener,
        lambda: typer.echo(f"Simulated K2-Think: {url_of(listener)}"),
        drain=Server().drain_timeout,
    )


@app.command()
def health(context: typer.Context, host: Host = None, port: Port = None) -> None:
    """Ask the gateway that runs on this machine whether it is well."""
    keyless = {"VALID_API_KEY": "none"}  # the question needs none, so it may be missing
    try:
        server = Settings.load(beside=context.obj, overrides=keyless | _overrides(host, port)).server
    except SettingsError as error:
        _is_unwell(str(error))
    if not server.port:
        _is_unwell("PORT is 0, any free port: nobody knows which. Name it with --port.")
    where = f"{base_url(server.host, server.port)}/health"
    try:
        status, _ = ask(server.host, server.port, "/health", patience=HEALTH_SECONDS)
    except TimeoutError:
        _is_unwell(f"{where} does not answer within {HEALTH_SECONDS:g} s.")
    except (OSError, UnicodeError, HTTPException) as error:
        _is_unwell(f"{where} does not answer: {error or type(error).__name__}.")
    if status != HTTPStatus.OK:
        _is_unwell(f"{where} answers {status}.")
    typer.echo(f"{where} answers: the gateway is well.")


def _account(text: str) -> tuple[str, Account]:
    email, _, password = text.partition("=")
    if not email or not password:
        raise typer.BadParameter("an account is EMAIL=PASSWORD", param_hint="--account")
    return email.lower(), Account(password=password)


def _overrides(host: str | None, port: int | None) -> dict[str, str]:
    return {"HOST": host or "", "PORT": "" if port is None else str(port)}


def _leave_quietly() -> None:
    """From now on Ctrl-C and SIGTERM end the process as one that is done, at whatever stage of its start it is."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _, __: sys.exit(0))


def _has_colours(context: typer.Context) -> bool:
    """Whether the log, which is standard error, is to have colours."""
    return sys.stderr.isatty() and context.color is not False


def _is_unwell(reason: str) -> NoReturn:
    typer.echo(reason, err=True)
    raise SystemExit(1) from None


def _cannot_start(error: Exception) -> NoReturn:
    typer.echo(str(error), err=True)
    raise SystemExit(2) from None


def _demo_banner(url: str) -> str:
    messages = '[{"role": "user", "content": "What is 17 * 23?"}]'
    body = f'{{"model": "MBZUAI-IFM/K2-Think", "stream": true, "messages": {messages}}}'
    return f"""{NAME} {__version__}, demo: the answers are simulated; no model and no service is behind them.

  base URL  {url}/v1
  API key   {DEMO_KEY}

Try it in another terminal:

curl -N {url}/v1/chat/completions \\
  -H "Authorization: Bearer {DEMO_KEY}" \\
  -H "Content-Type: application/json" \\
  -d '{body}'

Ctrl-C stops it."""
