"""What is published: one version, packages that hold what they must and no more, workflows that may do little.

The packages are built where hatchling is installed (`make dist` does it); the workflow `test` installs them.
"""

from __future__ import annotations

import email
import importlib
import importlib.util
import json
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import PLAIN, ROOT
from waiting import PATIENCE

import k2think

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SBOM = ROOT / "tools" / "sbom.py"


def name_of(path: Path) -> str:
    return path.name


# The version and what pyproject.toml says


def test_the_version_stands_in_one_place() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(a\d+|b\d+|rc\d+)?", k2think.__version__)
    assert "version" in PROJECT["dynamic"]
    assert "version" not in PROJECT
    path = ROOT / PYPROJECT["tool"]["hatch"]["version"]["path"]
    assert path.read_text(encoding="utf-8").count(f'"{k2think.__version__}"') == 1
    written = [name for name in ("Dockerfile", "docker-compose.yml", "Makefile") if k2think.__version__ in read(name)]
    assert written == []


def test_the_change_log_begins_with_what_is_new() -> None:
    headings = re.findall(r"^## (.+)$", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0].split()[0] in {"Unreleased", k2think.__version__}


def test_the_command_leads_somewhere() -> None:
    module, _, function = PROJECT["scripts"][PROJECT["name"]].partition(":")  # of the same name: `pipx run k2think`
    assert callable(getattr(importlib.import_module(module), function))


def test_every_python_that_is_named_is_tested() -> None:
    named = re.findall(r"^Programming Language :: Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
    (matrix,) = re.findall(r"python: \[(.+)\]", read(".github/workflows/test.yml"))
    assert re.findall(r'"(.+?)"', matrix) == named
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == named[0]


def test_what_builds_the_packages_is_pinned() -> None:
    pins = read("requirements-build.txt")
    assert PYPROJECT["build-system"]["requires"] == PYPROJECT["dependency-groups"]["build"]
    assert re.search(r"^hatchling==", pins, re.MULTILINE)
    for requirement in re.split(r"\n(?=\S)", pins.strip()):
        assert re.match(r"[\w.-]+==\S+", requirement)
        assert "--hash=sha256:" in requirement
    # It is installed beside what the tests need.
    others = dict(re.findall(r"^([\w.-]+)==(\S+)", read("requirements-dev.txt"), re.MULTILINE))
    mine = dict(re.findall(r"^([\w.-]+)==(\S+)", pins, re.MULTILINE))
    assert {name: others.get(name, pin) for name, pin in mine.items()} == mine


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# The packages


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the packages, built in a working tree where secrets lie about."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: make dist")
    tree = tmp_path_factory.mktemp("tree")
    for name in (
        ".env.example",
        ".gitignore",
        "CHANGELOG.md",
        "LICENSE",
        "README.md",
        "README.zh-CN.md",
        "pyproject.toml",
    ):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "data").mkdir()
    (tree / "tests").mkdir()
    for name in (
        ".env",
        "tokens.txt",
        "tokens.txt.backup",
        "accounts.txt",
        "data/tokens.txt",
        "notes.txt",
        "tests/a.py",
    ):
        (tree / name).write_text("hunter2\n")
    (tree / "src" / "k2think" / "__pycache__").mkdir()
    (tree / "src" / "k2think" / "__pycache__" / "old.pyc").write_text("hunter2\n")
    build(tree, tree / "dist")
    return tree / "dist"


def build(tree: Path, into: Path, *kinds: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(into), *kinds],
        cwd=tree,
        env=PLAIN,
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )


def package() -> set[str]:
    files = (path for path in (ROOT / "src" / "k2think").rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT / "src")) for path in files if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (path,) = built.glob("*.whl")
    assert path.name == f"k2think-{k2think.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        info = f"k2think-{k2think.__version__}.dist-info"
        assert {name for name in names if not name.startswith(info)} == package()
        assert "k2think/py.typed" in names
        assert f"{info}/licenses/LICENSE" in names
        metadata = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
        scripts = wheel.read(f"{info}/entry_points.txt").decode()
    assert metadata["Version"] == k2think.__version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "k2think = k2think.cli:main" in scripts


