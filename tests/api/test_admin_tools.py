"""The counts of calls and JSON answers, and the admin call that tells them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from conftest import KEY, Stage, client_of
from fastapi import FastAPI
from serving import serving

from k2think.api.admin import admin_router
from k2think.dialogue.outcome import Outcome
from k2think.gateway import Gateway
from k2think.settings import Settings
from k2think.telemetry.tools import MAX_NAMES, ToolStats

NONE = {"parsed": 0, "repaired": 0, "reasked": 0, "failed": 0}


def test_outcomes_are_counted_by_tool_and_in_all() -> None:
    stats = ToolStats()
    counted: list[tuple[str, Outcome]] = [
        ("weather", "parsed"), ("weather", "parsed"), ("weather", "reasked"),
        ("clock", "repaired"), ("clock", "failed"),
    ]  # fmt: skip
    for name, outcome in counted:
        stats.count(name, outcome)
    stats.count_structured("repaired")
    assert stats.as_dict() == {
        "total": {"parsed": 2, "repaired": 1, "reasked": 1, "failed": 1},
        "tools": {
            "clock": NONE | {"repaired": 1, "failed": 1},
            "weather": NONE | {"parsed": 2, "reasked": 1},
        },
        "structured_output": NONE | {"repaired": 1},
    }


def test_nothing_has_been_counted_yet() -> None:
    assert ToolStats().as_dict() == {"total": NONE, "tools": {}, "structured_output": NONE}


def test_names_have_an_end() -> None:
    stats = ToolStats()
    for number in range(MAX_NAMES + 7):
        stats.count(f"tool_{number}", "parsed")
    stats.count("tool_0", "failed")
    stats.count("(other)", "failed")
    told = stats.as_dict()
    assert len(told["tools"]) == MAX_NAMES + 1
    assert told["tools"]["tool_0"] == NONE | {"parsed": 1, "failed": 1}
    assert told["tools"]["(other)"] == NONE | {"parsed": 7, "failed": 1}
    assert told["total"] == NONE | {"parsed": MAX_NAMES + 7, "failed": 2}


def test_the_counts_are_told_without_a_key_on_this_machine(stage: Stage) -> None:
    told = stage.admin("/tools/stats")
    assert told.keys() == {"total", "tools", "structured_output"}
    elsewhere = {"X-Forwarded-For": "203.0.113.7"}
    assert stage.anyone.get(f"{stage.url}/admin/tools/stats", headers=elsewhere).status_code == 401
    with_key = elsewhere | {"Authorization": f"Bearer {KEY}"}
    assert stage.anyone.get(f"{stage.url}/admin/tools/stats", headers=with_key).status_code == 200


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(Settings.load({"VALID_API_KEY": KEY}, directory=tmp_path))


@pytest.fixture
def http(gateway: Gateway) -> Iterator[httpx.Client]:
    app = FastAPI()
    app.include_router(admin_router(gateway))
    with serving(app) as url, client_of(base_url=url) as client:
        yield client


def test_what_the_gateway_counted_is_told(gateway: Gateway, http: httpx.Client) -> None:
    gateway.tool_stats.count("weather", "parsed")
    gateway.tool_stats.count_structured("failed")
    response = http.get("/admin/tools/stats")
    assert response.status_code == 200
    assert response.json() == {"status": "success", "data": gateway.tool_stats.as_dict()}
    assert response.json()["data"]["tools"] == {"weather": NONE | {"parsed": 1}}
