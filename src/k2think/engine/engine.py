"""The loop: admit, emulate, lease, attempt, fail over. A Prompt goes in, events come out.

An attempt may be repeated as long as nothing of it was given away. For a live reader that is until the first event; for
one who waits for the whole answer it is until the end, so that even a break in mid-answer goes unnoticed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

import msgspec

from k2think.credentials.keeper import Keeper
from k2think.dialogue.completion import Collector, Completion
from k2think.dialogue.events import Event
from k2think.dialogue.prompt import Prompt
from k2think.engine.admission import Admission
from k2think.engine.openers import Openers
from k2think.engine.retry import Retries
from k2think.errors import StreamBroken, UpstreamError
from k2think.inband.emulation import Emulation
from k2think.telemetry.records import Trace
from k2think.upstreams.base import Upstream
from k2think.upstreams.catalog import Catalog, Model


class Engine:
    """Answers prompts."""

    def __init__(
        self, *, upstream: Upstream, catalog: Catalog, keeper: Keeper, admission: Admission, openers: Openers
    ) -> None:
        self._upstream = upstream
        self._catalog = catalog
        self._keeper = keeper
        self._admission = admission
        self._openers = openers

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
        async with self._admission.place():
            retries = Retries()
            model = await self._catalog.resolve(prompt.model)
            if model.hidden:
                prompt = msgspec.structs.replace(prompt, reasoning="hidden")
            while True:
                held: list[Event] = []
                given_away = False
                opener = self._openers.choose(model.id, live=prompt.live, hidden=prompt.reasoning == "hidden")
                emulation = Emulation(prompt, opener)
                credential = self._keeper.lease(retries.tried)
                trace.credential_ids.append(credential.id)
                trace.asked_at = time.monotonic()
                try:
                    async with self._upstream.open(emulation.prompt, model.id, credential) as batches:
                        async for batch in batches:
                            events = emulation.feed_all(batch)
                            if not events:
                                continue
                            if not trace.first_event_at:
                                trace.first_event_at = time.monotonic()
                            if prompt.live:
                                given_away = True
                                yield events
                            else:
                                held += events
                            if emulation.satisfied:
                                break
                    held += emulation.close()
                except UpstreamError as error:
                    self._keeper.report(credential, error)
                    trace.failures.append(error.code or error.type)
                    if given_away:
                        raise StreamBroken(f"The answer broke off: {error.message}") from error
                    again = retries.decide(error, credential.id)
                    if again is None:
                        raise
                    trace.asked_at = 0.0
                    if again.rediscover:
                        model = await self._renamed(prompt, model, error)
                    await asyncio.sleep(again.after)
                    continue
                self._keeper.report(credential)
                self._openers.observe(model.id, emulation.observed)
                yield held
                return

    async def _renamed(self, prompt: Prompt, model: Model, error: UpstreamError) -> Model:
        """Look for the model's new id; the error stands if there is none."""
        await self._catalog.refresh()
        renamed = await self._catalog.resolve(prompt.model)
        if renamed.id == model.id:
            raise error
        return renamed
