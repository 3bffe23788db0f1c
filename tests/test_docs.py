"""The documentation against the program: what it names exists, and nothing that exists is left out."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from fastapi import FastAPI
from msgspec import Struct

from k2think.app import _web
from k2think.cli import app
from k2think.dialogue.events import Event, Finish, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStart
from k2think.dialogue.prompt import Message, Prompt, Tool, Toolbox
from k2think.errors import GatewayError
from k2think.gateway import Gateway
from k2think.inband.emulation import Emulation
from k2think.settings import _SIMULATED_STREAM, Settings
from k2think.settings.example import variables
from k2think.settings.reference import reference
from k2think.wire.openai_chat import schema

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "k2think"
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "README.zh-CN.md"])

SETTINGS = {variable.name for variable in variables()}
FOREIGN_NAMES = {
    "CONTAINER_USER",  # of docker-compose.yml
    "FN_CALL",  # what some models write
    "NO_COLOR",  # a convention of all programs on terminals
    "YOUR_KEY",  # to be filled in
}
"""Names like those of settings that are none. Those of clients begin with OPENAI_."""
FOREIGN_OPTIONS = {"--user"}  # of docker
SCRIPTS = {
    "k2think": (),
    "k2think_proxy.py": ("serve",),
    "check_config_simple.py": ("check",),
    "get_tokens.py": ("tokens", "fetch"),
}
ENDS_OF_COMMANDS = {"&&", "||", "|", ";", ">", "<"}

_FENCE = re.compile(r"^ *(?P<ticks>`{3,})(?P<language>[\w-]*)\n(?P<code>.*?)^ *(?P=ticks) *$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`((?:[^`\n]|\n(?!\n))+)`(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_NAME = re.compile(r"(?<![A-Za-z0-9_])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?![A-Za-z0-9_])")
_ENDPOINT = re.compile(
    r"(?:\b(?P<method>GET|POST|PUT|PATCH|DELETE) )?"
    r"(?<![\w.*/-])(?:https?://[\w.-]+(?::\d+)?)?(?P<path>/(?:v1|admin|health)(?![\w-])[\w./{}-]*)"
)
_ERROR_ROW = re.compile(r"^\| (\d{3}) \| `(\w+)` \|", re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_page = pytest.mark.parametrize("path", PAGES, ids=name_of)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose(path: Path) -> str:
    return _FENCE.sub("", read(path))


def spans(text: str) -> list[str]:
    return [" ".join(span.split()) for span in _SPAN.findall(text)]


def code(path: Path) -> list[str]:
    """The lines of a page that are code, and what stands between backticks."""
    blocks = "".join(found["code"] for found in _FENCE.finditer(read(path)))
    return [*blocks.replace("\\\n", " ").splitlines(), *spans(prose(path))]


def section(path: Path, heading: str) -> str:
    """What stands below a heading, up to the next one."""
    _, found, rest = read(path).partition(f" {heading}\n")
    assert found, heading
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


# Settings


def test_the_reference_of_settings_is_the_one_that_the_source_gives() -> None:
    written = read(DOCS / "configuration.md")
    assert written == reference(), (
        "renew it: PYTHONPATH=src python -m k2think.settings.reference > docs/configuration.md"
    )


def test_the_reference_has_a_row_for_every_setting() -> None:
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \|(?:[^|]*\|){3}$", reference(), re.MULTILINE)
    assert rows == [variable.name for variable in variables()]


def test_the_reference_shows_no_markup_that_is_none() -> None:
    assert "&lt;think>" in reference()
    assert "<think>" not in reference()


@each_page
def test_every_setting_that_is_named_exists(path: Path) -> None:
    named = set(_NAME.findall(read(path)))
    known = SETTINGS | FOREIGN_NAMES | set(_SIMULATED_STREAM)
    assert {name for name in named - known if not name.startswith("OPENAI_")} == set()


# Endpoints


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """Method and path of all there are."""
    settings = Settings.load({"VALID_API_KEY": "sk-docs"}, directory=tmp_path_factory.mktemp("docs"))
    web = _web(Gateway(settings))
    assert isinstance(web, FastAPI)
    return {(method.upper(), path) for path, methods in web.openapi()["paths"].items() for method in methods}


def is_endpoint(method: str | None, path: str, endpoints: set[tuple[str, str]]) -> bool:
    """Whether a path, as it stands in a text, is one of ours or leads to some of them."""
    path = path.rstrip(".")
    if method is None and path.rstrip("/") in {"/v1", "/admin"}:
        return True
    patterns = [re.sub(r"\{\w+\}", "[^/]+", known) for verb, known in endpoints if method in {None, verb}]
    return any(re.fullmatch(pattern, path) for pattern in patterns)


def test_every_endpoint_is_described(endpoints: set[tuple[str, str]]) -> None:
    described = {
        (found["method"], re.sub(r"\{\w+\}", "{}", found["path"]))
        for span in spans(prose(DOCS / "api.md"))
        for found in _ENDPOINT.finditer(span)
    }
    assert "GET /" in spans(prose(DOCS / "api.md"))
    wanted = {(method, re.sub(r"\{\w+\}", "{}", path)) for method, path in endpoints if path != "/"}
    assert wanted - described == set()


@each_page
def test_every_endpoint_that_is_named_exists(path: Path, endpoints: set[tuple[str, str]]) -> None:
    named = {(found["method"], found["path"]) for line in code(path) for found in _ENDPOINT.finditer(line)}
    assert {one for one in named if not is_endpoint(*one, endpoints)} == set()


def test_an_endpoint_that_does_not_exist_would_be_seen(endpoints: set[tuple[str, str]]) -> None:
    assert is_endpoint("POST", "/admin/tokens/reset/0", endpoints)
    assert not is_endpoint("GET", "/admin/tokens/reset/0", endpoints)
    assert not is_endpoint(None, "/v1/embeddings", endpoints)
    found = _ENDPOINT.search("curl http://localhost:8001/v1/embeddings")
    assert found
    assert found["path"] == "/v1/embeddings"
    assert not _ENDPOINT.search("http://127.0.0.1:8002/api/v1/files/")


# Commands


def commands(group: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands and groups of commands, by the words that call them."""
    yield names, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*names, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


