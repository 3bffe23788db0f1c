"""What a request leaves behind: nothing that only the collector could free.

Cycles keep a request's memory until the collector comes round, so that no two requests use the same, and the collector
stands in the way of whoever streams then.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import CoroutineType, FrameType
from typing import Any

import pytest
from conftest import MODEL, Stage
from running import ROOT

SOURCE = str(ROOT / "src" / "k2think")
SIMULATOR = str(ROOT / "src" / "k2think" / "simulator")
TOOLS = [{"type": "function", "function": {"name": "f"}}]
CALL = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'


def said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param({}, 200, id="whole"),
        pytest.param({"stream": True}, 200, id="stream"),
        pytest.param({"n": 2}, 200, id="whole-twice"),
        pytest.param({"stream": True, "n": 2}, 200, id="stream-twice"),
        pytest.param({"tools": TOOLS}, 200, id="tools"),
        pytest.param({"tools": TOOLS} | said(f"[[say]]{CALL}[[/say]]"), 200, id="call"),
        pytest.param({"response_format": {"type": "json_object"}} | said("[[say]]{}[[/say]]"), 200, id="json"),
        pytest.param({"temperature": 9}, 400, id="refused"),
        pytest.param({"model": "no-such"}, 404, id="unknown"),
        pytest.param(said("[[fault=400]]"), 400, id="failed"),
        pytest.param(said("[[fault=400_model]]"), 404, id="renamed"),
        pytest.param({"stream": True} | said("[[fault=no_finish]]"), 200, id="broken"),
    ],
)
def test_a_request_leaves_nothing_for_the_collector(stage: Stage, fields: dict[str, Any], status: int) -> None:
    def ask() -> None:
        response = stage.http.post("/v1/chat/completions", json={"model": MODEL} | said("Say hello.") | fields)
        assert response.status_code == status, response.text

    ask()  # what is made once is made
    with collected() as left:
        for _ in range(5):
            ask()  # on one connection, where a request begins when the one before it has ended
    assert not left


@contextmanager
def collected() -> Iterator[Counter[str]]:
    """Counts, at the end, what the collector finds of the gateway's own objects, and of frames that ran its code."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found.update(name for one in gc.garbage if (name := name_of(one)))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def name_of(one: object) -> str:
    """What an object of the gateway is called; of anything else nothing."""
    if isinstance(one, FrameType | CoroutineType):
        code = one.f_code if isinstance(one, FrameType) else one.cr_code
        ours = code.co_filename.startswith(SOURCE) and not code.co_filename.startswith(SIMULATOR)
        return code.co_qualname if ours else ""
    kind = type(one)
    ours = kind.__module__.startswith("k2think.") and not kind.__module__.startswith("k2think.simulator")
    return kind.__qualname__ if ours else ""
