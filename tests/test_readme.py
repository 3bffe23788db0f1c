"""The two READMEs: they say the same, their commands are tried or say what they need, and the steps lead to answers.

Their programs and the demo's commands are run in test_cli.py.
"""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import KEY, MODEL, Stage
from running import PLAIN, ROOT
from serving import serving
from waiting import PATIENCE

from k2think.app import create_app
from k2think.cli import main
from k2think.settings import Settings
from k2think.settings.example import variables
from k2think.simulator.app import create_simulator
from k2think.simulator.options import SimulatorOptions
from k2think.simulator.tokens import mint_token

ENGLISH, CHINESE = (ROOT / name for name in ("README.md", "README.zh-CN.md"))
README = ENGLISH.read_text(encoding="utf-8")
READMES = pytest.mark.parametrize("path", [ENGLISH, CHINESE], ids=lambda path: path.name)
PICTURE = ROOT / "docs" / "picture.svg"
DEMO_URL, DEMO_KEY = "http://localhost:8001", "sk-k2think-demo"

BLOCK = re.compile(
    r"^(?:<!-- needs: (?P<needs>\w+) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
# What a block that is not run may hold, for each reason.
NOT_RUN = {
    "network": r"pip install .+",
    "account": r"k2think tokens \w+",
    "docker": r"docker.+|  -v .+",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its lines, and why it is not run (empty: it is)."""

    language: str
    code: str
    needs: str


def blocks(text: str, language: str = "") -> list[Block]:
    found = (Block(one["language"], one["code"], one["needs"] or "") for one in BLOCK.finditer(text))
    return [block for block in found if language in {"", block.language}]


def section(heading: str) -> str:
    """What stands below a heading of the English README, up to the next of its rank or a higher one."""
    rank = heading.split(maxsplit=1)[0]
    found = re.search(rf"^{re.escape(heading)}.*?\n(.*?)(?=^#{{1,{len(rank)}}} |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found.group(1)


# The two languages


def bare(code: str) -> str:
    """Code without its comments, which are in the language of the reader."""
    return re.sub(r"[ \t]*(?<!\S)#[^\n]*", "", code)


def spans(text: str) -> list[str]:
    """What is written as code within a text: names and values, the same in every language, in whichever order."""
    return sorted(" ".join(found.split()) for found in re.findall(r"`+([^`]+)`+", text))


def rows(text: str) -> list[list[str]]:
    """The cells of all tables' rows."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in re.findall(r"^\|.*\|$", text, re.MULTILINE)]


def outline(text: str) -> list[object]:
    """All of a README that does not depend on its language."""
    prose = BLOCK.sub("", text)
    parts = re.split(r"^#+ .*$", prose, flags=re.MULTILINE)
    return [
        [(block.language, bare(block.code), block.needs) for block in blocks(text)],
        [heading.count("#") for heading in re.findall(r"^#+ ", prose, re.MULTILINE)],
        [[[spans(cell) for cell in row] for row in rows(part)] for part in parts],
        [re.findall(r"\]\(([^)]+)\)", part) for part in parts],
        [len(re.findall(r"^- ", part, re.MULTILINE)) for part in parts],
        [spans(part) for part in parts],
    ]


def test_the_readmes_are_in_step() -> None:
    chinese = CHINESE.read_text(encoding="utf-8")
    for of_english, of_chinese in zip(outline(README), outline(chinese), strict=True):
        assert of_english == of_chinese
    for (of_english, *_), (of_chinese, *_) in zip(rows(README), rows(chinese), strict=True):
        assert of_english == of_chinese or not of_chinese.isascii()


@pytest.mark.parametrize(
    ("was", "is_"),
    [
        ("make demo\n", "make demos\n"),
        ("<!-- needs: docker -->\n", ""),
        ("#### ", "### "),
        ("| `PORT` | `8001` |", "| `PORT` | `8002` |"),
        ("| `PORT` |", "| `POORT` |"),
        ("\n- Edited files", "\nEdited files"),
        ("](docs/files.md)", "](docs/tools.md)"),
        ("`retry-after`", "retry-after"),
    ],
)
def test_a_readme_that_is_out_of_step_would_be_seen(was: str, is_: str) -> None:
    assert was in README
    assert outline(README.replace(was, is_, 1)) != outline(README)


def test_a_comment_in_a_block_may_be_in_another_language() -> None:
    assert bare("cp a b  # both\n") == bare("cp a b # 两个\n") == "cp a b\n"
    assert bare("a#b\n") == "a#b\n"


# What they name


@READMES
def test_a_readme_tells_settings_as_they_are(path: Path) -> None:
    defaults = {variable.name: variable.default for variable in variables()}
    told = dict(
        re.findall(r"^\| `([A-Z][A-Z0-9_]+)` \| (?:`(.*?)`)? ?\|", path.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert "VALID_API_KEY" in told
    assert told == {name: defaults.get(name) for name in told}


def test_each_command_is_run_or_says_what_it_needs() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    of_test_cli = (ROOT / "tests" / "test_cli.py").read_text(encoding="utf-8")
    assert "test_the_commands_of_the_readme_work" in of_test_cli
    assert "test_the_programs_of_the_readme_work" in of_test_cli
    steps = section("## Use it")
    for block in blocks(README):
        if block.needs:
            assert all(re.fullmatch(NOT_RUN[block.needs], line) for line in block.code.splitlines()), block
        elif block.language == "sh" and block not in blocks(steps):
            assert re.fullmatch(r"make ([a-z]+)\n", block.code), block
            assert block.code.split()[1] in targets
        elif block.language == "bash":
            assert block.code.startswith("curl "), block
        else:
            assert block.language in {"python", "sh", "dotenv"}, block


def test_the_scripts_it_names_are_there() -> None:
    scripts = set(re.findall(r"\bpython ([\w/]+\.py)", README))
    assert {"k2think_proxy.py", "get_tokens.py", "check_config_simple.py"} <= scripts
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


# The steps

WAYS = re.findall(r"^#### .+$", README, re.MULTILINE)


@dataclass
class Reader:
    """Somebody who does what the README says, in a folder of their own."""

    folder: Path
    upstream: str

    def follow(self, text: str) -> None:
        """Run the commands, and write what is to be written."""
        for block in blocks(text, "sh"):
            printed = "" if block.needs else self._run(block.code)
            for key in re.findall(r"^sk-\S+$", printed, re.MULTILINE):
                self.set("VALID_API_KEY", key)
        for name, value in re.findall(r"^`?([A-Z][A-Z_\d]+)=([^\s`]+)", text.replace(" `", "\n`"), re.MULTILINE):
            self.set(name, re.sub(r"^https?://[^/]+", self.upstream, value))
        for line in re.findall(r'`(\{"email".+?\})`', text):
            self._append("data/accounts.txt", line)

    def set(self, name: str, value: str) -> None:
        env = self.folder / ".env"
        kept = [line for line in env.read_text(encoding="utf-8").splitlines() if not line.startswith(f"{name}=")]
        env.write_text("\n".join([*kept, f"{name}={value}", ""]), encoding="utf-8")

    def put_tokens(self) -> None:
        """Write a token where the file for them was made."""
        if (self.folder / "data" / "tokens.txt").exists():
            self._append("data/tokens.txt", mint_token("one@example.com"))

    def _append(self, name: str, line: str) -> None:
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def _run(self, code: str) -> str:
        python = f"{Path(sys.executable).parent}:{PLAIN['PATH']}"
        done = subprocess.run(
            ["bash", "-ec", code],
            env=PLAIN | {"PATH": python},
            cwd=self.folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def ask_as_the_readme_does(url: str, key: str, folder: Path) -> None:
    program = blocks(README, "python")[0].code.replace(DEMO_URL, url).replace(DEMO_KEY, key)
    path = folder / "ask.py"
    path.write_text(program, encoding="utf-8")
    runpy.run_path(str(path), run_name="__main__")


def test_there_are_four_ways() -> None:
    assert len(WAYS) == 4


@pytest.mark.parametrize("way", WAYS)
def test_the_steps_lead_to_an_answer(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (".env.example", "data/tokens.example.txt", "data/accounts.example.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for variable in variables():
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.chdir(tmp_path)
    keys = re.findall(r"UPSTREAM_API_KEY=(\S+)", section(way))
    simulator = create_simulator(SimulatorOptions(models=(MODEL,), openai_key=keys[0] if keys else None))
    with serving(simulator) as upstream:
        reader = Reader(tmp_path, upstream)
        reader.follow(section("### 2."))
        reader.set("K2THINK_API_URL", f"{upstream}/api/chat/completions")
        reader.follow(section(way))
        reader.put_tokens()
        reader.set("HOST", "127.0.0.1")
        reader.set("PORT", "0")

        assert section("### 4.").count("python check_config_simple.py\npython k2think_proxy.py\n") == 1
        with pytest.raises(SystemExit) as checked:
            main(["check"])
        assert checked.value.code == 0, capsys.readouterr().out

        settings = Settings.load({}, directory=tmp_path)
        (key,) = settings.access.valid_api_key
        assert len(key.get_secret_value()) > 30
        with serving(create_app(settings)) as url:
            capsys.readouterr()
            ask_as_the_readme_does(url, key.get_secret_value(), tmp_path)
            assert "[content] 17 * 23 = 391" in capsys.readouterr().out


# The picture


def words(text: str) -> str:
    """A text without its blanks: lines of the picture end elsewhere."""
    return "".join(text.split())


def test_the_picture_shows_what_is_printed_today(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask_as_the_readme_does(stage.url, KEY, tmp_path)
    shown = words("".join(ET.parse(PICTURE).getroot().itertext()))
    renew = "renew it: python docs/picture.py"
    assert words("the answers are simulated") in shown, renew
    for line in capsys.readouterr().out.split("\n"):
        assert words(line) in shown, renew


def test_the_picture_fetches_and_runs_nothing() -> None:
    drawing = PICTURE.read_text(encoding="utf-8")
    assert not re.search(r"@font-face|@import|url\((?!#)|href|<script|<image|<foreignObject|\son\w+=", drawing)