def test_the_source_package_holds_what_it_takes_to_build_and_no_secret(built: Path, tmp_path: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    folder = f"k2think-{k2think.__version__}"
    with tarfile.open(path) as source:
        names = {name.removeprefix(f"{folder}/") for name in source.getnames()}
        source.extractall(tmp_path, filter="data")
    beside = {name for name in names if not name.startswith("src/")}
    assert beside == {
        ".env.example",
        ".gitignore",
        "CHANGELOG.md",
        "LICENSE",
        "PKG-INFO",
        "README.md",
        "README.zh-CN.md",
        "pyproject.toml",
    }
    assert {name.removeprefix("src/") for name in names - beside} == package()
    build(tmp_path / folder, tmp_path / "again", "-t", "wheel")
    (first,), (again,) = built.glob("*.whl"), (tmp_path / "again").glob("*.whl")
    assert first.read_bytes() == again.read_bytes()


def test_the_wheel_runs_by_itself(built: Path, tmp_path: Path) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        wheel.extractall(tmp_path / "installed")
    program = "import k2think.cli as c; print(c.__file__); c.main(['--version'])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=PLAIN | {"PYTHONPATH": str(tmp_path / "installed"), "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout.splitlines() == [str(tmp_path / "installed" / "k2think" / "cli.py"), k2think.__version__]


# The bill of materials


@pytest.fixture(scope="module")
def sbom() -> dict[str, Any]:
    return runpy.run_path(str(SBOM))


def test_the_bill_names_everything_that_is_installed() -> None:
    written = subprocess.run([sys.executable, str(SBOM)], env=PLAIN, check=True, capture_output=True, timeout=PATIENCE)
    bill = json.loads(written.stdout)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    pins = re.findall(r"^([\w.-]+)==(\S+)", read("requirements.txt"), re.MULTILINE)
    assert [(part["name"], part["version"]) for part in bill["components"]] == sorted(pins)
    assert len(pins) > 30
    assert all(part["purl"] == f"pkg:pypi/{part['name']}@{part['version']}" for part in bill["components"])
    gateway = bill["metadata"]["component"]
    assert (gateway["name"], gateway["version"]) == ("k2think", k2think.__version__)
    (own,) = bill["dependencies"]
    assert own["ref"] == gateway["bom-ref"]
    assert len(own["dependsOn"]) == len(PROJECT["dependencies"])
    assert set(own["dependsOn"]) < {part["bom-ref"] for part in bill["components"]}
    windows = [part["name"] for part in bill["components"] if "win32" in str(part.get("properties"))]
    assert windows == ["colorama", "uvloop"]


def test_the_bill_is_the_same_each_time_and_another_for_other_parts(sbom: dict[str, Any], tmp_path: Path) -> None:
    bill: Callable[[Path], dict[str, Any]] = sbom["bill"]
    assert bill(ROOT) == bill(ROOT)
    (tmp_path / "src" / "k2think").mkdir(parents=True)
    for name in ("pyproject.toml", "src/k2think/__init__.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "requirements.txt").write_text(read("requirements.txt") + "zz.Other_one==1.0 \\\n")
    other = bill(tmp_path)
    assert other["components"][-1]["name"] == "zz-other-one"
    assert other["serialNumber"] != bill(ROOT)["serialNumber"]


def test_a_requirement_that_is_not_pinned_is_told_with_its_line(sbom: dict[str, Any]) -> None:
    with pytest.raises(sbom["Unreadable"], match=r"^requirements\.txt, line 2: this is no NAME==VERSION\.$"):
        sbom["pinned"]("good==1.0 \\\nbad>=1.0\n")


# The workflows


def test_there_are_workflows() -> None:
    assert {path.stem for path in WORKFLOWS} == {"image", "release", "test"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_a_workflow_may_do_no_more_than_it_must(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    (top,) = re.findall(r"^permissions:(.*(?:\n  .+)*)", text, re.MULTILINE)
    assert top.strip() in {"{}", "contents: read"}
    assert "write-all" not in text
    assert "pull_request_target" not in text
    assert "secrets." not in text  # what is published, is published by trust in this repository


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_a_workflow_uses_releases_of_actions(path: Path) -> None:
    used = re.findall(r"uses: (\S+)", path.read_text(encoding="utf-8"))
    assert used
    for action in used:
        here = action.startswith("./") and (ROOT / action).is_file()
        assert here or re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", action), action


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_a_workflow_runs_what_there_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    targets = re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE)
    for words in re.findall(r"run: make (.+)", text):
        assert set(words.split()) <= set(targets)
    for line in text.splitlines():
        # In a command it would be run, whatever somebody has named a branch: it belongs into a field of its own.
        assert "${{" not in line or re.match(r" +(?!run:)[\w-]+: ", line), line


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_every_job_of_a_workflow_ends(path: Path) -> None:
    jobs = re.split(r"^  (?=[\w-]+:$)", path.read_text(encoding="utf-8").partition("\njobs:\n")[2], flags=re.MULTILINE)
    for job in filter(str.strip, jobs):
        assert re.search(r"^    (timeout-minutes: \d+|uses: \./)", job, re.MULTILINE), job.splitlines()[0]
