"""Libraries that people use the gateway with: a round trip with a tool and an answer of a given form, each.

They are no part of the project's requirements, for there are many of them, and they are large; each test is skipped
where its library is missing. To run them: `pip install pydantic-ai-slim[openai] langchain-openai instructor`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from conftest import KEY, MODEL, MakeStage, Stage
from openai import AsyncOpenAI
from pydantic import BaseModel

# Faults of theirs: connections left to the garbage collector, and a parsed answer that its own class does not expect.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:Pydantic serializer warnings:UserWarning",
)

QUESTION = 'The weather in "Paris"?'


class City(BaseModel):
    """A city."""

    name: str
    population: int


CITY = 'A city: "Paris", 2100000'
PARIS = City(name="Paris", population=2100000)


@pytest.fixture(params=["live", "checked"])
def stage(make_stage: MakeStage, request: pytest.FixtureRequest) -> Stage:
    return make_stage(TOOL_STREAMING=request.param)


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"It is sunny in {city}, 31 degrees."


@pytest.mark.parametrize("stream", [False, True])
def test_langchain(stage: Stage, *, stream: bool) -> None:
    langchain = pytest.importorskip("langchain_openai")
    messages = pytest.importorskip("langchain_core.messages")
    model = langchain.ChatOpenAI(base_url=f"{stage.url}/v1", api_key=KEY, model=MODEL, streaming=stream, max_retries=0)
    with_tools = model.bind_tools([get_weather])
    called = with_tools.invoke(QUESTION)
    (call,) = called.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    result = messages.ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"])
    answer = with_tools.invoke([messages.HumanMessage(QUESTION), called, result])
    assert "31 degrees" in answer.text
    for method in ("json_schema", "function_calling"):
        assert model.with_structured_output(City, method=method).invoke(CITY) == PARIS, method
    # With this method the library sends no schema: the user has to.
    in_words = f"{CITY}. Answer with a JSON object of this schema: {json.dumps(City.model_json_schema())}"
    assert model.with_structured_output(City, method="json_mode").invoke(in_words) == PARIS


def test_pydantic_ai(stage: Stage) -> None:
    ai = pytest.importorskip("pydantic_ai")
    models = pytest.importorskip("pydantic_ai.models.openai")
    providers = pytest.importorskip("pydantic_ai.providers.openai")

    async def ask() -> None:
        async with AsyncOpenAI(base_url=f"{stage.url}/v1", api_key=KEY) as client:
            model = models.OpenAIChatModel(MODEL, provider=providers.OpenAIProvider(openai_client=client))
            agent: Any = ai.Agent(model, tools=[get_weather])
            assert "31 degrees" in (await agent.run(QUESTION)).output
            for output in (City, ai.NativeOutput(City), ai.PromptedOutput(City)):
                found = await ai.Agent(model, output_type=output).run(CITY)
                assert found.output == PARIS, output

    asyncio.run(ask())


def test_instructor(stage: Stage) -> None:
    instructor = pytest.importorskip("instructor")
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA):
        with stage.openai() as openai:
            client = instructor.from_openai(openai, mode=mode)
            found = client.chat.completions.create(
                model=MODEL,
                response_model=City,
                messages=[{"role": "user", "content": CITY}],
                max_retries=0,
            )
        assert isinstance(found, City), mode
        assert found.model_dump() == PARIS.model_dump(), mode  # it is of a class that the library derives
