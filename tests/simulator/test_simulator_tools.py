"""The simulator's model with tools and with JSON: what it calls, how it writes that, and what it makes of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rawhttp import RawAnswer, request
from serving import serving

from k2think.simulator.app import SimulatorOptions, create_simulator, mint_token
from k2think.simulator.callformats import FORMATS, Call
from k2think.simulator.jsonplay import Material, filled
from k2think.simulator.model import Written, write
from k2think.simulator.script import BadDirective, read_script, split_results
from k2think.simulator.toolplay import play

CASES = Path(__file__).parents[3] / "shared" / "tool-calls"


def tool(name: str, description: str = "", *required: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


STRING, INTEGER = {"type": "string"}, {"type": "integer"}
UNIT = {"type": "string", "enum": ["celsius", "fahrenheit"]}
WEATHER = tool("get_weather", "Tells the weather of a city.", "city", city=STRING, unit=UNIT, days=INTEGER)
CLOCK = tool("clock", "Tells what time it is.", zone=STRING)


def system(*tools: dict[str, Any], rules: str = "") -> dict[str, str]:
    return {"role": "system", "content": "\n".join(["Be kind.", "Tools:", *map(json.dumps, tools), rules])}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str = "Well.") -> dict[str, str]:
    return {"role": "assistant", "content": text}


def result(content: Any, name: str = "get_weather") -> str:
    return f"<tool_response>\n{json.dumps({'name': name, 'content': content})}\n</tool_response>"


def written(*messages: dict[str, Any], native: bool = False, **fields: Any) -> Written:
    return write(read_script(messages), "plain", {"messages": list(messages), **fields}, native=native)


def answer(*messages: dict[str, Any], **fields: Any) -> str:
    return written(*messages, **fields).content


def called(*messages: dict[str, Any], **fields: Any) -> list[tuple[str, Any]]:
    body = {"messages": list(messages), **fields}
    part = play(read_script(messages), body, native="tools" in fields)
    return [(call.name, call.values) for call in part.calls]


def hermes(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def test_a_tool_of_the_prompt_that_fits_is_called_in_the_text() -> None:
    made = written(system(WEATHER, CLOCK), user("How is the weather in Paris?"))
    assert made.content == hermes("get_weather", city="Paris")
    assert (made.calls, made.finish_reason) == ((), "stop")


def test_the_call_stands_where_the_shape_puts_the_answer() -> None:
    messages = [system(WEATHER), user("How is the weather in Paris?")]
    content = write(read_script(messages), "think_answer", {"messages": messages}).content
    assert content.startswith("<think>") and "get_weather fits" in content
    assert content.endswith(f"</think>\n<answer>{hermes('get_weather', city='Paris')}</answer>")


def test_bare_descriptions_and_those_amid_a_line_are_found_and_examples_of_calls_are_not() -> None:
    bare = json.dumps(CLOCK["function"])
    example = '{"name": "city_weather", "arguments": {}}'
    text = f'<tools>{json.dumps(WEATHER)}</tools>\n- {bare}\n{example}\n{{broken "name"\n'
    messages = {"role": "system", "content": text}
    assert called(messages, user("weather, Oslo")) == [("get_weather", {"city": "Oslo"})]
    assert called(messages, user("What time is it?")) == [("clock", {})]


def test_the_tool_with_most_words_in_common_is_called_and_of_equals_the_first() -> None:
    one, two = tool("alpha", "Finds trains."), tool("beta", "Finds trains and fares.")
    assert called(system(one, two), user("trains and fares")) == [("beta", {})]
    assert called(system(one, two), user("trains")) == [("alpha", {})]
    assert called(system(two, one), user("trains")) == [("beta", {})]


def test_no_tool_is_called_that_does_not_fit_unless_one_must_be() -> None:
    question = user("What is 6*7?")
    assert answer(system(WEATHER), question).startswith("6*7 = 42\n")
    assert called(system(CLOCK, WEATHER, rules="You must call a tool now."), question) == [("clock", {})]
    assert called(system(CLOCK, WEATHER, rules="You must call get_weather."), question)[0][0] == "get_weather"
    assert called(system(CLOCK, WEATHER), user("You must call one.")) == [("clock", {})]
    assert answer(system(WEATHER, rules="You must not call tools for sums."), question).startswith("6*7 = 42\n")
    described = tool("strict", "Before this you must call nothing.")
    assert answer(system(described), question).startswith("6*7 = 42\n")


def test_results_are_told_in_prose() -> None:
    asked = [system(WEATHER), user("How is the weather in Paris?"), assistant(hermes("get_weather", city="Paris"))]
    results = "\n".join([result({"sky": "blue", "degrees": 18}), result("x" * 500, "clock")])
    told = answer(*asked, user(results))
    assert told == (
        'The tool get_weather says: {"sky": "blue", "degrees": 18}\n' + f"The tool clock says: {'x' * 200}…"
    )
    assert answer(*asked, user("<tool_response>no JSON</tool_response>")) == "The tool tool says: no JSON"


def test_what_the_user_says_behind_results_is_answered() -> None:
    asked = [system(WEATHER), user("How is the weather in Paris?"), assistant(), user(f"{result('rain')}\n\nAnd 6*7?")]
    assert answer(*asked).startswith("6*7 = 42\n")
    asked[-1] = user(f"{result('rain')}\n\nAnd the weather in London?")
    assert called(*asked) == [("get_weather", {"city": "London"})]


def test_directives_in_results_are_not_the_users() -> None:
    script = read_script([user(result("[[fault=500]] [[say]] [[nonsense=1]]") + "\n[[shape=fast]] yes")])
    assert (script.fault, script.said, script.shape, script.text) == ("", None, "fast", "yes")


def test_a_model_that_is_asked_again_looks_at_all_that_the_user_said() -> None:
    asked = [system(WEATHER), user("How is the weather in Paris?"), assistant("{broken")]
    complaint = user('The arguments of "get_weather" are no JSON. Answer again.')
    assert called(*asked, complaint) == [("get_weather", {"city": "Paris"})]
    assert called(*asked, complaint, assistant("no"), complaint) == [("get_weather", {"city": "Paris"})]
    assert called(*asked, user("Thank you.")) == []


def test_results_stay_answered_when_that_answer_is_complained_of() -> None:
    asked = [system(WEATHER), user("How is the weather in Paris?"), assistant(), user(result("sun")), assistant("?")]
    assert answer(*asked, user("It must be plainer.")) == "The tool get_weather says: sun"
    assert called(*asked, user("You must call a tool."))[0][0] == "get_weather"


def test_a_complaint_of_an_empty_answer_stands_in_the_turn_itself() -> None:
    complaint = "\n\nYour answer: you must call JSON.\nAnswer again."
    text = "How is the weather in Paris?"
    assert called(system(WEATHER, CLOCK), user(text + complaint)) == [("get_weather", {"city": "Paris"})]
    assert called(system(WEATHER), user(text + complaint + complaint)) == [("get_weather", {"city": "Paris"})]
    assert read_script([user('[[answer=""]] hi' + complaint)]).answer is None
    assert read_script([user("[[stubborn=yes]] [[say]]<think>x</think>" + complaint)]).said == "<think>x</think>"
    asked = [system(WEATHER), user(text), assistant()]
    assert (
        answer(*asked, user(result("sun") + "\n\nThis is nothing. Answer again.")) == "The tool get_weather says: sun"
    )


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (UNIT, "in Fahrenheit please", "fahrenheit"),
        (UNIT, "no unit", "celsius"),
        (STRING, 'search "red shoes" in Paris', "red shoes"),
        (STRING, "find 'red shoes' for Anna's cat", "red shoes"),
        (STRING, "Compare Paris with London", "Paris"),
        (STRING, "a flat in New York City today", "New York City"),
        (STRING, "Berlin, please", "Berlin"),
        (STRING, "all in   small letters", "all in small letters"),
        (STRING, "", "simulated"),
        (STRING | {"format": "date"}, "on 2024-02-03, Monday", "2024-02-03"),
        (STRING | {"format": "date"}, "Monday", "2025-01-31"),
        (STRING | {"minLength": 6}, "to Oslo", "Oslo.."),
        (STRING | {"maxLength": 2}, "to Oslo", "Os"),
        (INTEGER, "for 3 days or 4", 3),
        (INTEGER, "rs6034464 and -7", -7),
        (INTEGER, "none", 1),
        (INTEGER | {"minimum": 5}, "3", 5),
        (INTEGER | {"exclusiveMinimum": 5, "multipleOf": 4}, "3", 8),
        (INTEGER | {"maximum": 5}, "30", 5),
        ({"type": "number"}, "it is 2.5 m", 2.5),
        ({"type": "number", "exclusiveMinimum": 3}, "3", 3.5),
        ({"type": "boolean"}, "", True),
        ({"type": "null"}, "x", None),
        ({"type": ["null", "integer"]}, "7", 7),
        ({"const": [1]}, "", [1]),
        ({"type": "array", "items": INTEGER}, "4 5 6", [4]),
        ({"type": "array", "items": INTEGER, "minItems": 2}, "4 5 6", [4, 5]),
        ({"anyOf": [{"type": "null"}, INTEGER]}, "7", 7),
        ({"anyOf": [INTEGER, STRING]}, "in Paris", "Paris"),
        ({"allOf": [{"properties": {"a": INTEGER}}, {"required": ["b"]}]}, "x", {"a": 1, "b": "x"}),
        ({"$ref": "#/$defs/a", "$defs": {"a": INTEGER}}, "9", 9),
        ({"properties": {"o": {"properties": {"p": UNIT}}}}, "celsius", {"o": {"p": "celsius"}}),
        ({}, "in Rome", "Rome"),
        (True, "in Rome", "Rome"),
    ],
)
def test_values_fit_their_schema_and_come_from_the_text(schema: Any, text: str, value: Any) -> None:
    assert filled(schema, Material([text]), everything=True) == value


def test_optional_arguments_are_left_out_unless_the_user_named_them() -> None:
    weather = system(WEATHER)
    assert called(weather, user("weather in Paris")) == [("get_weather", {"city": "Paris"})]
    named = {"city": "Paris", "unit": "celsius", "days": 3}
    assert called(weather, user("weather in Paris for 3 days in Celsius")) == [("get_weather", named)]
    flags = system(tool("mail", "", loud={"type": "boolean"}, opened={"type": "boolean"}))
    assert called(flags, user("mail it, loud")) == [("mail", {"loud": True})]


RECURSIVE = {
    "type": "object",
    "properties": {"next": {"$ref": "#"}, "all": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["next"],
}
WIDE = {"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}] * 50}}}


@pytest.mark.parametrize("schema", [RECURSIVE, WIDE, {"$ref": "#"}, {"anyOf": [{"$ref": "#"}] * 50}])
def test_a_schema_that_contains_itself_comes_to_an_end(schema: dict[str, Any]) -> None:
    assert len(json.dumps(filled(schema, Material(["x"]), everything=True))) < 100_000


KEYS = """type properties required items enum anyOf allOf $ref minimum maximum multipleOf minLength maxLength minItems
maxItems prefixItems format name function role content tool_calls parameters json_schema schema"""
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(["user", "tool"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS.split()), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50)
@given(JSONS, st.text(max_size=20))
def test_no_schema_does_harm(schema: Any, text: str) -> None:
    json.dumps(filled(schema, Material([text]), everything=True))
    json.dumps(filled(schema, Material([text]), everything=False))


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["messages", "tools", "tool_choice", "response_format"]), JSONS))
def test_no_request_does_harm(body: dict[str, Any]) -> None:
    write(read_script(body.get("messages")), "plain", body, native=True)


def test_calls_repeats_the_call_with_the_words_that_follow() -> None:
    text = "[[calls=2]] weather for Paris and London, both for 3 days"
    assert called(system(WEATHER), user(text)) == [
        ("get_weather", {"city": "Paris", "days": 3}),
        ("get_weather", {"city": "London", "days": 3}),
    ]
    assert answer(system(WEATHER), user("[[calls=0]] weather in Paris. You must call.")).startswith("This is")


def test_say_and_answer_win_over_calls_and_json() -> None:
    rules = system(WEATHER, rules="Answer with a JSON object.")
    assert answer(rules, user('[[answer="{bad"]] weather')) == "{bad"
    assert answer(rules, user("weather [[say]]<tool_call>\n{")) == "<tool_call>\n{"
    assert answer(rules, user("[[tokens=3]] weather")) == "The simulator writes"


def test_a_scripted_call_is_written_as_it_stands_even_if_it_is_wrong() -> None:
    wrong = """[[call=nope args='{"city": 3,}']] hello"""
    assert (
        answer(system(WEATHER), user(wrong)) == '<tool_call>\n{"name": "nope", "arguments": {"city": 3,}}\n</tool_call>'
    )
    assert answer(user(wrong.replace("call=", "format=bare call="))) == '{"name": "nope", "arguments": {"city": 3,}}'
    told = answer(system(WEATHER), user("""[[answer="Let me look." call=get_weather format=chinese]]"""))
    assert told == "Let me look.\n调用函数：get_weather 参数：{}"


def test_a_scripted_call_stays_native_where_nothing_speaks_of_tools() -> None:
    made = written(user("""[[answer="" call=get_weather args='{"city": "Paris"}']]"""))
    assert (made.content, made.finish_reason) == ("", "tool_calls")
    assert made.calls == (Call("get_weather", '{"city": "Paris"}'),)


def test_a_stubborn_script_counts_until_a_turn_has_its_own() -> None:
    first = user("[[stubborn=yes call=get_weather args=oops]] weather in Paris")
    again = [assistant(), user("Answer again.")]
    stubborn = hermes("get_weather").replace("{}", "oops")
    assert answer(system(WEATHER), first, *again) == stubborn
    assert answer(system(WEATHER), first, *again, *again) == stubborn
    assert read_script([first, *again]).text == "Answer again."
    assert answer(system(WEATHER), first, assistant(), user(result("sun"))) == "The tool get_weather says: sun"
    own = [assistant(), user("[[shape=plain]] You must answer again.")]
    assert answer(system(WEATHER), first, *own) == hermes("get_weather", city="Paris")
    assert answer(user("[[stubborn=yes]][[say]]{bad"), *again) == "{bad"
    mild = user("[[call=get_weather args=oops]] weather in Paris")
    assert answer(system(WEATHER), mild, *again) == hermes("get_weather", city="Paris")


@pytest.mark.parametrize("directive", ["format=xml", "calls=-1", "calls=101", "fence=1", "stubborn=maybe"])
def test_mistyped_values_are_errors(directive: str) -> None:
    with pytest.raises(BadDirective):
        read_script([user(f"[[{directive}]]")])


SCHEMA = {
    "type": "object",
    "properties": {"city": STRING, "days": INTEGER, "tags": {"type": "array", "items": STRING}},
    "required": ["city"],
}
FILLED = {"city": "Paris", "days": 3, "tags": ["Paris"]}


@pytest.mark.parametrize(
    "rules", [f"Answer as this JSON Schema:\n{json.dumps(SCHEMA)}", f"The JSON Schema: {json.dumps(SCHEMA)}"]
)
def test_json_is_answered_where_the_prompt_wants_it(rules: str) -> None:
    asked = user("Paris, 3 days")
    assert json.loads(answer({"role": "system", "content": rules}, asked)) == FILLED
    assert json.loads(answer(user(f"Paris, 3 days\n{rules}"))) == FILLED
    assert json.loads(answer(system(CLOCK, rules=rules), asked)) == FILLED
    assert called(system(CLOCK, rules=rules), user("What time is it?")) == [("clock", {})]
    again = [assistant("{"), user("This is no JSON. Answer again.")]
    assert json.loads(answer({"role": "system", "content": rules}, asked, *again)) == FILLED


INDENTED = json.dumps(SCHEMA, indent=2)


@pytest.mark.parametrize(
    "rules",
    [
        f"Respond with a JSON object that fits this schema:\n\n{json.dumps(SCHEMA)}\n\nWrite nothing else.",
        f"Return json for the json_schema below:\n\n{INDENTED}\n\nReturn data, not the schema.",
        f"The answer is JSON.\n<schema>\n{INDENTED}\n</schema>",
        f"Fill the schema, in JSON:\n```json\n{INDENTED}\n```",
        f"The JSON Schema is\n{INDENTED}",
        f'Fields are {{name}} or {{"like": "this"}}. JSON, schema: {INDENTED}',
        f"JSON, schema: {json.dumps({'name': 'trip', 'schema': SCHEMA}, indent=1)}",
        "{ " * 49 + f"JSON, schema: {INDENTED}",
    ],
)
def test_a_schema_is_found_in_whatever_words_the_prompt_puts_it(rules: str) -> None:
    asked = user("Paris, 3 days")
    assert json.loads(answer({"role": "system", "content": rules}, asked)) == FILLED
    assert json.loads(answer(system(CLOCK, rules=rules), asked)) == FILLED
    assert called(system(CLOCK, rules=rules), user("What time is it?")) == [("clock", {})]
    again = [assistant("{"), user("This is not valid. Answer again.")]
    assert json.loads(answer({"role": "system", "content": rules}, asked, *again)) == FILLED


def test_a_schema_that_the_user_says_is_found_and_is_no_material() -> None:
    text = f"Rome or paris? 3 days. Give me a JSON object that fits this Schema:\n{INDENTED}"
    assert json.loads(answer(user(text))) == {"city": "Rome", "days": 3, "tags": ["Rome"]}
    rules = {"role": "system", "content": "Answer with one JSON object."}
    assert json.loads(answer(rules, user(f"Paris, 3 days\n{INDENTED}"))) == FILLED
    place = {"type": "Feature", "properties": {"name": "Oslo"}}
    strict = {"role": "system", "content": f"JSON, schema: {INDENTED}"}
    assert json.loads(answer(strict, user(f"Paris, 3 days {json.dumps(place)}"))).keys() == FILLED.keys()


def test_a_native_demand_for_an_object_finds_the_schema_of_the_prompt() -> None:
    messages = [{"role": "system", "content": f"Fill this:\n{INDENTED}"}, user("Paris, 3 days")]
    form = {"type": "json_object"}
    assert json.loads(answer(*messages, native=True, response_format=form)) == FILLED
    assert answer(*messages, native=False, response_format=form).startswith("This is")


def test_a_schema_that_only_refers_to_its_definitions_is_one() -> None:
    schema = {"$ref": "#/$defs/Trip", "$defs": {"Trip": {"properties": {"stop": {"$ref": "#/$defs/Stop"}}}}}
    schema["$defs"] |= {"Stop": {"properties": {"days": INTEGER}}}  # type: ignore[operator]
    rules = {"role": "system", "content": f"JSON that fits the schema:\n{json.dumps(schema, indent=2)}"}
    assert json.loads(answer(rules, user("3 days"))) == {"stop": {"days": 3}}


@pytest.mark.parametrize(
    "described",
    [
        WEATHER,
        WEATHER["function"],
        {"tools": [WEATHER]},
        {"name": "weather", "input_schema": WEATHER["function"]["parameters"]},
        {"type": "object", "properties": ["city"]},
    ],
)
def test_what_is_no_schema_of_an_answer_is_not_filled(described: dict[str, Any]) -> None:
    rules = {"role": "system", "content": f"One JSON object, of no schema. Known:\n{json.dumps(described, indent=2)}"}
    assert json.loads(answer(rules, user("What is 6*7?"))) == {"answer": "42"}


def test_a_schema_of_which_no_json_is_demanded_is_not_filled() -> None:
    question = user("What is 6*7?")
    assert answer({"role": "system", "content": f"We store:\n{INDENTED}"}, question).startswith("6*7 = 42\n")
    assert answer(user(f"What is this? {INDENTED}")).startswith("This is")
    rules = f"A call's arguments are JSON of the tool's schema.\nFor example:\n{INDENTED}"
    assert answer(system(WEATHER, rules=rules), question).startswith("6*7 = 42\n")


@pytest.mark.parametrize("filler", ["{", '{"a":', "{}", '{"function":1}'])
def test_the_search_for_a_schema_is_bounded(filler: str) -> None:
    rules = {"role": "system", "content": f"One JSON object: {filler * 20_000} {INDENTED}"}
    assert json.loads(answer(rules, user("What is 6*7?"))) == {"answer": "42"}


def test_any_json_object_will_do_where_there_is_no_schema() -> None:
    rules = {"role": "system", "content": "Answer with one JSON object."}
    assert json.loads(answer(rules, user("What is 6*7?"))) == {"answer": "42"}
    both = system(WEATHER, rules="Call tools with a JSON object of arguments.\nAnswer with one JSON object.")
    assert json.loads(answer(both, user("What is 6*7?"))) == {"answer": "42"}


def test_instructions_for_calls_ask_for_no_json_answer() -> None:
    rules = "Write a call as a JSON object in <tool_call> tags. Its arguments fit the tool's JSON Schema:"
    assert answer(system(WEATHER, rules=rules), user("What is 6*7?")).startswith("6*7 = 42\n")


def test_fence_puts_json_into_a_fence_behind_a_sentence() -> None:
    rules = {"role": "system", "content": "Answer with one JSON object."}
    fenced = answer(rules, user("[[fence=yes]] What is 6*7?"))
    assert fenced == 'Here is the JSON:\n```json\n{"answer": "42"}\n```'


def test_native_tools_are_called_natively_where_the_server_takes_them() -> None:
    asked = user("[[calls=2]] weather in Paris and Rome")
    made = written(asked, native=True, tools=[WEATHER, CLOCK])
    assert (made.content, made.finish_reason) == ("", "tool_calls")
    assert [call.values for call in made.calls] == [{"city": "Paris"}, {"city": "Rome"}]
    assert written(asked, native=False, tools=[WEATHER]).content.startswith("This is")
    assert written(user("[[format=glm]] weather"), native=True, tools=[WEATHER]).content.startswith("<tool_call>get_w")


def test_native_choice_is_kept() -> None:
    tools = [CLOCK, WEATHER]
    asked = user("What is 6*7?")
    assert called(asked, tools=tools) == []
    assert called(asked, tools=tools, tool_choice="required") == [("clock", {})]
    named = {"type": "function", "function": {"name": "get_weather"}}
    assert called(asked, tools=tools, tool_choice=named)[0][0] == "get_weather"
    assert called(user("the weather"), tools=tools, tool_choice="none") == []


def test_native_results_are_told_in_prose_and_the_call_is_not_repeated() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    before: list[dict[str, Any]] = [
        user('[[answer="" call=get_weather]] weather in Paris'),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
    ]
    assert answer(*before, native=True, tools=[WEATHER]) == "The tool get_weather says: sun"


def test_native_response_format_is_kept() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    assert json.loads(answer(user("Paris, 3 days"), native=True, response_format=form)) == FILLED
    made = answer(user("What is 6*7?"), native=True, response_format={"type": "json_object"})
    assert json.loads(made) == {"answer": "42"}
    assert answer(user("Paris"), native=False, response_format=form).startswith("This is")


def test_blocks_of_results_are_split_off_only_where_a_turn_begins() -> None:
    assert split_results("<tool_response>a</tool_response>\n<tool_response> b\n</tool_response> c ") == (
        ["a", "b"],
        "c",
    )
    for text in ("", " a ", "a <tool_response>b</tool_response>", "<tool_response>b"):
        assert split_results(text) == ([], text)
    many = "<tool_response>" * 100_000
    assert split_results(many) == ([], many)


# Our name of a format -> the names of its cases; those of broken ones stand in a file of their own.
NAMES = {
    "hermes": "1-hermes",
    "fenced": "2-fenced",
    "inline": "3-inline",
    "function_call": "4-function_call",
    "bare": "4-bare",
    "parameters": "4-parameters",
    "toolify": "5-toolify",
    "toolify_json": "function_calls_toolify_args_json",
    "invoke": "6-function_calls-invoke",
    "tool_calls_invoke": "6-tool_calls-invoke",
    "qwen3": "7-qwen3",
    "glm": "8-glm",
    "ifm_xml": "9-ifm-xml",
    "ifm_typed": "9-ifm-typed",
    "ifm_json": "9-ifm-json",
    "gpt_oss": "10-gpt-oss",
    "tag_pythonic": "11-tag-pythonic",
    "pythonic": "11-pythonic",
    "fn_call": "11-fn_call",
    "chinese": "12-chinese",
    "unclosed": "closer missing",
    "single_quotes": "single quotes",
    "trailing_commas": "trailing commas",
    "double_encoded": "double encoding",
}


def cases() -> list[dict[str, Any]]:
    files = [CASES / f"{name}.jsonl" for name in ("formats", "broken", "bfcl")]
    lines = [line for file in files if file.exists() for line in file.read_text(encoding="utf-8").splitlines()]
    return [case for case in map(json.loads, lines) if case["format"] in NAMES.values()]


@pytest.mark.skipif(not CASES.exists(), reason="the cases are not here")
@pytest.mark.parametrize("name", NAMES)
def test_each_format_is_written_as_in_the_cases_for_it(name: str) -> None:
    mine = [case for case in cases() if case["format"] == NAMES[name]]
    assert mine
    for case in mine:
        expected = case["expected"]["tool_calls"]
        calls = [Call(call["name"], json.dumps(call["arguments"], ensure_ascii=False)) for call in expected]
        made, text = FORMATS[name](calls), case["text"]
        assert made in text


ARGUMENTS = {"city": "Paris", "days": 3, "near": True, "tags": ["a", "b"], "unit": None}


def test_every_format_has_cases_and_holds_name_and_arguments() -> None:
    assert set(NAMES) == set(FORMATS)
    for name, form in FORMATS.items():
        text = form([Call("get_weather", json.dumps(ARGUMENTS)), Call("clock", "{}"), Call("bad", '{"x": ')])
        assert all(part in text for part in ("get_weather", "city", "Paris", "days", "3", "tags", "clock", "bad")), name


@pytest.fixture(scope="module")
def base() -> Any:
    with serving(create_simulator()) as url:
        yield url


def posted(base: str, path: str, **fields: Any) -> RawAnswer:
    token = {"Authorization": f"Bearer {mint_token('user@example.com')}", "Content-Type": "application/json"}
    return request(base, "POST", path, headers=token, body={"model": SimulatorOptions().models[0], **fields})


def deltas(answered: RawAnswer) -> list[dict[str, Any]]:
    lines = [line[6:] for line in answered.body.decode().split("\n\n") if line.startswith("data: {")]
    return [choice["delta"] for line in lines for choice in json.loads(line).get("choices", ())]


def test_calls_in_the_text_are_streamed_like_any_text(base: str) -> None:
    messages = [system(WEATHER), user("[[shape=plain format=qwen3]] weather in Paris")]
    answered = posted(base, "/api/chat/completions", messages=messages, stream=True, tools=[CLOCK])
    contents = [delta.get("content") or "" for delta in deltas(answered)]
    assert "".join(contents) == FORMATS["qwen3"]([Call("get_weather", '{"city": "Paris"}')])
    assert len(contents) > 10


def test_native_calls_are_streamed_and_sent_whole(base: str) -> None:
    fields = {"messages": [user("[[calls=2]] weather in Paris and Rome")], "tools": [WEATHER]}
    pieces = [
        piece
        for delta in deltas(posted(base, "/v1/chat/completions", stream=True, **fields))
        for piece in delta.get("tool_calls", ())
    ]
    joined = [
        "".join(piece["function"]["arguments"] for piece in pieces if piece["index"] == index) for index in (0, 1)
    ]
    assert list(map(json.loads, joined)) == [{"city": "Paris"}, {"city": "Rome"}]
    choice = json.loads(posted(base, "/v1/chat/completions", **fields).body)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    calls = choice["message"]["tool_calls"]
    assert [(call["id"], call["function"]["arguments"]) for call in calls] == [
        ("call_1", joined[0]),
        ("call_2", joined[1]),
    ]
