"""The settings: read once at the start, checked, then handed around. Nothing else reads the environment.

    Settings.load(environ, directory=…, beside=…)   everything that is wrong at once, as SettingsError
    settings.server.port                            a section per component, a field per variable, in lower case

The real environment wins over `.env`; an empty value counts as not set. `.env` is the one in the working directory,
else the one beside the script that was started. Relative paths are meant from where `.env` is.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from k2think.settings.env_file import read_env_file
from k2think.settings.example import SECTIONS, text_of, variables
from k2think.settings.faults import Fault, SettingsError, shown
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

__all__ = [
    "Access",
    "Credentials",
    "Fault",
    "Files",
    "Logging",
    "Server",
    "Settings",
    "SettingsError",
    "Storage",
    "Thinking",
    "Tools",
    "Upstream",
]

_SIMULATED_STREAM = ("STREAM_DELAY", "STREAM_CHUNK_SIZE", "MAX_STREAM_TIME")


class Settings(BaseModel):
    """All sections. `env_file` is the `.env` that was read, if any; `warnings` are for the log at the start."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    access: Access
    server: Server = Server()
    upstream: Upstream = Upstream()
    credentials: Credentials = Credentials()
    storage: Storage = Storage()
    thinking: Thinking = Thinking()
    tools: Tools = Tools()
    files: Files = Files()
    logging: Logging = Logging()
    env_file: Path | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        directory: Path | None = None,
        beside: Path | None = None,
        overrides: Mapping[str, str] | None = None,
    ) -> Settings:
        """Read and check everything; raise `SettingsError` with all that is wrong.

        `directory` stands for the working directory, `beside` is the folder of the script that was started;
        `overrides` win over both sources (the command line's options).
        """
        directory = (directory or Path.cwd()).absolute()
        env_file = _find_env_file(directory, beside)
        written, faults = read_env_file(env_file) if env_file else ({}, [])
        environ = os.environ if environ is None else environ
        given = {
            name: text
            for source in (written, environ, overrides or {})
            for name, value in source.items()
            if (text := value.strip())
        }
        sections: dict[str, Any] = {name: _section(kind, given, faults) for name, kind in SECTIONS.items()}
        if faults:
            raise SettingsError(tuple(faults))
        base = env_file.parent if env_file else directory
        sections["credentials"], unused = _placed(sections["credentials"], given, base, beside)
        for section, folder in (("storage", "state_dir"), ("files", "data_dir")):
            written_so: Path = getattr(sections[section], folder)
            sections[section] = sections[section].model_copy(update={folder: base / written_so.expanduser()})
        warnings = unused + _warnings(given, written, environ, sections["upstream"], sections["files"])
        if sections["server"].workers > 1 and not hasattr(os, "fork"):
            sections["server"] = sections["server"].model_copy(update={"workers": 1})
            warnings += ("WORKERS is ignored: this system serves with one process only.",)
        return cls(**sections, env_file=env_file, warnings=warnings)


def _find_env_file(directory: Path, beside: Path | None) -> Path | None:
    folders = [directory] if beside is None else [directory, beside.absolute()]
    return next((path for folder in folders if (path := folder / ".env").exists()), None)


def _section(kind: type[Section], given: Mapping[str, str], faults: list[Fault]) -> Section | None:
    values = {name: given[name.upper()] for name in kind.model_fields if name.upper() in given}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        # One fault for each variable: a list's second bad member adds nothing.
        first = {detail["loc"][0]: detail for detail in reversed(error.errors(include_input=False))}
        faults.extend(
            _fault(name.upper(), first[name], field, given)
            for name, field in kind.model_fields.items()
            if name in first
        )
        return None


