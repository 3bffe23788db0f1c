"""The last requests, kept so that somebody can ask how one of them was served."""

from __future__ import annotations

from collections import OrderedDict

from k2think.telemetry.records import Trace

CAPACITY = 1000


class Recent:
    """Traces by request id, the newest `capacity` of them. They are shown as they are, so also while they grow."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._traces: OrderedDict[str, Trace] = OrderedDict()

    def add(self, trace: Trace) -> None:
        """Remember a request; the oldest is forgotten for it."""
        self._traces[trace.request_id] = trace
        if len(self._traces) > self._capacity:
            self._traces.popitem(last=False)

    def get(self, request_id: str) -> Trace | None:
        """The request of this id, if it is among the last ones."""
        return self._traces.get(request_id)
