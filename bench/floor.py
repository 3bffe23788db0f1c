"""The least that a gateway of these libraries can be: uvicorn, msgspec and the client of the gateway, and nothing else.

One token, no keys, no pool, no retries, no tools, no limits, no log; any error is a 500. It asks upstream for a stream
as the gateway does, takes frames apart, tells thinking from answer by the one form in which the benchmark's upstream
writes it, and writes OpenAI's chunks. What it manages is what is left for everything that the gateway is for.

    PORT=… UPSTREAM=… python bench/floor.py
"""

from __future__ import annotations

import os
from typing import Any

import msgspec
import uvicorn

from k2think.upstreams.patience import Patience
from k2think.upstreams.transport import Transport

CHUNK = (
    b'data: {"id":"chatcmpl-floor","object":"chat.completion.chunk","created":0,"model":"floor",'
    b'"choices":[{"index":0,"delta":{%b},"finish_reason":%b}]}\n\n'
)
LAST = CHUNK % (b"", b'"stop"') + b"data: [DONE]\n\n"
HEADERS = {"Authorization": "Bearer token", "Content-Type": "application/json", "Accept": "text/event-stream"}


class Question(msgspec.Struct):
    model: str
    messages: list[Any]
    stream: bool = False


class Delta(msgspec.Struct):
    content: str | None = None


class Choice(msgspec.Struct):
    delta: Delta


class Frame(msgspec.Struct):
    choices: list[Choice] = []


QUESTIONS = msgspec.json.Decoder(Question)
FRAMES = msgspec.json.Decoder(Frame)


class Reader:
    """The texts of a read, each with the name of its field."""

    def __init__(self) -> None:
        self._rest = b""
        self._field = "reasoning_content"

    def feed(self, data: bytes) -> list[tuple[str, str]]:
        *frames, self._rest = (self._rest + data).split(b"\n\n")
        texts = []
        for frame in frames:
            if not frame.startswith(b"data: {"):
                continue
            for choice in FRAMES.decode(frame[6:]).choices:
                match choice.delta.content:
                    case None | "" | "<think>" | "<answer>" | "</answer>":
                        pass
                    case "</think>":
                        self._field = "content"
                    case text:
                        texts.append((self._field, text))
        return texts


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Serve."""
    if scope["type"] == "lifespan":
        await _live(scope["state"], receive, send)
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    question = QUESTIONS.decode(body)
    asked = {"stream": True, "model": question.model, "messages": question.messages, "params": {}, "features": {}}
    reader = Reader()
    texts: dict[str, list[str]] = {"reasoning_content": [], "content": []}
    transport: Transport = scope["state"]["transport"]
    url = os.environ["UPSTREAM"]
    async with await transport.request("POST", url, headers=HEADERS, body=msgspec.json.encode(asked)) as reply:
        if question.stream:
            await _begin(send, b"text/event-stream")
        while data := await reply.read():
            found = reader.feed(data)
            if question.stream:
                encode = msgspec.json.encode
                frames = [CHUNK % (b'"%b":%b' % (name.encode(), encode(text)), b"null") for name, text in found]
                await send({"type": "http.response.body", "body": b"".join(frames), "more_body": True})
            else:
                for name, text in found:
                    texts[name].append(text)
    if question.stream:
        await send({"type": "http.response.body", "body": LAST})
        return
    message = {"role": "assistant", **{name: "".join(parts) for name, parts in texts.items()}}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    answer = msgspec.json.encode(
        {"id": "chatcmpl-floor", "object": "chat.completion", "created": 0, "choices": [choice], "usage": usage}
    )
    await _begin(send, b"application/json", (b"content-length", b"%d" % len(answer)))
    await send({"type": "http.response.body", "body": answer})


async def _begin(send: Any, media_type: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", media_type), *headers]})


async def _live(state: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    state["transport"] = transport = Transport(patience=Patience(60, 60, 60, 600), max_connections=1000)
    await transport.start()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await transport.close()
    await send({"type": "lifespan.shutdown.complete"})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="error", access_log=False)
