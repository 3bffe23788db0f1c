"""Several processes that serve one address: one that serves nothing itself starts, watches, replaces and stops them.

It owns the listeners, so a connection that comes while a worker is being replaced waits for the successor. It runs no
thread and no event loop: only such a process may be forked. What a worker does is none of its business.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

from k2think.listening import AsgiApp, leave, run

logger = logging.getLogger(__name__)

STOPPED = 0
CANNOT_START = 2

PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0)
"""Seconds before a worker is replaced, longer each time; the last is not too long for connections that wait for it."""
STEADY = 60.0
"""Seconds that a worker must have lived to count as one that does not go on dying."""
CLOSING_SECONDS = 10.0
"""Seconds beside the time for running answers within which a worker must have ended."""
LISTENED_TO = (signal.SIGTERM, signal.SIGINT)


def supervise(
    build: Callable[[int], AsgiApp],
    listeners: Sequence[socket.socket],
    on_ready: Callable[[], None],
    *,
    drain: float,
) -> int:
    """Serve with a worker on each of the listeners until Ctrl-C or SIGTERM; the same one again cuts off all answers.

    `build` makes the app of the worker with this number, in its process. `on_ready` is called once all of them answer
    requests. Running answers have `drain` seconds to end. Gives the exit code: `STOPPED`, or `CANNOT_START` where a
    worker ended before all were ready; it has said why.
    """
    with _wakened() as (waker, signals):
        supervisor = _Supervisor(build, listeners, waker, signals, drain)
        try:
            return supervisor.run(on_ready)
        finally:
            supervisor.stop()


class Pauses:
    """How long to wait before a worker is replaced: not at all for the first, longer for one that goes on dying."""

    def __init__(self) -> None:
        self._died = 0

    def after(self, lived: float) -> float:
        """The pause after a worker that lived so long, in seconds."""
        self._died = 1 if lived >= STEADY else self._died + 1
        return PAUSES[min(self._died, len(PAUSES)) - 1]


@dataclass(slots=True, eq=False)
class _Worker:
    process: BaseProcess
    said: Connection
    """Has something to read when the worker is ready, and an end when it has ended."""
    started_at: float
    ready: bool = False


class _Place:
    """What stays when a worker dies: its number, its listener, how it fared."""

    def __init__(self, number: int, listener: socket.socket) -> None:
        self.number = number
        self.listener = listener
        self.pauses = Pauses()
        self.worker: _Worker | None = None
        self.start_at = 0.0


class _Supervisor:
    def __init__(
        self,
        build: Callable[[int], AsgiApp],
        listeners: Sequence[socket.socket],
        waker: int,
        signals: list[int],
        drain: float,
    ) -> None:
        self._build = build
        self._drain = drain
        self._places = [_Place(number, listener) for number, listener in enumerate(listeners)]
        self._waker = waker
        self._signals = signals
        self._fork = multiprocessing.get_context("fork")
        # Nobody writes to it: its readers learn from its end that the supervisor is no more, whatever ended it.
        self._life, self._held = os.pipe()

    def run(self, on_ready: Callable[[], None]) -> int:
        gc.freeze()  # pages that the collector never writes to stay shared
        # The first alone: what keeps all of them from starting is said once.
        for places in (self._places[:1], self._places[1:]):
            for place in places:
                self._start(place)
            while not all(place.worker and place.worker.ready for place in places):
                ended = self._ended(self._wait(None))
                if self._signals:
                    return STOPPED
                if ended:
                    _, worker = ended[0]
                    if worker.process.exitcode != CANNOT_START:  # else it has said all there is to say
                        logger.error("A worker ended %s before all were ready.", _how(worker))
                    return CANNOT_START
        on_ready()
        while not self._signals:
            for place, worker in self._ended(self._wait(self._until_next_start())):
                self._mourn(place, worker)
            for place in self._places:
                if place.worker is None and time.monotonic() >= place.start_at and not self._signals:
                    try:
                        self._start(place)
                    except OSError as error:  # no memory, or no more processes: the others go on
                        place.start_at = time.monotonic() + place.pauses.after(0.0)
                        logger.critical("Worker %d cannot be started: %s.", place.number, error.strerror)
        return STOPPED

    def stop(self) -> None:
        """End all workers: with time for running answers, without where a signal came again, hard after a third one."""
        for place in self._places:
            place.listener.close()
        self._tell(BaseProcess.terminate)
        end = time.monotonic() + self._drain + CLOSING_SECONDS
        hurried = False
        while self._running():
            repeated = len(self._signals) - len(set(self._signals))
            if repeated and not hurried:
                hurried = True
                self._tell(BaseProcess.terminate)
                end = min(end, time.monotonic() + CLOSING_SECONDS)
            left = end - time.monotonic()
            if left <= 0 or repeated > 1:
                self._tell(BaseProcess.kill)
                left = CLOSING_SECONDS
            self._ended(self._wait(left))
        os.close(self._held)
        os.close(self._life)

    def _start(self, place: _Place) -> None:
        said, says = self._fork.Pipe(duplex=False)
        process = self._fork.Process(target=self._work, args=(place, says), name=f"worker {place.number}")
        # A signal that comes in between must neither be lost nor meet the supervisor's handlers in the worker.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, LISTENED_TO)
        try:
            process.start()
        except OSError:
            said.close()
            says.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        says.close()
        place.worker = _Worker(process, said, time.monotonic())

    def _work(self, place: _Place, says: Connection) -> None:
        """Be a worker: all that the new process does."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, leave)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, LISTENED_TO)
        os.close(self._held)
        threading.Thread(target=_end_with, args=(self._life, self._drain), name="supervisor's end", daemon=True).start()
        for other in self._places:
            if other is not place:
                other.listener.close()
        run(self._build(place.number), place.listener, lambda: says.send_bytes(b"ready"), drain=self._drain)

    def _mourn(self, place: _Place, worker: _Worker) -> None:
        if self._signals:  # a terminal sends Ctrl-C to all of the group: it ended because it was to
            return
        now = time.monotonic()
        pause = place.pauses.after(now - worker.started_at)
        place.start_at = now + pause
        when = f" in {pause:g} s" if pause else ""
        pid, how = worker.process.pid, _how(worker)
        logger.error("Worker %d (process %s) ended %s; another takes its place%s.", place.number, pid, how, when)

    def _wait(self, seconds: float | None) -> list[_Place]:
        """Wait until something is heard, but not longer; the places whose workers are ready now, or have ended."""
        running = self._running()
        heard = wait([self._waker, *(worker.said for _, worker in running)], seconds)
        if self._waker in heard:
            os.read(self._waker, 4096)
        return [place for place, worker in running if worker.said in heard]

    def _ended(self, heard: list[_Place]) -> list[tuple[_Place, _Worker]]:
        """The workers that have ended, of those that were heard of."""
        ended = []
        for place, worker in self._running():
            if place in heard:
                try:
                    worker.said.recv_bytes()
                    worker.ready = True
                except EOFError:
                    worker.said.close()
                    worker.process.join()
                    place.worker = None
                    ended.append((place, worker))
        return ended

    def _running(self) -> list[tuple[_Place, _Worker]]:
        return [(place, place.worker) for place in self._places if place.worker]

    def _tell(self, what: Callable[[BaseProcess], None]) -> None:
        for _, worker in self._running():
            what(worker.process)

    def _until_next_start(self) -> float | None:
        """Seconds until one of the missing workers is to be started; None where none is missing."""
        missing = [place.start_at for place in self._places if place.worker is None]
        return max(0.0, min(missing) - time.monotonic()) if missing else None


def _end_with(life: int, drain: float) -> None:
    """Stop serving when the supervisor is no more; running answers have `drain` seconds to end."""
    os.read(life, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(drain + CLOSING_SECONDS)
    os._exit(1)


def _how(worker: _Worker) -> str:
    code = worker.process.exitcode or 0
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


@contextmanager
def _wakened() -> Iterator[tuple[int, list[int]]]:
    """The signals that came so far, and what becomes readable when one comes."""
    signals: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        signals.append(number)

    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    handlers = {number: signal.signal(number, note) for number in LISTENED_TO}
    before = signal.set_wakeup_fd(writes)
    try:
        yield reads, signals
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(reads)
        os.close(writes)
