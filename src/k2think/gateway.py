"""Builds everything, once, by name, and hands it down. Knows no HTTP of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from k2think.credentials.account_book import AccountBook
from k2think.credentials.credential import Credential
from k2think.credentials.keeper import Keeper
from k2think.credentials.leadership import Leadership
from k2think.credentials.mint import Mint
from k2think.credentials.persistence import Persistence
from k2think.credentials.pool import Pool
from k2think.credentials.refresher import Refresher
from k2think.credentials.renewals import Renewals
from k2think.credentials.sharing import Sharing
from k2think.credentials.stock import Stock
from k2think.credentials.token_file import TokenFile, TokenFileUnreadable, UpdateUnusable
from k2think.credentials.watcher import watch
from k2think.credentials.worker import ALONE, Worker
from k2think.engine.admission import Admission
from k2think.engine.attachments import Attachments
from k2think.engine.engine import Engine
from k2think.engine.native import Native
from k2think.engine.openers import Openers
from k2think.errors import GatewayError
from k2think.library.shelf import Shelf
from k2think.library.texts import Texts
from k2think.settings import Settings
from k2think.storage.board import Board
from k2think.storage.directory import DirectoryStorage
from k2think.telemetry.recent import Recent
from k2think.telemetry.tools import ToolStats
from k2think.upstreams.base import Upstream
from k2think.upstreams.catalog import Catalog
from k2think.upstreams.k2think.login import K2ThinkLogin
from k2think.upstreams.k2think.upstream import K2ThinkUpstream
from k2think.upstreams.openai import OpenAIUpstream
from k2think.upstreams.patience import Patience
from k2think.upstreams.public_web import PublicWeb
from k2think.upstreams.transport import Transport

logger = logging.getLogger(__name__)

SWEEP_EVERY = 600.0
"""Seconds between two looks for uploaded files that are to be deleted."""

SHIPPED_SCRIPT = "get_tokens.py"
SHIPPED_MARK = b"from k2think.cli import main"
"""What the project's own script is called and holds; what it does, the refresher does by itself."""


