"""All settings as a list, and the `.env` that shows them: what is documented cannot differ from what is read."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from k2think.settings.kinds import Kind
from k2think.settings.sections import (
    Access,
    Credentials,
    Files,
    Logging,
    Section,
    Server,
    Storage,
    Thinking,
    Tools,
    Upstream,
)

SECTIONS: Mapping[str, type[Section]] = {
    "access": Access,
    "server": Server,
    "upstream": Upstream,
    "credentials": Credentials,
    "storage": Storage,
    "thinking": Thinking,
    "tools": Tools,
    "files": Files,
    "logging": Logging,
}

# Beside the default, the documented steps put these two here; both places are looked into.
_SHOWN_INSTEAD = {"TOKENS_FILE": "data/tokens.txt", "ACCOUNTS_FILE": "data/accounts.txt"}


@dataclass(frozen=True, slots=True)
class Variable:
    """One setting, for people: `default` as it would be written in `.env`, empty where there is none."""

    name: str
    section: str
    default: str
    description: str
    allowed: str
    required: bool
    secret: bool


def variables() -> Iterator[Variable]:
    """Every setting, in the order of the sections."""
    for title, section in SECTIONS.items():
        for name, field in section.model_fields.items():
            kind = next(extra for extra in field.metadata if isinstance(extra, Kind))
            yield Variable(
                name=name.upper(),
                section=title,
                default=text_of(field.default),
                description=field.description or "",
                allowed=kind.allowed,
                required=field.is_required(),
                secret=kind.secret,
            )


def text_of(default: Any) -> str:
    """A default as it would be written in `.env`. A secret has none."""
    match default:
        case bool():
            return str(default).lower()
        case float() if default.is_integer():
            return str(int(default))
        case tuple():
            return ",".join(map(str, default))
        case Mapping():
            return ",".join(f"{name}={model}" for name, model in default.items())
        case None | SecretStr():
            return ""
        case _:
            return "" if default is PydanticUndefined else str(default)


def example() -> str:
    """A complete `.env`: what must be filled in stands open, everything else stands as a comment with its default."""
    lines = ["# Settings of the K2Think API Proxy. Copy this file to .env and fill in VALID_API_KEY."]
    lines += ["# All the rest is optional: a line with a # in front shows the default."]
    title = ""
    for variable in variables():
        if variable.section != title:
            title = variable.section
            about = SECTIONS[title].__doc__ or ""
            lines += ["", "", f"# {title.upper()}: {about}"]
        value = _SHOWN_INSTEAD.get(variable.name, variable.default)
        mark = "" if variable.required else "# "
        lines += ["", *textwrap.wrap(f"# {variable.description}", 110, subsequent_indent="# ", break_on_hyphens=False)]
        lines += [f"{mark}{variable.name}={value}"]
    return "\n".join(lines) + "\n"
