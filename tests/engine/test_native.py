"""What is asked of each model's server, and what a refusal teaches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2think.engine.native import ALL, MAX_MODELS, Feature, Native
from k2think.errors import RequestRefused, UpstreamError, UpstreamModelUnknown, UpstreamUnavailable

NONE: frozenset[Feature] = frozenset()
TOOLS: frozenset[Feature] = frozenset({"tools"})
SCHEMA: frozenset[Feature] = frozenset({"json_schema"})
OBJECT: frozenset[Feature] = frozenset({"json_object"})


def refused(param: str | None, status: int = 400) -> RequestRefused:
    return RequestRefused("no", param=param, status=status)


def test_everything_is_tried_until_it_is_refused_and_each_model_stands_for_itself() -> None:
    native = Native(None)
    assert native.of("a") == ALL
    assert native.learn("a", refused("tools"), TOOLS | SCHEMA)
    assert native.of("a") == SCHEMA | OBJECT
    assert native.learn("a", refused("response_format"), SCHEMA)
    assert native.of("a") == OBJECT
    assert native.of("b") == ALL


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
    assert native.learn("m", refused(param, status), used) is bool(learnt)
    assert native.of("m") == ALL - learnt


@pytest.mark.parametrize(
    "error",
    [
        refused("tools", 404),
        refused("tools", 413),
        UpstreamModelUnknown("no", param="tools"),
        UpstreamUnavailable("no", param="tools", status=400),
    ],
    ids=repr,
)
def test_other_errors_teach_nothing(error: UpstreamError) -> None:
    native = Native(None)
    assert not native.learn("m", error, TOOLS)
    assert native.of("m") == ALL


@pytest.mark.parametrize("setting", [NONE, TOOLS, ALL])
def test_what_is_set_is_not_changed_by_refusals(setting: frozenset[Feature]) -> None:
    native = Native(tuple(setting))
    assert not native.learn("m", refused("tools"), TOOLS)
    assert native.of("m") == setting


def test_a_refusal_that_comes_twice_is_worth_another_attempt_each_time() -> None:
    native = Native(None)
    assert native.learn("m", refused("tools"), TOOLS)
    assert native.learn("m", refused("tools"), TOOLS)  # of a request that was under way at the same time


def test_the_memory_is_bounded_and_forgets_the_first() -> None:
    native = Native(None)
    for number in range(MAX_MODELS):
        native.learn(str(number), refused("tools"), TOOLS)
    native.learn("0", refused("response_format"), SCHEMA)  # a model that is known takes no place from another
    assert (native.of("0"), native.of("1")) == (OBJECT, SCHEMA | OBJECT)
    native.learn("new", refused("tools"), TOOLS)
    assert [native.of(model) == ALL for model in ("0", "1", "new")] == [True, False, False]


@given(st.lists(st.tuples(st.sampled_from(["tools", "response_format", "x"]), st.sets(st.sampled_from(sorted(ALL))))))
def test_who_asks_again_asks_for_less_each_time(refusals: list[tuple[str, set[Feature]]]) -> None:
    native = Native(None)
    for param, wanted in refusals:
        used = native.of("m") & wanted
        again = native.learn("m", refused(param), used)
        assert again is bool(used - native.of("m"))
