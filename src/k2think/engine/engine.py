"""The loop: admit, emulate, lease, attempt, fail over. A Prompt goes in, events come out.

An attempt may be repeated as long as nothing of it was given away. For a live reader that is until the first event; for
one who waits for the whole answer it is until the end, so that even a break in mid-answer goes unnoticed. An answer
that came, but holds a call or JSON which cannot be used, is no failed attempt: the model is told, and asked again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import aclosing

import msgspec

from k2think.credentials.keeper import Keeper
from k2think.credentials.pool import Lease
from k2think.dialogue.completion import Collector, Completion
from k2think.dialogue.events import Event
from k2think.dialogue.prompt import Prompt
from k2think.engine.admission import Admission
from k2think.engine.affinity import affinity_of
from k2think.engine.course import Course
from k2think.engine.native import Native
from k2think.engine.openers import Openers
from k2think.engine.retry import Retries, RetryBudget
from k2think.errors import StreamBroken, UpstreamError
from k2think.inband.emulation import Emulation
from k2think.settings import Tools
from k2think.telemetry.records import Trace
from k2think.telemetry.tools import ToolStats
from k2think.upstreams.base import Upstream
from k2think.upstreams.catalog import Catalog, Model

logger = logging.getLogger(__name__)


class Engine:
    """Answers prompts."""

    def __init__(
        self,
        *,
        upstream: Upstream,
        catalog: Catalog,
        keeper: Keeper,
        admission: Admission,
        openers: Openers,
        native: Native,
        tools: Tools,
        stats: ToolStats,
    ) -> None:
        self._upstream = upstream
        self._catalog = catalog
        self._keeper = keeper
        self._admission = admission
        self._openers = openers
        self._native = native
        self._tools = tools
        self._stats = stats
        self._budget = RetryBudget(time.monotonic())

    async def complete(self, prompt: Prompt, trace: Trace) -> Completion:
        """Give the whole answer. Raises `GatewayError`."""
        collector = Collector()
        async for events in self.stream(msgspec.structs.replace(prompt, live=False), trace):
            collector.feed_all(events)
        return collector.completion()

    async def stream(self, prompt: Prompt, trace: Trace) -> AsyncGenerator[Sequence[Event], None]:
        """Give the events, those of one read together; all at the end if the prompt is not `live`.

        Raises `GatewayError`: `StreamBroken` after the first events, others before them. Closing the iterator hangs up.
        """
        self._budget.earn(time.monotonic())
        async with self._admission:
            model = await self._catalog.resolve(prompt.model)
            course = Course(prompt, model, Retries(self._budget), self._native, self._tools)
            affinity = affinity_of(prompt) if self._keeper.pool.strategy == "sticky" else b""
            given_away = False
            while True:
                held: list[Event] = []
                emulation = self._emulation(course)
                lease = await self._lease(course.retries.tried, affinity, trace)
                try:
                    async with aclosing(self._attempt(emulation, course.model, lease, trace)) as batches:
                        async for events in batches:
                            if prompt.live:
                                given_away = given_away or bool(events)
                                yield events
                            else:
                                held += events
                except UpstreamError as error:
                    if given_away:
                        raise StreamBroken(f"The answer broke off: {error.message}") from error
                    again = course.after_failure(error, emulation, lease.credential.id)
                    logger.debug("%s: failed (%s), next: %s", trace.request_id, error.code, again)
                    trace.asked_at = 0.0
                    if again is None or (again.rediscover and not await self._renamed(course)):
                        raise
                    await asyncio.sleep(again.after)
                else:
                    self._count(emulation)
                    if not emulation.problem:
                        if held:
                            yield held
                        return
                    logger.debug("%s: the answer cannot be used, asking again", trace.request_id)
                    course.after_problem(emulation)
                    trace.asked_at = 0.0
                    given_away = False  # nothing of what comes next

    def _emulation(self, course: Course) -> Emulation:
        prompt = course.prompt
        opener = self._openers.choose(course.model.id, live=prompt.live, hidden=prompt.reasoning == "hidden")
        return Emulation(prompt, opener, course.means)

    def _count(self, emulation: Emulation) -> None:
        for name, outcome in emulation.outcomes():
            if name is None:
                self._stats.count_structured(outcome)
            else:
                self._stats.count(name, outcome)

    async def _lease(self, skip: AbstractSet[str], affinity: bytes, trace: Trace) -> Lease:
        """Get a token; the waits of a request for tokens count together."""
        began = time.monotonic()
        try:
            return await self._keeper.lease(skip, affinity, waited=trace.waited, patience=trace.remaining_patience())
        finally:
            trace.waited += time.monotonic() - began

    async def _attempt(
        self, emulation: Emulation, model: Model, lease: Lease, trace: Trace
    ) -> AsyncGenerator[Sequence[Event], None]:
        """One call upstream, read; the keeper hears how it went."""
        attempt = trace.begin(lease.credential.id)
        logger.debug("%s: asking %s with token %s", trace.request_id, model.id, lease.credential.id)
        try:
            async with aclosing(self._upstream.open(emulation.prompt, model.id, lease.credential)) as batches:
                async for batch in batches:
                    if batch and not attempt.first_event_at:
                        attempt.first_event_at = time.monotonic()
                        self._keeper.succeeded(lease)
                        logger.debug("%s: the answer begins", trace.request_id)
                    if not (events := emulation.feed_all(batch)):
                        continue
                    if not trace.first_event_at:
                        trace.first_event_at = time.monotonic()
                    yield events
                    if emulation.satisfied:
                        break
            logger.debug("%s: the answer has ended", trace.request_id)
            # An answer that is read when it is whole has given nothing yet, but it did begin.
            trace.first_event_at = trace.first_event_at or attempt.first_event_at
            yield emulation.close()
            self._openers.observe(model.id, emulation.observed)
        except UpstreamError as error:
            self._keeper.failed(lease, error)
            attempt.failure, attempt.message = error.code or error.type, error.message
            raise
        finally:
            attempt.ended_at = time.monotonic()
            self._keeper.release(lease)

    async def _renamed(self, course: Course) -> bool:
        """Look for the model's new id; False if there is none."""
        await self._catalog.refresh()
        renamed = await self._catalog.resolve(course.prompt.model)
        if renamed.id == course.model.id:
            return False
        course.model = renamed
        return True
