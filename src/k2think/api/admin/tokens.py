"""`/admin/tokens`: seen, reset, switched, added and removed."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from k2think.api.admin.answers import Refused, moment, shown, stats, success
from k2think.api.body import read_json_body
from k2think.credentials.credential import MAX_JWT, Credential
from k2think.credentials.health import UnknownToken
from k2think.credentials.pool import CONSECUTIVE_THRESHOLD, Pool
from k2think.credentials.stock import Stock
from k2think.gateway import Gateway

MAX_BODY = 8 * 1024 * 1024
MAX_PAGE = 1000
MAX_DIGITS = 9


class NewTokens(msgspec.Struct):
    """The body that adds tokens."""

    tokens: list[str]


def tokens_router(gateway: Gateway) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/tokens")
    keeper = gateway.keeper
    pool = keeper.pool

    def account_of(credential: Credential) -> str | None:
        return gateway.refresher.account_of(credential) if gateway.refresher else None

    def done(index: int, message: str) -> Response:
        """What a change by hand is followed by, and its answer."""
        keeper.changed()
        return success(message, **shown(pool.member(index)))

    def stock() -> Stock:
        if gateway.stock is None:
            raise Refused("The keys come from UPSTREAM_API_KEY, so there is no token file to change.")
        return gateway.stock

    @router.get("", summary="List the tokens")
    async def list_tokens(
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
        state: Literal["active", "cooling", "disabled", "expired"] | None = None,
    ) -> Response:
        members = [member for member in pool.snapshot(time.time()) if state in {None, member.state}]
        page = members[offset : offset + limit]
        tokens = [shown(member, account_of(member.credential)) for member in page]
        return success(total=len(members), offset=offset, limit=limit, tokens=tokens)

    @router.get("/stats", summary="Count the tokens")
    async def token_stats() -> Response:
        return success(**stats(gateway))

    @router.get("/consecutive-failures", summary="How many tokens were rejected in a row")
    async def consecutive_failures() -> Response:
        return success(
            consecutive_failures=pool.consecutive_failures,
            threshold=CONSECUTIVE_THRESHOLD,
            token_pool_size=len(pool),
            auto_refresh_enabled=gateway.refresher is not None,
            last_check=moment(time.time()),
        )

    @router.post("/reset-consecutive", summary="Begin that count anew")
    async def reset_consecutive() -> Response:
        previous = pool.reset_consecutive()
        keeper.touched.set()
        return success("Consecutive failures are counted anew.", previous_count=previous, current_count=0)

    @router.post("/reset/{index}", summary="Forget a token's failures")
    async def reset(index: str) -> Response:
        pool.reset(number := chosen(pool, index))
        return done(number, f"The failures of token {number} are forgotten.")

    @router.post("/reset-all", summary="Forget the failures of all tokens")
    async def reset_all() -> Response:
        pool.reset_all()
        keeper.changed()
        return success("The failures of all tokens are forgotten.", **stats(gateway))

    @router.post("/reload", summary="Read the token file again")
    async def reload() -> Response:
        if gateway.stock:
            await gateway.stock.reload()
            await gateway.board.ask("reload")
        return success(f"Tokens in use: {len(pool)}.", **stats(gateway))

    @router.post("/{index}/disable", summary="Use a token no more")
    async def disable(index: str) -> Response:
        pool.disable(number := chosen(pool, index))
        return done(number, f"Token {number} is no longer used.")

    @router.post("/{index}/enable", summary="Use a token again")
    async def enable(index: str) -> Response:
        pool.enable(number := chosen(pool, index))
        return done(number, f"Token {number} is used again.")

    @router.post("", summary="Add tokens")
    async def add(request: Request) -> Response:
        try:
            new = msgspec.json.decode(await read_json_body(request.scope, request.receive, MAX_BODY), type=NewTokens)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(f'The body must be {{"tokens": ["…", …]}}: {error}') from None
        for place, token in enumerate(new.tokens):
            if not is_token(token):
                raise Refused(f"tokens[{place}] is no token: it must be one word of ASCII signs.")
        added = await stock().add(new.tokens)
        await gateway.board.ask("reload")
        return success(f"Tokens added: {added}.", added=added, **stats(gateway))

    @router.delete("/{index}", summary="Remove a token")
    async def remove(index: str) -> Response:
        credential = pool.member(chosen(pool, index)).credential
        await stock().remove(credential)
        await gateway.board.ask("reload")
        return success(f"Token {credential.masked()} is gone.", **stats(gateway))

    return router


def chosen(pool: Pool, index: str) -> int:
    """The index of a token that exists."""
    if not (index.isascii() and index.isdecimal() and len(index) <= MAX_DIGITS):
        raise Refused(f"'{index[:20]}' is no index: it must be a whole number.")
    try:
        pool.member(int(index))
    except UnknownToken as error:
        raise Refused(str(error)) from None
    return int(index)


def is_token(text: str) -> bool:
    """Whether this can stand on a line of the token file and in a header."""
    return 0 < len(text) <= MAX_JWT and text.isascii() and text.isprintable() and not set(' "#,;\\') & set(text)