def options(command: Any) -> set[str]:
    """The long options of a command."""
    shown = (parameter for parameter in command.params if not getattr(parameter, "hidden", False))
    said = {option for parameter in shown for option in (*parameter.opts, *parameter.secondary_opts)}
    return {option for option in said if option.startswith("--")} - {"--help"}


def faults(words: list[str], called: tuple[str, ...]) -> Iterator[str]:
    """What does not exist in a command line, behind the words that are already `called`."""
    for word in words:
        if word in ENDS_OF_COMMANDS or word.startswith("#"):
            return
        if word.startswith("--"):
            if word.partition("=")[0] not in options(COMMANDS[called]) | {"--help"}:
                yield f"{' '.join(called)} {word}"
        elif (*called, word) in COMMANDS:
            called = (*called, word)
        elif word != "…" and hasattr(COMMANDS[called], "commands"):
            yield f"{' '.join(called)} {word}"
            return


def faults_of_line(line: str) -> Iterator[str]:
    words = line.split()
    for place, word in enumerate(words):
        called = SCRIPTS.get(word.rpartition("/")[2])
        if called is not None:
            yield from faults(words[place + 1 :], called)
        elif word == "k2think-api" and "run" in words[:place] and words[place - 1] != "--name":
            yield from faults(words[place + 1 :], ())


def test_every_command_and_every_option_is_described() -> None:
    described = {
        tuple(heading.split()[1:]): set(re.findall(r"`(--[a-z-]+)`", section(DOCS / "commands.md", heading)))
        for heading in _HEADING.findall(read(DOCS / "commands.md"))
        if heading.startswith("k2think ")
    }
    assert described == {
        names: options(command) for names, command in COMMANDS.items() if not hasattr(command, "commands")
    }
    assert "`k2think --version`" in read(DOCS / "commands.md")


@each_page
def test_every_command_that_is_named_exists(path: Path) -> None:
    assert [fault for line in code(path) for fault in faults_of_line(line)] == []
    known = FOREIGN_OPTIONS.union({"--help"}, *map(options, COMMANDS.values()))
    assert {span.split()[0] for span in spans(prose(path)) if span.startswith("--")} - known == set()


def test_a_command_that_does_not_exist_would_be_seen() -> None:
    assert list(faults_of_line("k2think tokens fetch a.txt b.txt && k2think serve --port 0  # now")) == []
    assert list(faults_of_line("k2think start")) == [" start"]
    assert list(faults_of_line("python k2think_proxy.py --prot 1")) == ["serve --prot"]
    assert list(faults_of_line("docker-compose run --rm k2think-api chek")) == [" chek"]


@each_page
def test_every_target_of_make_that_is_named_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", read(ROOT / "Makefile"), re.MULTILINE))
    named = {target for line in code(path) for target in re.findall(r"^make ([a-z]+)", line)}
    assert named - targets == set()


# The chat request and the errors


def test_every_field_of_a_chat_request_is_described() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", section(DOCS / "api.md", "Fields of a chat request"), re.MULTILINE)
    assert sorted(rows) == sorted(schema.ChatRequest.__struct_fields__)


def test_every_member_of_a_message_or_tool_is_described() -> None:
    kinds = [kind for kind in vars(schema).values() if isinstance(kind, type) and issubclass(kind, Struct)]
    members = {field for kind in kinds for field in kind.__struct_fields__}
    assert members - set(spans(prose(DOCS / "api.md"))) == set()


