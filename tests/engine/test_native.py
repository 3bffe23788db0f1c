"""What is asked of each model's server, and what a refusal teaches."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2think.dialogue.prompt import Message, Prompt, Tool, Toolbox
from k2think.engine.course import Course
from k2think.engine.native import MAX_MODELS, REMEMBERED_FOR, Native
from k2think.engine.retry import Again, Retries, RetryBudget
from k2think.errors import RequestRefused, UpstreamError, UpstreamModelUnknown, UpstreamUnavailable
from k2think.inband.emulation import Emulation
from k2think.settings import Tools
from k2think.settings.kinds import FEATURES as ALL
from k2think.settings.kinds import Feature
from k2think.upstreams.catalog import Model

NONE: frozenset[Feature] = frozenset()
TOOLS: frozenset[Feature] = frozenset({"tools"})
SCHEMA: frozenset[Feature] = frozenset({"json_schema"})
OBJECT: frozenset[Feature] = frozenset({"json_object"})


NOW = 1000.0


def refused(param: str | None, status: int = 400, *, unsupported: bool = True) -> RequestRefused:
    return RequestRefused("no", param=param, status=status, unsupported=unsupported)


def test_everything_is_tried_until_it_is_refused_and_each_model_stands_for_itself() -> None:
    native = Native(None)
    assert native.of("a", NOW) == ALL
    assert native.learn("a", refused("tools"), TOOLS | SCHEMA, NOW)
    assert native.of("a", NOW) == SCHEMA | OBJECT
    assert native.learn("a", refused("response_format"), SCHEMA, NOW)
    assert native.of("a", NOW) == OBJECT
    assert native.of("b", NOW) == ALL


@pytest.mark.parametrize(
    ("param", "used", "learnt"),
    [
        ("tools", TOOLS, TOOLS),
        ("tool_choice", TOOLS, TOOLS),
        ("parallel_tool_calls", TOOLS | OBJECT, TOOLS),
        ("response_format", SCHEMA, SCHEMA),
        ("response_format", OBJECT, OBJECT),
        ("response_format.type", TOOLS | SCHEMA, SCHEMA),
        ("json_schema", OBJECT, OBJECT),  # "must be json_schema": said where the request had the other form
        ("tools", NONE, NONE),
        ("tools", SCHEMA, NONE),
        ("response_format", TOOLS, NONE),
        ("tools[0].function.parameters", TOOLS, NONE),
        ("messages[0].content", ALL, NONE),
        ("", ALL, NONE),
        (None, ALL, NONE),
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_only_what_was_used_and_is_named_is_learnt(
    param: str | None, used: frozenset[Feature], learnt: frozenset[Feature], status: int
) -> None:
    native = Native(None)
    assert native.learn("m", refused(param, status), used, NOW) is bool(learnt)
    assert native.of("m", NOW) == ALL - learnt


@pytest.mark.parametrize(
    "error",
    [
        refused("tools", 404),
        refused("tools", 413),
        refused("tools", unsupported=False),
        refused("tools", 422, unsupported=False),
        UpstreamModelUnknown("no", param="tools"),
        UpstreamUnavailable("no", param="tools", status=400),
    ],
    ids=repr,
)
def test_other_errors_teach_nothing(error: UpstreamError) -> None:
    native = Native(None)
    assert not native.learn("m", error, TOOLS, NOW)
    assert native.of("m", NOW) == ALL


@pytest.mark.parametrize("setting", [NONE, TOOLS, ALL])
def test_what_is_set_is_not_changed_by_refusals(setting: frozenset[Feature]) -> None:
    native = Native(tuple(setting))
    assert not native.learn("m", refused("tools"), TOOLS, NOW)
    assert native.of("m", NOW) == setting


def test_a_refusal_that_comes_twice_is_worth_another_attempt_each_time() -> None:
    native = Native(None)
    assert native.learn("m", refused("tools"), TOOLS, NOW)
    assert native.learn("m", refused("tools"), TOOLS, NOW)  # of a request that was under way at the same time


def test_what_was_learnt_is_forgotten_after_a_while_each_thing_for_itself() -> None:
    native = Native(None)
    native.learn("m", refused("tools"), TOOLS, NOW)
    native.learn("m", refused("response_format"), SCHEMA, NOW + 60)
    assert native.of("m", NOW + REMEMBERED_FOR - 1) == OBJECT
    assert native.of("m", NOW + REMEMBERED_FOR) == TOOLS | OBJECT
    assert native.of("m", NOW + 60 + REMEMBERED_FOR) == ALL


def test_a_refusal_that_comes_again_is_remembered_anew() -> None:
    native = Native(None)
    native.learn("m", refused("tools"), TOOLS, NOW)
    assert native.learn("m", refused("tools"), TOOLS, NOW + REMEMBERED_FOR)
    assert native.of("m", NOW + REMEMBERED_FOR) == SCHEMA | OBJECT
    assert native.of("m", NOW + 2 * REMEMBERED_FOR) == ALL


def test_the_memory_is_bounded_and_forgets_the_first() -> None:
    native = Native(None)
    for number in range(MAX_MODELS):
        native.learn(str(number), refused("tools"), TOOLS, NOW)
    native.learn("0", refused("response_format"), SCHEMA, NOW)  # a model that is known takes no place from another
    assert (native.of("0", NOW), native.of("1", NOW)) == (OBJECT, SCHEMA | OBJECT)
    native.learn("new", refused("tools"), TOOLS, NOW)
    assert [native.of(model, NOW) == ALL for model in ("0", "1", "new")] == [True, False, False]


@given(st.lists(st.tuples(st.sampled_from(["tools", "response_format", "x"]), st.sets(st.sampled_from(sorted(ALL))))))
def test_who_asks_again_asks_for_less_each_time(refusals: list[tuple[str, set[Feature]]]) -> None:
    native = Native(None)
    for param, wanted in refusals:
        used = native.of("m", NOW) & wanted
        again = native.learn("m", refused(param), used, NOW)
        assert again is bool(used - native.of("m", NOW))


def test_the_log_names_the_field_and_never_the_upstreams_words(caplog: pytest.LogCaptureFixture) -> None:
    prompt = Prompt("m", (Message("user", "Hello"),), tools=Toolbox((Tool("f"),)))
    course = Course(prompt, Model("a", hidden=False), Retries(RetryBudget(NOW)), Native(None), Tools())
    error = RequestRefused("Hello: tools are not supported", param="tools", unsupported=True)
    with caplog.at_level(logging.DEBUG):
        again = course.after_failure(error, Emulation(course.prompt, "undecided", course.means), "token")
    assert again == Again()
    assert course.means.native == SCHEMA | OBJECT
    (line,) = caplog.messages
    assert "a does not: tools" in line
    assert "Hello" not in line
