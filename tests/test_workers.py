"""Several processes on one address: real ones, killed and stopped in all the ways that happen."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY, MODEL
from hypothesis import given
from hypothesis import strategies as st
from rawhttp import connected, request
from running import LISTENING, PATIENT, SCRIPT, WITH_PACKAGE, Running, get, on_port, started, state_of
from serving import AsgiApp, serving
from waiting import PATIENCE, until

from k2think.listening import AddressUnusable, listen_several
from k2think.simulator.app import SimulatorOptions, create_simulator, mint_token
from k2think.workers import PAUSES, STEADY, Pauses

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")

ESTABLISHED = "01"

Start = Callable[..., tuple[Running, str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a gateway in front of a simulator, or another upstream: it, and its URL once it answers."""
    with ExitStack() as stack:
        (tmp_path / "tokens.txt").write_text(mint_token("one@example.com"))

        def begin(
            workers: int, *, upstream: AsgiApp | None = None, program: tuple[str | Path, ...] = (SCRIPT,)
        ) -> tuple[Running, str]:
            app = upstream or create_simulator(SimulatorOptions(models=(MODEL,)))
            environ = {
                "VALID_API_KEY": KEY,
                "K2THINK_API_URL": f"{stack.enter_context(serving(app))}/api/chat/completions",
                "HOST": "127.0.0.1",
                "WORKERS": str(workers),
                "DRAIN_TIMEOUT": "300",
            }
            running = stack.enter_context(started(*program, "--port", "0", environ=environ, directory=tmp_path))
            url = running.wait_for(r"API +(http://\S+)/v1")
            running.wait_for("(Ctrl-C)")
            return running, url

        yield begin


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def children(pid: int) -> list[int]:
    """The processes that this one has started and that still run."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [child for child in map(int, found) if is_running(child)]


def is_running(pid: int) -> bool:
    try:
        return state_of(pid) not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def sockets(pid: int, port: int, state: str) -> int:
    """How many sockets of this state the process holds on the port."""
    held = set()
    try:
        for name in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed while we looked
                held.add(str(name.readlink()))
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended
        return 0
    return sum(f"socket:[{number}]" in held for number in on_port(port, state))


@contextmanager
def kept_open(url: str, count: int) -> Iterator[None]:
    """So many connections that were answered and stay open."""
    with ExitStack() as stack:
        for _ in range(count):
            connection = connected(url, "GET", "/health", headers={"Connection": "keep-alive"})
            stack.enter_context(connection)
            assert connection.recv(9) == b"HTTP/1.1 "
        yield


def script(tmp_path: Path, text: str) -> subprocess.Popen[str]:
    """A program of its own that supervises small apps."""
    path = tmp_path / "supervising.py"
    path.write_text(
        "import os, sys, time\n"
        "from k2think.listening import listen_several\n"
        "from k2think.workers import supervise\n"
        "def ready(): print('ready', flush=True)\n" + text
    )
    return subprocess.Popen(
        [sys.executable, str(path)], env=WITH_PACKAGE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_all_workers_answer_and_one_that_is_killed_has_a_successor(start: Start) -> None:
    running, url = start(3)
    parent, port = running.process.pid, port_of(url)
    workers = children(parent)
    assert len(workers) == 3
    with kept_open(url, 60):
        assert all(sockets(worker, port, ESTABLISHED) > 3 for worker in workers)
        assert sockets(parent, port, ESTABLISHED) == 0
    victim, *others = workers
    os.kill(victim, signal.SIGKILL)
    until(lambda: not is_running(victim))
    assert {get(f"{url}/health")[0] for _ in range(30)} == {200}
    successor = until(lambda: set(children(parent)) - set(others))
    assert len(successor) == 1
    until(lambda: sockets(next(iter(successor)), port, LISTENING) == 1)
    with kept_open(url, 60):
        assert all(sockets(worker, port, ESTABLISHED) > 3 for worker in (*others, *successor))
    running.wait_for(rf"(Worker \d \(process {victim}\) ended by SIGKILL)")
    assert running.stop(signal.SIGTERM) == 0
    assert not any(map(is_running, (*others, *successor)))
    assert "Traceback" not in "".join(running.printed)
    assert sum("API  " in line for line in running.printed) == 1


def test_workers_of_a_killed_parent_leave_the_port(start: Start) -> None:
    running, url = start(2)
    workers = children(running.process.pid)
    listeners = on_port(port_of(url))
    assert len(listeners) == 2
    running.process.kill()
    until(lambda: not listeners & on_port(port_of(url)))
    until(lambda: not any(map(is_running, workers)))


def test_a_running_stream_ends_as_it_should_and_then_all_is_over(start: Start) -> None:
    may_end = threading.Event()

    async def held(scope: Any, receive: Any, send: Any) -> None:
        """An upstream whose answer ends when it may."""
        while scope["type"] == "lifespan":
            await send({"type": f"{(await receive())['type']}.complete"})
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for delta, finish in (({"content": "Well"}, None), ({}, "stop")):
            event = json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
            await send({"type": "http.response.body", "body": f"data: {event}\n\n".encode(), "more_body": True})
            while not may_end.is_set():  # noqa: ASYNC110 - what sets it is another thread
                await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    running, url = start(2, upstream=held)
    listeners = on_port(port_of(url))
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Go"}]}
    headers = {"Authorization": f"Bearer {KEY}"}
    with connected(url, "POST", "/v1/chat/completions", headers=headers, body=body) as connection:
        data = connection.recv(100)
        # As a terminal does: to all of them at once, and the parent passes it on besides.
        for pid in (*children(running.process.pid), running.process.pid):
            os.kill(pid, signal.SIGINT)
        until(lambda: not listeners & on_port(port_of(url)))
        assert running.process.poll() is None
        may_end.set()
        while part := connection.recv(65536):
            data += part
    assert b"data: [DONE]" in data
    assert running.end() == 0
    assert "Traceback" not in "".join(running.printed)


def test_the_same_signal_again_cuts_all_off_at_once(start: Start) -> None:
    running, url = start(2, program=PATIENT)
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "[[fault=stall after=1]] Go"}]}
    headers = {"Authorization": f"Bearer {KEY}"}
    with connected(url, "POST", "/v1/chat/completions", headers=headers, body=body) as connection:
        assert connection.recv(100)
        running.process.send_signal(signal.SIGTERM)
        until(lambda: not any(sockets(pid, port_of(url), LISTENING) for pid in children(running.process.pid)))
        assert running.process.poll() is None
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(PATIENCE) == 0
        rest = b""
        while part := connection.recv(65536):
            rest += part
    assert b"gateway_stopping" in rest
    assert rest.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("count", [1, 3])
def test_another_gateway_is_told_that_the_port_is_taken(count: int) -> None:
    with ExitStack() as stack:
        listeners = listen_several("127.0.0.1", 0, count)
        for listener in listeners:
            stack.enter_context(listener)
        port = listeners[0].getsockname()[1]
        assert {listener.getsockname()[1] for listener in listeners} == {port}
        for other in (1, 3):
            with pytest.raises(AddressUnusable, match=f"^Port {port} is taken"):
                listen_several("127.0.0.1", port, other)


def test_what_keeps_workers_from_starting_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").mkdir()
    environ = {"VALID_API_KEY": KEY, "HOST": "127.0.0.1", "WORKERS": "3"}
    with started(SCRIPT, "--port", "0", environ=environ, directory=tmp_path) as running:
        running.wait_for(r"(tokens\.txt)")
        assert running.end() == 2
    assert len(running.printed) == 1


def test_a_worker_that_dies_before_all_are_ready_ends_the_start(tmp_path: Path) -> None:
    text = """