def errors(kind: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from errors(one)


def codes_in_source() -> set[str]:
    """All that is written as an error's code where one is raised."""
    found = {schema.UNSUPPORTED}
    for path in SOURCE.rglob("*.py"):
        if "simulator" in path.parts:
            continue
        for node in ast.walk(ast.parse(read(path))):
            if not isinstance(node, ast.Call):
                continue
            given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            if isinstance(node.func, ast.Name) and node.func.id == "Refusal":
                given += node.args[:1]
            found |= {one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return found


def test_every_error_is_described_with_its_status() -> None:
    rows = {(int(status), code) for status, code in _ERROR_ROW.findall(read(DOCS / "api.md"))}
    own = {kind for kind in errors() if kind.__module__ == "k2think.errors"}
    assert {(kind.status, kind.code) for kind in own if kind.code} - rows == set()
    told = {code for _, code in rows}
    assert told == codes_in_source() | {kind.code for kind in own if kind.code}


# What is shown of the model's text is read so


def reading(tool: str, *, live: bool) -> Emulation:
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}, "city": {"type": "string"}}}
    toolbox = Toolbox((Tool(tool, parameters=parameters),))
    return Emulation(Prompt("m", (Message("user", "hello"),), live=live, tools=toolbox), "present")


def told(event: Event) -> str:
    match event:
        case TextDelta(text) | ReasoningDelta(text):
            return text
        case ToolCallStart(name=name):
            return name
        case ToolCallDelta(arguments=arguments):
            return arguments
        case Finish(reason):
            return reason
        case _:
            return ""


FORMS = [
    span
    for row in section(DOCS / "tools.md", "What the model may write").splitlines()
    for span in spans(row)[:1]
    if row.startswith("| ") and "1" in span
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_call_that_is_shown_is_read(form: str) -> None:
    emulation = reading("f", live=False)
    events = [*emulation.feed_all([TextDelta(form), Finish("stop")]), *emulation.close()]
    assert [event.name for event in events if isinstance(event, ToolCallStart)] == ["f"]
    assert json.loads("".join(told(event) for event in events if isinstance(event, ToolCallDelta))) == {"a": 1}


def test_the_forms_are_found() -> None:
    assert len(FORMS) == 11


def test_the_answer_in_pieces_is_read_as_shown() -> None:
    table = section(DOCS / "how-it-works.md", "How a text is read that arrives in pieces")
    rows = [row.strip("| ").split(" | ") for row in table.splitlines() if row.startswith("| `")]
    assert len(rows) == 8
    emulation = reading("weather", live=True)
    for row in rows:
        events = list(emulation.feed_all([TextDelta(spans(row[0])[0])]))
        if row is rows[-1]:
            events += [*emulation.feed_all([Finish("stop")]), *emulation.close()]
        assert list(filter(None, map(told, events))) == spans(row[1]), row


# Files and links


def slugs(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    plain = (heading.replace("`", "").lower() for heading in _HEADING.findall(prose(path)))
    return {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in plain}


def links(path: Path) -> list[str]:
    found = (one or other for one, other in _LINK.findall(prose(path)))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


@each_page
def test_links_lead_somewhere(path: Path) -> None:
    dead = []
    for link in links(path):
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        if not file.exists() or (anchor and anchor not in slugs(file)):
            dead.append(link)
    assert dead == []


def test_the_index_lists_every_page() -> None:
    listed = {link for link in links(DOCS / "README.md") if link.endswith(".md")} - {"../README.md"}
    assert {page.name for page in DOCS.glob("*.md")} - {"README.md"} == listed


@pytest.mark.parametrize("page", ["how-it-works.md", "contributing.md"])
def test_every_file_of_the_source_that_is_named_exists(page: str) -> None:
    names = {path.name for path in SOURCE.rglob("*.py")}
    named = {span for span in spans(prose(DOCS / page)) if re.fullmatch(r"[\w/.-]*(?:\.py|/)", span)}
    assert named
    assert {
        one for one in named if one not in names and not any((top / one).exists() for top in (ROOT, SOURCE))
    } == set()


def test_what_is_shown_of_a_file_stands_in_it() -> None:
    text = read(DOCS / "deploying.md")
    shown = [found for found in _FENCE.finditer(text) if found["language"] in {"ini", "nginx", "caddy"}]
    assert len(shown) == 3
    for found in shown:
        link = [one for one, _ in _LINK.findall(text[: found.start()]) if one.startswith("../deploy/")][-1]
        lines = set(map(str.strip, read(DOCS / link).splitlines()))
        assert {line.strip() for line in found["code"].splitlines()} - lines == set(), link
