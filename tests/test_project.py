"""The project looked at as a whole: who may import whom, what files may be called, and texts that must agree."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2think.settings.example import example, variables

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "k2think"
TEXTS = {path: path.read_text(encoding="utf-8") for path in sorted(SOURCE.rglob("*.py"))}
TREES = {path: ast.parse(text) for path, text in TEXTS.items()}

# The lowest first. A room imports from itself and from rows below its own.
ROWS = [
    {"__init__"},
    {"errors"},
    {"places", "settings", "sse", "together"},
    {"dialogue"},
    {"inband", "wire", "telemetry", "storage"},
    {"credentials", "library"},
    {"upstreams"},
    {"engine"},
    {"gateway"},
    {"api"},
]
TOP = {
    "addresses",
    "app",
    "banner",
    "check_command",
    "cli",
    "checkup",
    "listening",
    "terminal",
    "token_commands",
    "token_errands",
    "token_reset",
    "workers",
    "__main__",
}
SIMULATOR_MAY_IMPORT = {"errors", "sse", "simulator"}
RANK = {room: rank for rank, row in enumerate(ROWS) for room in row}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module
            if node.module == "k2think":
                yield from (f"k2think.{alias.name}" for alias in node.names)


def rooms_imported(tree: ast.AST) -> set[str]:
    parts = (name.split(".") for name in imports(tree) if name.startswith("k2think."))
    return {room for _, room, *_ in parts} - {"NAME", "__version__"}


def forbidden(room: str, imported: set[str]) -> set[str]:
    """Which of the imported rooms `room` must not import."""
    others = imported - {room}
    if room in TOP:
        return set()
    if room == "simulator":
        return imported - SIMULATOR_MAY_IMPORT
    if room not in RANK:
        return {room}  # a room that has no row yet: it must be given one
    return {other for other in others if RANK.get(other, len(ROWS)) >= RANK[room]}


def test_imports_go_one_way() -> None:
    wrong = {name_of(path): forbidden(room_of(path), rooms_imported(tree)) for path, tree in TREES.items()}
    assert {name: rooms for name, rooms in wrong.items() if rooms} == {}


def test_imports_the_wrong_way_would_be_seen() -> None:
    assert forbidden("dialogue", {"errors", "dialogue"}) == set()
    assert forbidden("dialogue", {"wire"}) == {"wire"}
    assert forbidden("wire", {"inband"}) == {"inband"}
    assert forbidden("engine", {"app"}) == {"app"}
    assert forbidden("api", {"simulator"}) == {"simulator"}
    assert forbidden("simulator", {"errors", "settings"}) == {"settings"}
    assert forbidden("novelty", {"errors"}) == {"novelty"}
    text = "from k2think import NAME, __version__, wire\nimport k2think.api.access\nfrom k2think.inband.x import y"
    assert rooms_imported(ast.parse(text)) == {"wire", "api", "inband"}


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("aiohttp", {"upstreams/door.py", "upstreams/aiohttp_client.py"}),
        ("httptools", {"upstreams/connection.py"}),
        ("aiohappyeyeballs", {"upstreams/direct.py"}),
        ("yarl", {"upstreams/direct.py"}),
        ("redis", {"storage/redis.py"}),
        ("fastapi", {"api/", "app.py", "simulator/"}),
        ("starlette", {"api/", "app.py", "simulator/"}),
        ("uvicorn", {"listening.py"}),
        ("typer", {"check_command.py", "cli.py", "token_commands.py"}),
        ("rich", {"terminal.py"}),
        ("dotenv", {"settings/"}),
    ],
)
def test_a_library_is_imported_where_it_belongs_and_nowhere_else(package: str, allowed: set[str]) -> None:
    users = {
        str(path.relative_to(SOURCE))
        for path, tree in TREES.items()
        if any(name.split(".")[0] == package for name in imports(tree))
    }
    assert {user for user in users if not any(user.startswith(place) for place in allowed)} == set()


def test_only_the_settings_read_the_environment() -> None:
    readers = set()
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            attribute = node.attr if isinstance(node, ast.Attribute) else ""
            if {attribute, *names} & {"environ", "environb", "getenv", "getenvb"}:
                readers.add(room_of(path))
    assert readers == {"settings"}


def test_files_are_small() -> None:
    assert {name_of(path) for path, text in TEXTS.items() if len(text.splitlines()) > 400} == set()


def test_every_file_says_why_it_exists() -> None:
    assert {name_of(path) for path, tree in TREES.items() if tree.body and not ast.get_docstring(tree)} == set()


def test_no_file_is_named_for_a_drawer() -> None:
    drawer = re.compile("utils?|constants|helpers?|common|misc")
    assert {
        name_of(path) for path in TEXTS if drawer.fullmatch(path.stem) or drawer.fullmatch(path.parent.name)
    } == set()


def test_nothing_catches_everything() -> None:
    catchers = {
        name_of(path)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}))
    }
    assert catchers == set()


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("*.py")]
    assert sorted(names) == sorted(set(names))


# Texts that must agree


def test_the_example_configuration_is_the_one_that_the_settings_give() -> None:
    written = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert written == example(), "renew it: python check_config_simple.py --example > .env.example"


def test_the_example_configuration_shows_every_variable_with_its_default() -> None:
    shown = dict(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=(.*)$", example(), re.MULTILINE))
    defaults = {variable.name: variable.default for variable in variables()}
    assert shown == defaults | {"TOKENS_FILE": "data/tokens.txt", "ACCOUNTS_FILE": "data/accounts.txt"}
    assert re.findall(r"^[A-Z].*$", example(), re.MULTILINE) == ["VALID_API_KEY="]


def test_every_variable_is_described() -> None:
    assert all(variable.description.endswith((".", ".tmp")) and variable.allowed for variable in variables())


def test_examples_hold_nothing_that_could_be_taken_for_real() -> None:
    for name in ("tokens", "accounts"):
        lines = (ROOT / "data" / f"{name}.example.txt").read_text(encoding="utf-8").splitlines()
        assert all(line.startswith("#") for line in lines)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_are_pinned_with_hashes_and_name_no_index(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"https?://|--index|--extra-index|--find-links|--trusted-host", text)
    for requirement in re.split(r"\n(?=\S)", text.strip()):
        if not requirement.startswith("#"):
            assert re.match(r"[\w.-]+==\S+", requirement)
            assert "--hash=sha256:" in requirement


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    development = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    runtime_names = [re.split(r"[<>=;\[ ]", dependency)[0] for dependency in project["project"]["dependencies"]]
    dev_names = [re.split(r"[<>=;\[ ]", dependency)[0] for dependency in project["dependency-groups"]["dev"]]
    assert all(re.search(rf"^{name}==", pins, re.MULTILINE) for name in runtime_names)
    assert all(re.search(rf"^{name}==", development, re.MULTILINE) for name in runtime_names + dev_names)