def build(number):
    if number: os.kill(os.getpid(), 9)
    async def app(scope, receive, send):
        while scope["type"] == "lifespan":
            await send({"type": f"{(await receive())['type']}.complete"})
    return app
sys.exit(supervise(build, listen_several("127.0.0.1", 0, 2), ready, drain=30))
"""
    with script(tmp_path, text) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (2, "")
    assert "ended by SIGKILL before all were ready" in err


def test_a_failing_app_is_told_once_and_ends_the_start(tmp_path: Path) -> None:
    text = """
def build(number):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no room"})
    return app
sys.exit(supervise(build, listen_several("127.0.0.1", 0, 3), ready, drain=30))
"""
    with script(tmp_path, text) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (2, "")
    assert err.count("no room") == 1


def test_a_worker_that_goes_on_dying_is_replaced_again_and_again(tmp_path: Path) -> None:
    text = """
def build(number):
    async def app(scope, receive, send):
        if scope["type"] == "http": os._exit(7)
        while True:
            await send({"type": f"{(await receive())['type']}.complete"})
    return app
listeners = listen_several("127.0.0.1", 0, 2)
print(listeners[0].getsockname()[1], flush=True)
sys.exit(supervise(build, listeners, ready, drain=30))
"""
    with script(tmp_path, text) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        assert process.stdout.readline() == "ready\n"
        for _ in range(4):
            assert request(url, "GET", "/").framing == "none"
        told = [process.stderr.readline() for _ in range(4)]
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert all("ended with exit code 7; another takes its place" in line for line in told)


def test_one_worker_is_the_process_itself(start: Start) -> None:
    running, url = start(1)
    assert children(running.process.pid) == []
    assert sockets(running.process.pid, port_of(url), LISTENING) == 1
    assert running.stop(signal.SIGTERM) == 0


@given(st.lists(st.floats(0, STEADY, exclude_max=True), max_size=20))
def test_the_first_is_replaced_at_once_and_the_next_later_and_later(lives: list[float]) -> None:
    pauses = Pauses()
    given_ = [pauses.after(lived) for lived in lives]
    assert given_ == [*PAUSES, *[PAUSES[-1]] * len(lives)][: len(lives)]
    assert list(PAUSES) == sorted(PAUSES)
    assert pauses.after(STEADY) == 0
    assert pauses.after(0) == PAUSES[1]
