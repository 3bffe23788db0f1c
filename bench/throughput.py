"""How much the gateway carries on one core: requests and events a second, and the latency it adds to one client.

    python bench/throughput.py [--clients 32] [--seconds 5] [--events 200]

Starts a canned upstream and the gateway as processes of their own, the gateway alone on its core, and loads them over
loopback. The upstream and this load share the other core, so on two cores the figures are what the gateway gives or
what the load can take, whichever is less; `ceiling` is the same load on the upstream itself and says which. Prints one
JSON object. The larger benchmark with peers will stand beside this one.

`…_at_median` is what the median latency amounts to (Little's law): what the rate would be if the machine did not stand
still now and then, as rented ones do. On a quiet machine it says the same as the rate; far above it, distrust both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
KEY = "sk-bench"


def chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    frame = {
        "id": "chatcmpl-1",
        "created": 1,
        "model": "MBZUAI-IFM/K2-Think",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(frame).encode() + b"\n\n"


def answer(events: int) -> bytes:
    """A streamed answer of `events` deltas, half of them thinking."""
    words = ["<think>", *[" thought"] * (events // 2), "</think>", "<answer>", *[" word"] * (events // 2), "</answer>"]
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}}\n\n'
    body = b"".join(chunk({"content": word}) for word in words) + chunk({}, "stop") + usage + b"data: [DONE]\n\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


class CannedUpstream(asyncio.Protocol):
    """Answers any request with the same bytes; counts on requests that arrive whole or end with their JSON."""

    def __init__(self, reply: bytes) -> None:
        self._reply = reply
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, found, body = self._seen.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        if len(body) >= length:
            self._seen = b""
            self._transport.write(self._reply)  # type: ignore[attr-defined]


async def serve_canned(port: int, events: int) -> None:
    reply = answer(events)
    server = await asyncio.get_running_loop().create_server(lambda: CannedUpstream(reply), "127.0.0.1", port)
    await server.serve_forever()


class Client(asyncio.Protocol):
    """One connection that asks again as soon as it has its answer."""

    def __init__(self, request: bytes, end: bytes, latencies: list[float]) -> None:
        self._request = request
        self._end = end
        self._latencies = latencies
        self._tail = b""
        self._missing = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._fresh = True
        self._asked = time.perf_counter()
        self._transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self._fresh and not data.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"The server refused: {data[:300]!r}")
        self._fresh = False
        self._tail = self._tail[-16:] + data
        if self._end and not self._tail.endswith(self._end):
            return
        if not self._end and not self._whole(data):
            return
        self._latencies.append(time.perf_counter() - self._asked)
        self._tail = b""
        self._missing = -1
        self._ask()

    def _whole(self, data: bytes) -> bool:
        if self._missing < 0:
            head, _, body = data.partition(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            self._missing = length - len(body)
        else:
            self._missing -= len(data)
        return self._missing <= 0


async def load(port: int, *, stream: bool, clients: int, seconds: float) -> list[float]:
    """Ask for `seconds`; give the seconds that each answer took."""
    body = json.dumps(
        {"model": "MBZUAI-IFM/K2-Think", "stream": stream, "messages": [{"role": "user", "content": "Say something."}]}
    ).encode()
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        + f"Authorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    end = b"0\r\n\r\n" if stream else b""
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Client(request, end, latencies), "127.0.0.1", port) for _ in range(clients)
    ]
    await asyncio.sleep(seconds)
    for transport, _ in made:
        transport.abort()
    return latencies


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def process(*command: str, core: int, port: int, **environ: str) -> Iterator[None]:
    """A process pinned to a core, from when it listens to the end of the block."""
    with subprocess.Popen(command, env={**os.environ, **environ}, stdout=subprocess.DEVNULL) as child:
        try:
            os.sched_setaffinity(child.pid, {core})
            for _ in range(200):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.05)
            yield
        finally:
            child.terminate()


def run(*, events: int, stream: bool, clients: int, seconds: float) -> dict[str, float]:
    cores = sorted(os.sched_getaffinity(0))
    upstream_port, gateway_port = free_port(), free_port()
    me = (sys.executable, __file__)
    with (
        tempfile.TemporaryDirectory() as directory,
        process(*me, "--serve", str(upstream_port), "--events", str(events), core=cores[-1], port=upstream_port),
    ):
        Path(directory, "tokens.txt").write_text("\n".join(f"token-{number}" for number in range(10)))
        settings = {
            "K2THINK_API_URL": f"http://127.0.0.1:{upstream_port}/api/chat/completions",
            "VALID_API_KEY": KEY,
            "TOKENS_FILE": f"{directory}/tokens.txt",
            "HOST": "127.0.0.1",
            "PORT": str(gateway_port),
            "ENABLE_ACCESS_LOG": "false",
        }
        with process(sys.executable, str(ROOT / "k2think_proxy.py"), core=cores[0], port=gateway_port, **settings):
            os.sched_setaffinity(0, {cores[-1]})
            ceiling = asyncio.run(load(upstream_port, stream=True, clients=clients, seconds=seconds / 2))
            asyncio.run(load(gateway_port, stream=stream, clients=clients, seconds=1))
            taken = asyncio.run(load(gateway_port, stream=stream, clients=clients, seconds=seconds))
            os.sched_setaffinity(0, set(cores))
    rate = len(taken) / seconds
    at_median = clients / statistics.median(taken)
    return {
        "requests_per_s": round(rate),
        "requests_per_s_at_median": round(at_median),
        "events_per_s": round(rate * (events + 2)),
        "events_per_s_at_median": round(at_median * (events + 2)),
        "ceiling_requests_per_s": round(len(ceiling) / (seconds / 2)),
        "p50_ms": round(statistics.median(taken) * 1000, 2),
        "p99_ms": round(sorted(taken)[int(len(taken) * 0.99)] * 1000, 2),
        "direct_p50_ms": round(statistics.median(ceiling) * 1000, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve_canned(options.serve, options.events))
        return
    common = {"seconds": options.seconds}
    print(
        json.dumps(
            {
                "whole answers of 7 events": run(events=4, stream=False, clients=options.clients, **common),
                f"streams of {options.events} events": run(
                    events=options.events, stream=True, clients=options.clients, **common
                ),
                "one client, whole": run(events=4, stream=False, clients=1, **common),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
