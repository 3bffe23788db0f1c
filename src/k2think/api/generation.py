"""`POST /v1/chat/completions`: a plain ASGI app, because FastAPI's shell would cost a third of its speed."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress

import msgspec
from starlette.types import Receive, Scope, Send

from k2think.api.access import forget_headers, header
from k2think.api.body import read_json_body
from k2think.api.event_stream import Attendant, EventStream, HungUp
from k2think.dialogue.events import Usage
from k2think.dialogue.prompt import Prompt
from k2think.engine.attachments import Attachments
from k2think.engine.engine import Engine
from k2think.errors import GatewayError, GatewayStopping, MethodNotAllowed
from k2think.settings import Settings
from k2think.telemetry.logs import log_generation
from k2think.telemetry.recent import Recent
from k2think.telemetry.records import Trace
from k2think.together import together
from k2think.wire.openai_chat import outbound
from k2think.wire.openai_chat.inbound import Question, to_question
from k2think.wire.openai_chat.schema import decode

CUT_OFF = "cut off: the gateway stops"


class ChatCompletions:
    """The endpoint. Raises `GatewayError` for whoever stands around it to answer, as long as nothing was sent."""

    def __init__(self, engine: Engine, attachments: Attachments, recent: Recent, settings: Settings) -> None:
        self._engine = engine
        self._attachments = attachments
        self._recent = recent
        self._max_body = settings.server.max_body_bytes
        self._keepalive = settings.server.sse_keepalive
        self._reasoning = settings.thinking.reasoning_format
        self._tools_enabled = settings.tools.enable_toolify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["method"] != "POST":
            raise MethodNotAllowed(scope["method"], "POST")
        trace = Trace(scope["state"]["request_id"], patience=_patience(scope))
        self._recent.add(trace)
        try:
            question = await self._question(scope, receive)
            trace.model, trace.stream = question.prompt.model, question.stream
            answer = _Answer(self._engine, self._attachments, question, trace, owner=scope["state"]["owner"])
            await (self._stream if question.stream else self._whole)(answer, scope["state"]["gone"], send)
        except GatewayError as error:
            _ended(trace, error.status, error.code or error.type)
            raise
        except HungUp:
            _ended(trace, 499, "client hung up")
        except asyncio.CancelledError:  # the server stops, and waits no longer
            _ended(trace, GatewayStopping.status, CUT_OFF)
            raise GatewayStopping from None

    async def _question(self, scope: Scope, receive: Receive) -> Question:
        """What the client asks. What it was read from, which may be long, is let go here."""
        asked = decode(await read_json_body(scope, receive, self._max_body))
        question = to_question(asked, default_reasoning=self._reasoning, tools_enabled=self._tools_enabled)
        question = _tied(question, scope)
        forget_headers(scope)
        return question

    async def _whole(self, answer: _Answer, gone: asyncio.Future[None], send: Send) -> None:
        async with Attendant(gone, answer.trace, keepalive=self._keepalive):
            body = await answer.whole()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        _ended(answer.trace, 200, "whole")

    async def _stream(self, answer: _Answer, gone: asyncio.Future[None], send: Send) -> None:
        stream = EventStream(send)
        ending = "complete"
        try:
            try:
                async with Attendant(gone, answer.trace, stream, keepalive=self._keepalive):
                    last = await answer.stream(stream)
            except GatewayError as error:
                if not stream.started:
                    raise
                last, ending = outbound.error_frame(error), f"broke off: {error.code}"
            await stream.write(last, last=True)
        except asyncio.CancelledError:
            if not stream.started:
                raise
            ending = CUT_OFF
            with suppress(asyncio.CancelledError):  # this too is waited for only so long
                await stream.write(outbound.error_frame(GatewayStopping()), last=True)
        _ended(answer.trace, 200, ending)


def _ended(trace: Trace, status: int, ending: str) -> None:
    trace.status, trace.ending, trace.ended_at = status, ending, time.monotonic()
    log_generation(trace)


def _patience(scope: Scope) -> float | None:
    """The seconds that the client waits, which OpenAI's own clients say."""
    said = header(scope, b"x-stainless-read-timeout") or header(scope, b"x-stainless-timeout")
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _tied(question: Question, scope: Scope) -> Question:
    """With the session that the client named, if it named nothing in the body."""
    session = header(scope, b"x-session-id")
    if session is None or question.prompt.affinity:
        return question
    prompt = msgspec.structs.replace(question.prompt, affinity=session.decode("latin-1"))
    return msgspec.structs.replace(question, prompt=prompt)


class _Answer:
    """What one question gets: `n` generations beside each other, under one id."""

    __slots__ = ("_attachments", "_created", "_engine", "_id", "_owner", "_question", "trace")

    def __init__(
        self, engine: Engine, attachments: Attachments, question: Question, trace: Trace, *, owner: str
    ) -> None:
        self.trace = trace
        self._engine = engine
        self._attachments = attachments
        self._question = question
        self._owner = owner
        self._id = f"chatcmpl-{trace.request_id.removeprefix('req_')}"
        self._created = int(time.time())

    async def whole(self) -> bytes:
        """The body of an answer that is no stream."""
        question = self._question
        prompt = await self._attachments.resolve(question.prompt, self._owner)
        completions = await together([self._engine.complete(prompt, self.trace) for _ in range(question.n)])
        self._count([completion.usage for completion in completions])
        return outbound.render(
            completions,
            id=self._id,
            created=self._created,
            model=question.prompt.model,
            legacy_functions=question.legacy_functions,
        )

    async def stream(self, stream: EventStream) -> bytes:
        """Write the answer's frames as they come; give the last ones."""
        question = self._question
        prompt = await self._attachments.resolve(question.prompt, self._owner)
        model = prompt.model
        encoders = [
            outbound.StreamEncoder(
                id=self._id,
                created=self._created,
                model=model,
                index=index,
                include_usage=question.include_usage,
                legacy_functions=question.legacy_functions,
            )
            for index in range(question.n)
        ]
        await together([self._write(prompt, encoder, stream) for encoder in encoders])
        usages = [encoder.usage or Usage(0, 0) for encoder in encoders]
        self._count(usages)
        if not question.include_usage:
            return outbound.DONE
        return outbound.usage_frame(usages, id=self._id, created=self._created, model=model) + outbound.DONE

    async def _write(self, prompt: Prompt, encoder: outbound.StreamEncoder, stream: EventStream) -> None:
        async with aclosing(self._engine.stream(prompt, self.trace)) as batches:
            async for events in batches:
                if frames := encoder.feed_all(events):
                    await stream.write(frames)

    def _count(self, usages: Sequence[Usage]) -> None:
        self.trace.prompt_tokens = usages[0].prompt_tokens
        self.trace.completion_tokens = sum(usage.completion_tokens for usage in usages)