class Gateway:
    """The parts that serve requests. Between `start` and `close` it belongs to one event loop.

    `stock` is None where the credentials are keys of the settings; `refresher` where no tokens are made. `board`: where
    to ask the other workers. Running requests, and the judgement that the service fails for everybody, are each
    worker's own. Raises `TokenFileUnreadable` when made from settings whose token file is there but cannot be read.
    """

    def __init__(self, settings: Settings, worker: Worker = ALONE) -> None:
        self.settings = settings
        self.worker = worker
        credentials = settings.credentials
        file = TokenFile(credentials.tokens_file)
        tokens = _tokens(file)
        keys = keys_of(settings, tokens)
        renewals = Renewals() if credentials.enable_token_auto_update and not keys else None
        pool = Pool(
            keys or tokens,
            max_failures=credentials.max_token_failures,
            max_concurrency=credentials.token_max_concurrency,
            strategy=credentials.token_strategy,
            worker=worker,
        )
        self.keeper = Keeper(pool, wait=credentials.pool_wait, renewals=renewals)
        self.stock = None if keys else Stock(file, self.keeper)
        self.recent = Recent()
        self.tool_stats = ToolStats()
        self.shelf = Shelf(
            settings.files.data_dir / "files",
            max_bytes=settings.files.max_file_bytes,
            quota_bytes=settings.files.files_quota_bytes,
            ttl=settings.files.files_ttl,
        )
        storage = DirectoryStorage(settings.storage.state_dir)
        self.board = Board(storage, others=worker.of - 1)
        self.board.answer("reload", self._reloaded)
        sharing = Sharing(storage, self.keeper)
        self._health = Persistence(storage, self.keeper) if worker.is_alone else sharing
        connections = worker.share(settings.upstream.max_connections)
        chats = transport_of(settings, proxied=settings.upstream.proxy_chat, max_connections=connections)
        self._clients: list[Transport | PublicWeb] = [chats]
        self.refresher: Refresher | Leadership | None = None
        if renewals and self.stock:
            book = AccountBook()
            refresher = Refresher(
                keeper=self.keeper,
                renewals=renewals,
                mint=Mint(
                    login=K2ThinkLogin(self._for_sign_in(), settings.upstream.k2think_api_url),
                    book=book,
                    stock=self.stock,
                    keeper=self.keeper,
                    workers=credentials.token_max_workers,
                ),
                book=book,
                storage=storage,
                accounts_file=credentials.accounts_file,
                script=own_script(credentials.get_tokens_script),
                interval=credentials.token_update_interval,
            )
            self.refresher = (
                refresher
                if worker.is_alone
                else Leadership(
                    refresher=refresher,
                    keeper=self.keeper,
                    renewals=renewals,
                    stock=self.stock,
                    sharing=sharing,
                    storage=storage,
                    board=self.board,
                )
            )
        texts = Texts()
        upstream = _upstream(settings, chats, texts)
        self.catalog = Catalog(
            upstream,
            self.keeper,
            preferred=settings.upstream.upstream_model,
            aliases=settings.upstream.model_aliases,
            vision=settings.upstream.upstream_vision,
        )
        self.attachments = Attachments(
            catalog=self.catalog,
            shelf=self.shelf,
            texts=texts,
            web=self._public_web() if settings.files.allow_url_fetch else None,
            settings=settings.files,
            uploads=settings.files.file_mode == "upstream" and settings.upstream.protocol == "k2think",
        )
        self.engine = Engine(
            upstream=upstream,
            catalog=self.catalog,
            keeper=self.keeper,
            admission=Admission(connections),
            openers=Openers(settings.thinking.think_opener),
            native=Native(settings.upstream.native),
            tools=settings.tools,
            stats=self.tool_stats,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def is_refreshing(self) -> bool:
        """Whether somebody sees to it that there are good tokens."""
        return self._refreshing is not None and not self._refreshing.done()

    def files(self) -> dict[str, bool]:
        """Which of the files that make tokens are there; the shipped script's work is done without it."""
        credentials = self.settings.credentials
        script = credentials.get_tokens_script
        return {
            "get_tokens_script": script.is_file() or script.name == SHIPPED_SCRIPT,
            "accounts_file": credentials.accounts_file.is_file(),
            "tokens_file": credentials.tokens_file.is_file(),
        }

    async def start(self) -> None:
        """Open what needs an event loop, and set to work what works beside the requests."""
        for client in self._clients:
            await client.start()
        self._warn_of_limits()
        await asyncio.to_thread(self._health.restore)
        self._run(self._health.run())
        if not self.worker.is_alone:
            self._run(self.board.run())
        self._run(self._sweep_files())
        watched: dict[Path, Callable[[], Awaitable[None]]] = {}
        if self.stock:
            watched[self.settings.credentials.tokens_file] = self._tokens_edited
        if self.refresher:
            self.refresher.restore()
            self._refreshing = self._run(self.refresher.run())
            watched[self.settings.credentials.accounts_file] = self.refresher.accounts_edited
        self._run(watch(watched))

    async def close(self) -> None:
        """Close it again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await asyncio.to_thread(self._health.save)
        for client in self._clients:
            await client.close()

    def _for_sign_in(self) -> Transport:
        """A client of its own, as chats may hold all connections of theirs; through the proxy in any case."""
        transport = transport_of(self.settings, proxied=True)
        self._clients.append(transport)
        return transport

    def _public_web(self) -> PublicWeb:
        web = PublicWeb()
        self._clients.append(web)
        return web

    def _warn_of_limits(self) -> None:
        """Say which limits are too small to give each worker its share; one of them says it for all."""
        workers = self.worker.of
        tokens, each = len(self.keeper.pool), self.settings.credentials.token_max_concurrency
        if self.worker.number:
            return
        if tokens and 0 < tokens * each < workers:
            logger.warning(
                "%d tokens that carry %d requests each (TOKEN_MAX_CONCURRENCY) are too few for %d workers (WORKERS): "
                "as each of them must serve, a token may carry more",
                tokens,
                each,
                workers,
            )
        if self.settings.upstream.max_connections < workers:
            logger.warning("MAX_CONNECTIONS is less than WORKERS: there will be one for each worker")

    async def _reloaded(self, _: bytes) -> bytes:
        """Another worker has changed the token file, or was told to read it again."""
        try:
            if self.stock:
                await self.stock.reload()
        except TokenFileUnreadable as error:
            logger.warning("%s", error)
        return b""

    async def _tokens_edited(self) -> None:
        assert self.stock is not None
        try:
            await self.stock.reload(may_be_empty=False)
        except TokenFileUnreadable as error:
            logger.warning("the token file was edited, but: %s", error)

    async def _sweep_files(self) -> None:
        while True:
            with suppress(GatewayError):  # the log has it
                await asyncio.to_thread(self.shelf.sweep, time.time())
            await asyncio.sleep(SWEEP_EVERY)

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(_tell_of_its_end)
        self._tasks.append(task)
        return task


def own_script(script: Path) -> Path | None:
    """The user's own script for making tokens; None if it is the shipped one, or there is none."""
    if not script.is_file():
        if script.name != SHIPPED_SCRIPT:
            logger.warning("%s is not there (GET_TOKENS_SCRIPT): the gateway signs the accounts in itself", script)
        return None
    try:
        with script.open("rb") as file:
            return None if SHIPPED_MARK in file.read(4096) else script
    except OSError as error:
        logger.warning("%s cannot be read (%s): the gateway signs the accounts in itself", script, error.strerror)
        return None


def _tell_of_its_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.critical("a part of the gateway has stopped; restart it", exc_info=error)


def keys_of(settings: Settings, tokens: tuple[Credential, ...]) -> tuple[Credential, ...]:
    """The keys of an OpenAI-compatible server; the anonymous one, if it has neither keys nor tokens."""
    if settings.upstream.protocol != "openai":
        return ()
    keys = tuple(Credential.of(key.get_secret_value()) for key in settings.upstream.upstream_api_key)
    return keys or (() if tokens else (Credential.of(""),))


def _tokens(file: TokenFile) -> tuple[Credential, ...]:
    """The tokens of the file, after an update that was interrupted has been finished."""
    try:
        file.recover()
    except UpdateUnusable as error:
        logger.warning("%s", error)  # reading gives the new tokens all the same
    return file.read()


def transport_of(settings: Settings, *, proxied: bool, max_connections: int | None = None) -> Transport:
    """The HTTP client that the settings describe; `proxied`: through PROXY_URL, if there is one.

    `max_connections`: this worker's share, where not all are its own.
    """
    upstream = settings.upstream
    proxy = upstream.proxy_url.get_secret_value() if upstream.proxy_url and proxied else None
    return Transport(
        patience=Patience(
            connect=upstream.connect_timeout,
            first_event=upstream.first_event_timeout,
            silence=upstream.request_timeout,
            total=upstream.total_timeout,
        ),
        max_connections=max_connections or upstream.max_connections,
        proxy=proxy,
    )


def _upstream(settings: Settings, transport: Transport, texts: Texts) -> Upstream:
    url = settings.upstream.k2think_api_url
    if settings.upstream.protocol == "openai":
        return OpenAIUpstream(transport, url)
    return K2ThinkUpstream(transport, url, texts.of, settings.files.file_text_budget)
