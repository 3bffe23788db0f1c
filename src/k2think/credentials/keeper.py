"""The pool with a clock in its hand: what the engine asks for credentials and tells how they did."""

from __future__ import annotations

import logging
import time
from collections.abc import Set as AbstractSet

from k2think.credentials.credential import Credential
from k2think.credentials.pool import Pool, PoolSummary
from k2think.errors import UpstreamError

logger = logging.getLogger(__name__)


class Keeper:
    """Lends credentials and hears what became of them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def lease(self, tried: AbstractSet[str] = frozenset()) -> Credential:
        """Lend the next credential that is not in `tried` (ids). Raises `NoCredential`."""
        return self._pool.lease(time.monotonic(), tried)

    def report(self, credential: Credential, error: UpstreamError | None = None) -> None:
        """Tell how the credential's call went."""
        if error is None:
            self._pool.succeeded(credential)
        else:
            self._pool.failed(credential, error, time.monotonic())
            logger.warning("upstream call failed: %s (token %s): %s", error.code, credential.id, error.message)

    def summary(self) -> PoolSummary:
        """Count the tokens by state."""
        return self._pool.summary(time.monotonic())
