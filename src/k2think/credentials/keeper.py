"""The pool with a clock in its hand: what the engine asks for credentials and tells how they did."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from k2think.credentials.credential import Credential
from k2think.credentials.health import Health, PoolSummary
from k2think.credentials.incident import Incident
from k2think.credentials.pool import CONSECUTIVE_THRESHOLD, Lease, Pool
from k2think.credentials.renewals import Renewals
from k2think.errors import CredentialRejected, NoCredential, QuotaExceeded, UpstreamError

logger = logging.getLogger(__name__)

POOL_WAIT = 10.0
"""Seconds that a request waits for a token, unless told otherwise."""
MIN_POOL_FOR_REFRESH = 3
"""A smaller pool is not refreshed for consecutive failures: in it two of them mean too little."""
SHORTEST_WAIT = 0.005


class Keeper:
    """Lends credentials and hears what became of them.

    `renewals`: where to ask for new tokens, None if none are made. Belongs to one event loop.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        wait: float = POOL_WAIT,
        renewals: Renewals | None = None,
        incident: Incident | None = None,
    ) -> None:
        self.pool = pool
        self.incident = incident or Incident()
        self.touched = asyncio.Event()
        """Set when there is something about the pool's health to be kept."""
        self._wait = wait
        self._renewals = renewals
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def lease(
        self,
        skip: AbstractSet[str] = frozenset(),
        affinity: bytes = b"",
        *,
        waited: float = 0.0,
        patience: float | None = None,
    ) -> Lease:
        """Lend the next credential that is not in `skip` (ids), after a wait if none is ready.

        In seconds, `waited`: what the request has waited already; `patience`: what its client still waits, if that is
        known. Raises `NoCredential`.
        """
        left = self._wait - waited
        end = time.monotonic() + (left if patience is None else min(left, patience))
        while True:
            try:
                return self._lease(time.time(), skip, affinity)
            except NoCredential as none:
                remaining = end - time.monotonic()
                if remaining <= 0 or not self._may_come(none, remaining):
                    raise
                seconds = remaining if none.retry_after is None else min(remaining, none.retry_after)
            await self._change(seconds)

    def succeeded(self, lease: Lease) -> None:
        """The credential was accepted: its answer has begun."""
        if self.pool.succeeded(lease):
            self.touched.set()
        lease.probe = False
        self._alive()

    def failed(self, lease: Lease, error: UpstreamError) -> None:
        """The credential's call failed."""
        now = time.time()
        credential = lease.credential
        error.hide(credential.secret)
        logger.warning("upstream call failed: %s (token %s): %s", error.code, credential.id, error.message)
        calm = self.incident.since is None
        self.pool.failed(lease, error, now, blameless=not calm)
        summary = self.pool.summary(now)
        if self.incident.failed(error, credential.id, summary.active + summary.cooling, time.monotonic()):
            logger.warning("the upstream fails for every token: requests wait until one of them gets through")
        elif not self.incident.is_failure(error):
            self._alive()
        elif lease.probe:
            self.incident.probe_failed(time.monotonic())
            self.look_again()
        lease.probe = False
        if isinstance(error, CredentialRejected | QuotaExceeded):
            self.touched.set()
        if calm and isinstance(error, CredentialRejected):
            self._ask_for_renewal([credential])

    def release(self, lease: Lease) -> None:
        """The request is over, however it went."""
        self.pool.release(lease)
        if lease.probe:
            lease.probe = False
            self.incident.probe_lost(time.monotonic())
            self.look_again()
        elif self._waiting:
            self._wake_one()

    def adopt(self, kept: Mapping[str, Health]) -> None:
        """Take up what other processes have learned as well. Whoever makes the tokens does what follows from it."""
        rejected = self.pool.adopt(kept, time.time())
        if self._renewals and self._renewals.made_here:
            self._ask_for_renewal(rejected)
        self.look_again()

    def review(self) -> None:
        """Ask for what all known rejections call for: this process has only now begun to make the tokens."""
        members = self.pool.snapshot(time.time())
        self._ask_for_renewal([member.credential for member in members if member.failures])

    def changed(self) -> None:
        """The pool was changed by hand, or has new tokens: tell those who wait, keep or renew."""
        self.touched.set()
        if self._renewals:
            self._renewals.asked.set()
        self.look_again()

    def look_again(self) -> None:
        """Those who wait for a token look again whether there is one, or one to come."""
        while self._waiting:
            self._wake_one()

    def incident_since(self) -> float | None:
        """When the present incident began, in Unix seconds."""
        since = self.incident.since
        return None if since is None else time.time() - (time.monotonic() - since)

    def summary(self) -> PoolSummary:
        """Count the tokens by state."""
        return self.pool.summary(time.time())

    def _lease(self, now: float, skip: AbstractSet[str], affinity: bytes) -> Lease:
        probe = self.incident.enter(time.monotonic())
        try:
            lease = self.pool.lease(now, skip, affinity)
        except NoCredential:
            if probe:
                self.incident.probe_lost(time.monotonic())
            raise
        lease.probe = probe
        return lease

    def _alive(self) -> None:
        if self.incident.alive():
            logger.warning("the upstream answers again")
            self.look_again()

    def _ask_for_renewal(self, rejected: Sequence[Credential]) -> None:
        if not self._renewals or not rejected:
            return
        for credential in rejected:
            self._renewals.one(credential)
        if self.pool.consecutive_failures >= CONSECUTIVE_THRESHOLD and len(self.pool) >= MIN_POOL_FOR_REFRESH:
            self._renewals.everything("consecutive failures")

    def _may_come(self, none: NoCredential, remaining: float) -> bool:
        if none.busy or (self._renewals is not None and self._renewals.expected):
            return True
        return none.retry_after is not None and none.retry_after <= remaining

    async def _change(self, seconds: float) -> None:
        """Wait for a sign that it is worth looking again, at most so long."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(max(seconds, SHORTEST_WAIT)):
                await waiter
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake_one()  # the sign was for somebody who needs it no more
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _wake_one(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
