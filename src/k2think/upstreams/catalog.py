"""Which models there are, under which names, and what the upstream calls them.

Two names always exist: `MBZUAI-IFM/K2-Think` and its `-nothink` variant. The service has renamed the model more than
once, so its own id is taken from its list, never written down here. Names are compared without regard to case.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from k2think.credentials.keeper import Keeper
from k2think.errors import CredentialRejected, GatewayError, ModelNotFound, UpstreamError
from k2think.upstreams.base import Listed, Upstream

logger = logging.getLogger(__name__)

K2_THINK = "MBZUAI-IFM/K2-Think"
NO_THINKING = "-nothink"
LIST_AGE = 300.0
"""Seconds after which a list is asked for again before it is shown."""


class Model(Struct, frozen=True):
    """A model as asked for: the upstream's `id` for it, and whether its thinking is hidden."""

    id: str
    hidden: bool


class Catalog:
    """Resolves model names; asks the upstream for its list when it must."""

    def __init__(
        self,
        upstream: Upstream,
        keeper: Keeper,
        *,
        preferred: str = "",
        aliases: Mapping[str, str] | None = None,
        vision: bool | Literal["auto"] = "auto",
    ) -> None:
        self._upstream = upstream
        self._keeper = keeper
        self._preferred = preferred
        self._aliases = {name.lower(): target for name, target in (aliases or {}).items()}
        self._alias_names = tuple(aliases or ())
        self._vision = vision
        self._ids: dict[str, str] = {}  # lower case → the upstream's own writing
        self._seeing: frozenset[str] = frozenset()  # the ids of models that see, as the upstream says
        self._listed_at = float("-inf")
        self._failure: GatewayError | None = None
        self._failed_at = float("-inf")
        self._asking = asyncio.Lock()

    async def resolve(self, name: str) -> Model:
        """Find the model for a client's name. Raises `ModelNotFound`, or what kept the upstream from listing."""
        wanted = self._aliases.get(name.lower(), name).lower()
        hidden = wanted.endswith(NO_THINKING) and wanted not in self._ids
        base = wanted.removesuffix(NO_THINKING) if hidden else wanted
        if (found := self._id_of(base)) is None:
            await self.refresh(max_age=LIST_AGE)
            found = self._id_of(base)
        if found is None:
            raise ModelNotFound(name)
        return Model(found, hidden)

    async def sees(self, name: str) -> bool:
        """Say whether the model takes images; one of which the upstream does not say so does not.

        An upstream that cannot be asked leaves it at what was known. Raises what `resolve` raises.
        """
        if self._vision != "auto":
            return self._vision
        await self._refreshed()
        return (await self.resolve(name)).id in self._seeing

    async def names(self) -> tuple[str, ...]:
        """All names a client can use. An upstream that cannot be asked leaves the list as it was."""
        await self._refreshed()
        others = [id_ for id_ in self._ids.values() if id_.lower() != K2_THINK.lower()]
        bases = dict.fromkeys([K2_THINK, *([self._preferred] if self._preferred else []), *others])
        return (*(name for base in bases for name in (base, base + NO_THINKING)), *self._alias_names)

    async def _refreshed(self) -> None:
        try:
            await self.refresh(max_age=LIST_AGE)
        except GatewayError as error:
            logger.warning("the upstream's models could not be listed: %s", error.message)

    async def refresh(self, max_age: float = 0.0) -> None:
        """Ask the upstream for its list, once for all who wait. Raises `UpstreamError` or `NoCredential`."""
        asked = time.monotonic()
        async with self._asking:
            if self._listed_at > asked - max_age:
                return
            if self._failed_at > asked and self._failure:
                raise self._failure  # it has just been asked, for those who waited too
            try:
                listed = await self._list()
            except GatewayError as error:
                self._failure, self._failed_at = error, time.monotonic()
                raise
            if listed:  # with its model server down the service lists nothing: no news then
                self._ids = {model.id.lower(): model.id for model in listed}
                self._seeing = frozenset(model.id for model in listed if model.sees)
            self._listed_at = time.monotonic()

    def _id_of(self, base: str) -> str | None:
        if self._preferred and base in {K2_THINK.lower(), self._preferred.lower()}:
            return self._preferred
        if (listed := self._ids.get(base)) is not None:
            return listed
        if base != K2_THINK.lower():
            return None
        # The upstream calls it otherwise: the first id that looks like it, else the first of all, else our own name.
        likely = (id_ for key, id_ in self._ids.items() if "k2-think" in key)
        return next(likely, next(iter(self._ids.values()), K2_THINK))

    async def _list(self) -> tuple[Listed, ...]:
        tried: set[str] = set()
        while True:
            lease = await self._keeper.lease(tried)
            try:
                listed = await self._upstream.models(lease.credential)
            except UpstreamError as error:
                self._keeper.failed(lease, error)
                tried.add(lease.credential.id)
                if not isinstance(error, CredentialRejected) or len(tried) >= 3:
                    raise
            else:
                self._keeper.succeeded(lease)
                return listed
            finally:
                self._keeper.release(lease)
