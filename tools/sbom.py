"""Writes what the gateway is made of as CycloneDX JSON: `python tools/sbom.py >sbom.json`.

It tells what requirements.txt installs, which is what an image holds, and nothing that it would have to guess: who
needs whom is told of the gateway alone. The same sources give the same bill, byte for byte; nothing need be installed.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)\s*(?:;\s*(?P<marker>[^\\]+?))?\s*\\?")
_NAME = re.compile(r"[A-Za-z0-9._-]+")


class Unreadable(Exception):
    """A file of the project is not written as this program expects; the message says which and where."""


def bill(root: Path) -> dict[str, Any]:
    """The bill of the project in this folder."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    gateway = reference(project["name"], version(root))
    components = pinned((root / "requirements.txt").read_text(encoding="utf-8"))
    by_name = {component["name"]: component["bom-ref"] for component in components}
    direct = sorted(by_name[normal(requirement)] for requirement in project["dependencies"])
    content: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "pre-build"}],
            "component": {
                "type": "application",
                "bom-ref": gateway,
                "name": project["name"],
                "version": version(root),
                "description": project["description"],
                "licenses": [{"license": {"id": project["license"]}}],
                "purl": gateway,
            },
        },
        "components": components,
        "dependencies": [{"ref": gateway, "dependsOn": direct}],
    }
    # A number of its own for each content, and the same one for the same content.
    number = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(content, sort_keys=True))
    return {"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "serialNumber": number.urn, **content}


def version(root: Path) -> str:
    """The version of the gateway, from the one place where it stands."""
    found = _VERSION.search((root / "src" / "k2think" / "__init__.py").read_text(encoding="utf-8"))
    if not found:
        raise Unreadable('src/k2think/__init__.py: there is no line __version__ = "…".')
    return found.group(1)


def pinned(requirements: str) -> list[dict[str, Any]]:
    """A component for each requirement, by name. What holds only on some systems says where."""
    components = []
    for number, line in enumerate(requirements.splitlines(), 1):
        if not line.strip() or line.startswith((" ", "#")):  # hashes and comments
            continue
        pin = _PIN.fullmatch(line)
        if not pin:
            raise Unreadable(f"requirements.txt, line {number}: this is no NAME==VERSION.")
        name = normal(pin["name"])
        purl = reference(name, pin["version"])
        component: dict[str, Any] = {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": pin["version"],
            "purl": purl,
        }
        if pin["marker"]:
            component["properties"] = [{"name": "k2think:marker", "value": pin["marker"]}]
        components.append(component)
    return sorted(components, key=lambda component: str(component["name"]))


def normal(requirement: str) -> str:
    """The name that a requirement begins with, as package indexes write it."""
    found = _NAME.match(requirement)
    if not found:
        raise Unreadable(f"{requirement!r} does not begin with a package's name.")
    return re.sub(r"[-_.]+", "-", found.group()).lower()


def reference(name: str, version: str) -> str:
    """A package on PyPI, as a package URL."""
    return f"pkg:pypi/{name}@{version}"


if __name__ == "__main__":
    json.dump(bill(ROOT), sys.stdout, indent=2)
    sys.stdout.write("\n")
