"""Makes tokens usable again: in the gateway that runs on this machine, else in what is kept for its next start."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from k2think import NAME
from k2think.addresses import MAX_ANSWER, base_url
from k2think.credentials.credential import Credential
from k2think.credentials.persistence import KEY, HealthDamaged, kept_health
from k2think.credentials.pool import Pool
from k2think.errors import UpstreamError
from k2think.settings import Settings
from k2think.storage.directory import DirectoryStorage
from k2think.upstreams.patience import Patience
from k2think.upstreams.transport import Transport

PATIENCE = Patience(connect=5, first_event=30, silence=30, total=60)
"""Towards this machine."""


class ResetRefused(Exception):
    """The gateway is there, but did not do it; the message says why."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How many of the tokens that were to be reset are in which state now."""

    active: int
    disabled: int
    expired: int


class _Data(msgspec.Struct):
    """Of one token its `state`, of all of them the rest."""

    state: str | None = None
    active_tokens: int = 0
    disabled_tokens: int = 0
    expired_tokens: int = 0


class _Error(msgspec.Struct):
    message: str = ""


class _Answer(msgspec.Struct):
    name: str = ""
    message: str = ""
    data: _Data | None = None
    error: _Error | None = None


async def reset_in_gateway(settings: Settings, index: int | None) -> Standing | None:
    """Reset a token, or all, in the gateway that runs here; None if there is none. Raises `ResetRefused`."""
    if not settings.server.port:
        return None  # the system's choice, which is known to nobody else
    base = base_url(settings.server.host, settings.server.port)
    transport = Transport(patience=PATIENCE, max_connections=1)
    await transport.start()
    try:
        try:
            _, root = await _ask(transport, "GET", f"{base}/")
        except UpstreamError:
            return None
        if root.name != NAME:
            return None
        url = f"{base}/admin/tokens/" + ("reset-all" if index is None else f"reset/{index}")
        status, answer = await _ask(transport, "POST", url)
        if status in {401, 403}:  # we do not look like this machine to it, as where it runs in a container
            status, answer = await _ask(transport, "POST", url, _key(settings))
    except UpstreamError:
        raise ResetRefused(f"The gateway at {base} does not answer. Nothing is known of the reset.") from None
    finally:
        await transport.close()
    if status != 200 or answer.data is None:
        said = answer.message or (answer.error.message if answer.error else "")
        raise ResetRefused(f"The gateway at {base} answered {status}: {said or 'nothing that could be read.'}")
    return _standing_of(answer.data)


def reset_kept(settings: Settings, credentials: Sequence[Credential], index: int | None) -> Standing:
    """Reset a token, or all, in what the next start will find. Raises `UnknownToken`, `StorageUnusable`."""
    storage = DirectoryStorage(settings.storage.state_dir)
    now = time.time()
    pool = Pool(credentials, max_failures=settings.credentials.max_token_failures)
    kept = storage.get(KEY) is not None
    with contextlib.suppress(HealthDamaged):  # no gateway could read it, it would begin anew
        pool.restore(kept_health(storage), now)
    if index is None:
        pool.reset_all()
    else:
        pool.reset(index)
    if kept:
        storage.put(KEY, msgspec.json.encode(pool.health()))
    summary = pool.summary(now)
    if index is None:
        return Standing(summary.active, summary.disabled, summary.expired)
    return _standing(pool.member(index).state)


async def _ask(transport: Transport, method: str, url: str, key: str = "") -> tuple[int, _Answer]:
    """The status and the answer; an empty one if it has no such shape. Raises `UpstreamError`."""
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    async with await transport.request(method, url, headers=headers) as reply:
        body = await reply.read_beginning(MAX_ANSWER)
        try:
            return reply.status, msgspec.json.decode(body, type=_Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return reply.status, _Answer()


def _key(settings: Settings) -> str:
    access = settings.access
    return (access.admin_api_key or access.valid_api_key[0]).get_secret_value()


def _standing_of(data: _Data) -> Standing:
    if data.state is not None:
        return _standing(data.state)
    return Standing(data.active_tokens, data.disabled_tokens, data.expired_tokens)


def _standing(state: str) -> Standing:
    return Standing(int(state == "active"), int(state == "disabled"), int(state == "expired"))