def _fault(variable: str, detail: ErrorDetails, field: FieldInfo, given: Mapping[str, str]) -> Fault:
    kind = next(extra for extra in field.metadata if isinstance(extra, Kind))
    if detail["type"] in {"missing", "too_short"}:
        return Fault(
            variable,
            "is not set.",
            f"Put {variable}={kind.example} into .env (any secret of your own; clients send it as their API key).",
        )
    reason = detail.get("ctx", {}).get("error")
    value = given[variable]
    # Neither a secret is quoted nor what may hold one, such as a URL with a password.
    quotable = not kind.secret and "@" not in value
    if reason is None:
        problem = f"is {shown(value)}." if quotable else "cannot be used."
    else:
        problem = f"is {shown(value)} and {reason}" if quotable else str(reason)
    example = kind.example or text_of(field.default)
    return Fault(variable, problem, f"Write {kind.allowed}, for example {variable}={example}")


def _placed(
    credentials: Credentials, given: Mapping[str, str], base: Path, beside: Path | None
) -> tuple[Credentials, tuple[str, ...]]:
    """With absolute paths: a file that nobody named is looked for where the documented steps may have put it.

    Gives besides what is to be said of files that are there too.
    """
    places = {
        "accounts_file": (base, base / "data"),
        "tokens_file": (base, base / "data"),
        "get_tokens_script": (base, *([beside.absolute()] if beside else [])),
    }
    paths: dict[str, Path] = {}
    unused = []
    for name, folders in places.items():
        path: Path = getattr(credentials, name)
        candidates = [folder / path.expanduser() for folder in folders]
        # What lies where this user may not look counts as not there.
        found = [candidate for candidate in candidates if os.path.exists(candidate)]  # noqa: PTH110 - may raise there
        if name.upper() in given and name != "get_tokens_script":
            found = []  # it has its place; only a script may still be beside the one that was started
        elif name == "tokens_file" and not found and paths["accounts_file"].parent == base / "data":
            found = candidates[1:]  # beside the accounts that tokens are made from
        paths[name] = (found or candidates)[0]
        if len(found) > 1 and name != "get_tokens_script":
            unused.append(f"{found[1]} is not used, because {found[0]} is there too. {name.upper()} says which it is.")
    return credentials.model_copy(update=paths), tuple(unused)


def _warnings(
    given: Mapping[str, str],
    written: Mapping[str, str],
    environ: Mapping[str, str],
    upstream: Upstream,
    files: Files,
) -> tuple[str, ...]:
    warnings = []
    if ignored := [name for name in _SIMULATED_STREAM if name in given]:
        names, are, they = (", ".join(ignored), *(("are", "they") if len(ignored) > 1 else ("is", "it")))
        warnings.append(f"{names} {are} ignored: {they} shaped a simulated stream, and streams are real here.")
    if not urlsplit(upstream.k2think_api_url).path.rstrip("/").endswith("/completions"):
        warnings.append(
            f"K2THINK_API_URL {shown(upstream.k2think_api_url)} does not end in /chat/completions: it must be the chat "
            "endpoint itself, not its server."
        )
    if upstream.protocol == "k2think" and upstream.upstream_native not in {"auto", ()}:
        warnings.append(
            "UPSTREAM_NATIVE is ignored: K2-Think's web service has no tools or JSON answers of its own (see "
            "UPSTREAM_PROTOCOL)."
        )
    if upstream.protocol == "openai" and files.file_mode == "upstream":
        warnings.append(
            "FILE_MODE=upstream is ignored: only K2-Think's web service takes files (see UPSTREAM_PROTOCOL). Their "
            "texts are put into the question."
        )
    known = {variable.name for variable in variables()} | set(_SIMULATED_STREAM)
    # The environment is full of other programs' variables: only what is a letter away is meant for us.
    places = ((".env", written, 0.85), ("the environment", [name for name in environ if name not in written], 0.93))
    warnings += [
        f"{name} in {place} is no setting. Did you mean {close[0]}?"
        for place, names, likeness in places
        for name in names
        if name not in known and (close := difflib.get_close_matches(name.upper(), known, n=1, cutoff=likeness))
    ]
    return tuple(warnings)
