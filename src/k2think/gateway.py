"""Builds everything, once, by name, and hands it down. Knows no HTTP of its own."""

from __future__ import annotations

from k2think.credentials.credential import Credential
from k2think.credentials.keeper import Keeper
from k2think.credentials.pool import Pool
from k2think.credentials.sources import read_tokens
from k2think.engine.admission import Admission
from k2think.engine.engine import Engine
from k2think.engine.openers import Openers
from k2think.settings import Settings
from k2think.upstreams.base import Upstream
from k2think.upstreams.catalog import Catalog
from k2think.upstreams.k2think.upstream import K2ThinkUpstream
from k2think.upstreams.openai import OpenAIUpstream
from k2think.upstreams.transport import Patience, Transport


class Gateway:
    """The parts that serve requests. Between `start` and `close` it belongs to one event loop.

    Raises `TokenFileUnreadable` when made from settings whose token file is there but cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keeper = Keeper(Pool(_credentials(settings), max_failures=settings.credentials.max_token_failures))
        self._transport = _transport(settings)
        upstream = _upstream(settings, self._transport)
        self.catalog = Catalog(
            upstream,
            self.keeper,
            preferred=settings.upstream.upstream_model,
            aliases=settings.upstream.model_aliases,
        )
        self.engine = Engine(
            upstream=upstream,
            catalog=self.catalog,
            keeper=self.keeper,
            admission=Admission(settings.upstream.max_connections),
            openers=Openers(settings.thinking.think_opener),
        )

    async def start(self) -> None:
        """Open what needs an event loop."""
        await self._transport.start()

    async def close(self) -> None:
        """Close it again."""
        await self._transport.close()


def _credentials(settings: Settings) -> tuple[Credential, ...]:
    """The tokens of the file; for an OpenAI-compatible server also its keys, or none at all if it asks for none."""
    tokens = read_tokens(settings.credentials.tokens_file)
    if settings.upstream.protocol != "openai":
        return tokens
    keys = tuple(Credential.of(key.get_secret_value()) for key in settings.upstream.upstream_api_key)
    return keys or tokens or (Credential.of(""),)


def _transport(settings: Settings) -> Transport:
    upstream = settings.upstream
    proxy = upstream.proxy_url.get_secret_value() if upstream.proxy_url and upstream.proxy_chat else None
    return Transport(
        patience=Patience(
            connect=upstream.connect_timeout,
            first_event=upstream.first_event_timeout,
            silence=upstream.request_timeout,
            total=upstream.total_timeout,
        ),
        max_connections=upstream.max_connections,
        proxy=proxy,
    )


def _upstream(settings: Settings, transport: Transport) -> Upstream:
    url = settings.upstream.k2think_api_url
    if settings.upstream.protocol == "openai":
        return OpenAIUpstream(transport, url)
    return K2ThinkUpstream(transport, url)
