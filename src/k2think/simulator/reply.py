"""The answer to a chat that Open WebUI took on: whole or as a stream, sound or broken on purpose."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from k2think.simulator import answers, events
from k2think.simulator.attached import Attached
from k2think.simulator.exchange import Exchange
from k2think.simulator.model import Written, prompt_tokens, write
from k2think.simulator.script import Script
from k2think.simulator.state import SimulatorState

Flavour: TypeAlias = Literal["web", "openai_path", "guest", "openai"]
"""Open WebUI's own path, its `/openai` path, the guest's, and that of a plain OpenAI-compatible server."""

_MID_STREAM = frozenset({"error_mid_stream", "cut", "hangup", "stall", "bad_event"})


class HungUp(Exception):
    """The connection was closed by us."""


@dataclass(frozen=True)
class Chat:
    """One chat, understood."""

    exchange: Exchange
    state: SimulatorState
    flavour: Flavour
    body: Mapping[str, Any]
    script: Script
    number: int
    attached: Attached

    @property
    def streams(self) -> bool:
        return self.body.get("stream") is True and "json" not in self.script.form


async def accept_task(this: Chat) -> None:
    """Answer as if the chat ran on as a task in the background."""
    task = str(uuid.uuid4())
    if this.state.options.release == "0.6.28":
        await this.exchange.json(200, {"status": True, "task_id": task})
    else:
        chat_id = this.body.get("chat_id") or str(uuid.uuid4())
        await this.exchange.json(200, {"status": True, "task_ids": [task], "chat_id": chat_id})


async def answer(this: Chat) -> Literal["completed", "failed"]:
    """Answer, and say how that ended. Raises ClientLeft and HungUp."""
    exchange, options, script = this.exchange, this.state.options, this.script
    await exchange.pause(options.first_delay if script.first is None else script.first)
    fault = _fault_of(this)
    if fault == "stall_before_headers":
        await exchange.pause(script.lasting)
    if fault == "task_accepted":
        await accept_task(this)
        return "failed"
    if fault and await answers.fail(exchange, fault, options.release, script.retry_after):
        return "failed"
    shape = options.openai_shape if this.flavour == "openai" else options.shape
    # It plays on the words as they came, and pays for all that was put before them.
    added = prompt_tokens(this.attached.messages) - prompt_tokens(this.body.get("messages"))
    hidden = options.hidden_prompt_tokens + added
    written = write(script, shape, this.body, hidden, native=this.flavour == "openai")
    if this.streams:
        await _stream(this, written, fault)
    else:
        await _whole(this, written)
    return "failed" if fault and fault not in {"json_on_stream", "stall_before_headers"} else "completed"


def _fault_of(this: Chat) -> str:
    """The fault; on the paths of a plain OpenAI server, what such a server would do instead of Open WebUI."""
    fault = this.script.fault
    if this.flavour == "openai":
        return {"401": "backend_401", "403": "backend_403", "400_model": "404", "backend_down": "drop"}.get(
            fault, fault
        )
    return fault


async def _whole(this: Chat, written: Written) -> None:
    options, script = this.state.options, this.script
    body = events.completion(written, _answer_id(this), int(time.time()), str(this.body["model"]))
    body["usage"] = _usage(written)
    if options.system_fingerprint:
        body["system_fingerprint"] = events.FINGERPRINT
    if options.time_info:
        body["time_info"] = _time_info(written)
    if "sources_first" in script.form:
        body |= events.SOURCES
    if this.attached.sources:
        body = {"sources": this.attached.sources} | body
    rest = options.delay if script.delay is None else script.delay
    await this.exchange.pause(rest * written.completion_tokens)
    await this.exchange.json(200, body)


async def _stream(this: Chat, written: Written, fault: str) -> None:
    exchange, script, options = this.exchange, this.script, this.state.options
    wire = events.Wire(script.form)
    headers = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]
    headers.append(("x-request-id", f"req_{this.number}"))
    if options.release == "0.6.28":
        headers.append(("server", "Python/3.11 aiohttp/3.12.15"))  # it passes the model server's on, beside its own
    if "gzip" in script.form:
        headers.append(("content-encoding", "gzip"))
    await exchange.begin(headers)
    if fault == "stall_after_headers":
        await exchange.pause(script.lasting)
    if fault == "error_in_200":
        await _send(exchange, wire, wire.feed(answers.spaced(events.STREAM_ERROR).encode()))
    else:
        await _events(this, wire, written, fault, options.delay if script.delay is None else script.delay)
    await _send(exchange, wire, wire.close())
    await exchange.end()


async def _events(this: Chat, wire: events.Wire, written: Written, fault: str, delay: float) -> None:
    exchange, script = this.exchange, this.script
    if this.attached.sources:
        event = answers.own_event({"sources": this.attached.sources}, this.state.options.release)
        await _send(exchange, wire, wire.raw(event))
    for name, extra in (("sources_first", events.SOURCES), ("event_first", events.STATUS_EVENT)):
        if name in script.form:
            await _send(exchange, wire, wire.feed(answers.spaced(extra).encode()))
    deltas, tail = _payloads(this, written, fault)
    # The first chunk holds the role and no text, so it does not count.
    breaks_at = -1 if fault not in _MID_STREAM else script.after + (0 if _in_snapshots(this) else 1)
    number = 0
    for payload in deltas:
        if number == breaks_at and await _break(this, wire, fault):
            return
        await _send(exchange, wire, wire.feed(payload, comment=number > 0))
        number += 1
        if delay:
            await exchange.pause(delay)
    if number <= breaks_at and await _break(this, wire, fault):
        return
    for payload in tail:
        await _send(exchange, wire, wire.feed(payload))


def _payloads(this: Chat, written: Written, fault: str) -> tuple[Iterator[bytes], list[bytes]]:
    """The data of the events with text, and of those behind them."""
    script, options = this.script, this.state.options
    done = [] if fault in {"nodone", "finish_nodone"} else [events.DONE]
    asked = this.body.get("stream_options")
    with_usage = "usage_chunk" in script.form or (isinstance(asked, Mapping) and asked.get("include_usage") is True)
    if _in_snapshots(this):
        last = events.last_snapshot(written, _usage(written) if with_usage else None)
        return events.snapshots(written, script.chunk), ([last, *done] if fault != "no_finish" else done)
    chunks = events.Chunks(
        _answer_id(this), int(time.time()), str(this.body["model"]), fingerprint=options.system_fingerprint
    )
    tail = []
    if fault not in {"no_finish", "nodone"}:
        tail.append(chunks.finish(written.finish_reason, _time_info(written) if options.time_info else None))
        if with_usage:
            tail.append(chunks.usage(_usage(written)))
    return chunks.deltas(written, script.chunk), tail + done


def _in_snapshots(this: Chat) -> bool:
    form = this.script.form
    return "snapshots" in form or (this.flavour == "guest" and "deltas" not in form)


async def _break(this: Chat, wire: events.Wire, fault: str) -> bool:
    """What happens in mid-stream; False: nothing final, the answer goes on."""
    exchange = this.exchange
    if fault == "stall":
        await exchange.pause(this.script.lasting)
        return False
    if fault == "bad_event":
        await _send(exchange, wire, wire.feed(b'{"id": "chatcmpl-broken", "choices": [{"del'))
        return False
    if fault == "error_mid_stream":
        await _send(exchange, wire, wire.feed(answers.spaced(events.STREAM_ERROR).encode()))
        return True
    if fault == "cut" and this.state.options.release != "0.6.28" and this.flavour != "openai":
        await _send(exchange, wire, wire.raw(events.CUT_ERROR))
        await _send(exchange, wire, wire.feed(events.DONE))
        return True
    await _send(exchange, wire, wire.close())
    await exchange.hang_up()
    raise HungUp


async def _send(exchange: Exchange, wire: events.Wire, writes: list[bytes]) -> None:
    for data in writes:
        await exchange.write(data)
        if wire.slow:
            await exchange.pause(0.0005)


def _answer_id(this: Chat) -> str:
    return f"chatcmpl-sim{this.number:06d}"


def _usage(written: Written) -> dict[str, int]:
    return {
        "prompt_tokens": written.prompt_tokens,
        "completion_tokens": written.completion_tokens,
        "total_tokens": written.prompt_tokens + written.completion_tokens,
    }


def _time_info(written: Written) -> dict[str, float]:
    spent = written.completion_tokens / 2000
    return {
        "queue_time": 0.00007,
        "prompt_time": 0.001,
        "completion_time": spent,
        "total_time": 0.00107 + spent,
        "created": int(time.time()),
    }
