"""The kinds of values that settings have: how a text becomes one, and what to tell a person whose text does not.

A validator's ValueError completes the sentence "VARIABLE …" and never quotes the value; who may quote it decides.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

Feature: TypeAlias = Literal["tools", "json_object", "json_schema"]
FEATURES: frozenset[Feature] = frozenset(get_args(Feature))


@dataclass(frozen=True, slots=True)
class Kind:
    """In words: what may stand there, and an example where the default is none. A `secret` value is never shown."""

    allowed: str
    example: str = ""
    secret: bool = False


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part for part in map(str.strip, value.split(",")) if part)
    return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _level(value: Any) -> Any:
    if isinstance(value, str):
        return {"WARN": "WARNING", "FATAL": "CRITICAL"}.get(value.upper(), value.upper())
    return value


def _strategy(value: Any) -> Any:
    return value.lower().replace("-", "_") if isinstance(value, str) else value


def _native(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    names = _split(_strategy(value))
    if names in {("auto",), ("none",)}:
        return "auto" if names == ("auto",) else ()
    if not names or not FEATURES.issuperset(names):
        raise ValueError("holds something that is no feature.")
    return tuple(dict.fromkeys(names))


def _host(value: str) -> str:
    value = value.removeprefix("[").removesuffix("]")
    if "/" in value or " " in value:
        raise ValueError("is not an address to listen on.")
    if ":" in value:
        try:
            ipaddress.IPv6Address(value.partition("%")[0])
        except ValueError:
            raise ValueError("is not an address to listen on (the port has its own variable, PORT).") from None
    return value


def _url_fault(value: str) -> str:
    """Why this is no usable URL, or nothing."""
    if any(character.isspace() or not character.isprintable() for character in value):
        return "has a blank in it."
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a URL (look at its host and port)."
    if "://" not in value:
        return "has no http:// or https:// in front."
    if parts.scheme not in {"http", "https"}:
        return "begins with neither http:// nor https://."
    return "" if host else "names no host."


def _upstream_url(value: str) -> str:
    if fault := _url_fault(value):
        raise ValueError(fault)
    parts = urlsplit(value)
    if "@" in parts.netloc:
        raise ValueError("has a user name or password in it.")
    if parts.query or parts.fragment:
        raise ValueError("has a '?' or '#' part.")
    return value


def _proxy_url(value: SecretStr | None) -> SecretStr | None:
    if value is not None and (fault := _url_fault(value.get_secret_value())):
        raise ValueError(fault)
    if value is not None and not _latin(unquote(value.get_secret_value())):
        raise ValueError("holds a character that cannot stand in a user name or password.")
    return value


def _latin(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    origins = tuple(origin.rstrip("/") for origin in value)
    if any(origin != "*" and _url_fault(origin) for origin in origins):
        raise ValueError("holds something that is no origin.")
    return origins


def _keys(value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if any(_not_for_headers(key) for key in value):
        raise ValueError("holds a character that an HTTP header cannot carry.")
    return value


def _key(value: SecretStr | None) -> SecretStr | None:
    if value is not None and _not_for_headers(value):
        raise ValueError("holds a character that an HTTP header cannot carry.")
    return value


def _not_for_headers(key: SecretStr) -> bool:
    text = key.get_secret_value()
    return not (text.isascii() and text.isprintable())


def _aliases(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    aliases: dict[str, str] = {}
    for pair in _split(value):
        name, _, model = map(str.strip, pair.partition("="))
        if not name or not model:
            raise ValueError("holds something that is not name=model.")
        aliases[name] = model
    return aliases


def _template(value: str) -> str:
    missing = [name for name in ("{trigger_signal}", "{tools_list}") if name not in value]
    if value and missing:
        raise ValueError(f"does not hold {' and '.join(missing)}, so the model would never see the tools.")
    return value


Flag: TypeAlias = Annotated[bool, Kind("true or false")]
Port: TypeAlias = Annotated[int, Field(ge=0, le=65535), Kind("a whole number from 0 to 65535")]
Count: TypeAlias = Annotated[int, Field(ge=1), Kind("a whole number from 1 up")]
CountOrNone: TypeAlias = Annotated[int, Field(ge=0), Kind("a whole number from 0 up")]
Few: TypeAlias = Annotated[int, Field(ge=0, le=5), Kind("a whole number from 0 to 5")]
Seconds: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False), Kind("a number of seconds above 0")]
SecondsOrNone: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False), Kind("a number of seconds from 0 up")]
Minutes: TypeAlias = Annotated[float, Field(ge=60, allow_inf_nan=False), Kind("a number of seconds from 60 up")]
Grace: TypeAlias = Annotated[float, Field(gt=0, le=3600), Kind("a number of seconds above 0, at most 3600")]
Hours: TypeAlias = Annotated[float, Field(ge=3600, allow_inf_nan=False), Kind("a number of seconds from 3600 up")]
Name: TypeAlias = Annotated[str, Kind("a name")]
File: TypeAlias = Annotated[Path, Kind("the path of a file")]
Folder: TypeAlias = Annotated[Path, Kind("the path of a folder")]
Host: TypeAlias = Annotated[str, AfterValidator(_host), Kind("an address of this machine or 0.0.0.0 for all")]
Origins: TypeAlias = Annotated[
    tuple[str, ...],
    BeforeValidator(_split),
    AfterValidator(_origins),
    Kind("* or origins, comma-separated, such as https://chat.example.com"),
]
ApiKeys: TypeAlias = Annotated[
    tuple[SecretStr, ...],
    BeforeValidator(_split),
    AfterValidator(_keys),
    Kind("keys of plain ASCII letters, digits and signs, comma-separated", "sk-…", secret=True),
]
ApiKey: TypeAlias = Annotated[
    SecretStr | None,
    AfterValidator(_key),
    Kind("a key of plain ASCII letters, digits and signs", "sk-…", secret=True),
]
UpstreamUrl: TypeAlias = Annotated[
    str, AfterValidator(_upstream_url), Kind("the http:// or https:// URL of a chat endpoint")
]
ProxyUrl: TypeAlias = Annotated[
    SecretStr | None,
    AfterValidator(_proxy_url),
    Kind("the URL of an HTTP proxy", "http://user:password@host:port", secret=True),
]
Aliases: TypeAlias = Annotated[
    Mapping[str, str],
    BeforeValidator(_aliases),
    Kind("name=model pairs, comma-separated", "gpt-4o=MBZUAI-IFM/K2-Think"),
]
Template: TypeAlias = Annotated[
    str,
    AfterValidator(_template),
    Kind(
        "a text that holds both {trigger_signal} and {tools_list}",
        '"Tools: {tools_list} Begin a call with {trigger_signal}"',
    ),
]
Protocol: TypeAlias = Annotated[
    Literal["auto", "k2think", "openai"], BeforeValidator(_lower), Kind("auto, k2think or openai")
]
Native: TypeAlias = Annotated[
    Literal["auto"] | tuple[Feature, ...],
    BeforeValidator(_native),
    Kind("auto, none, or names out of tools, json_object and json_schema, comma-separated"),
]
Vision: TypeAlias = Annotated[bool | Literal["auto"], BeforeValidator(_lower), Kind("auto, true or false")]
Strategy: TypeAlias = Annotated[
    Literal["round_robin", "least_busy", "sticky"],
    BeforeValidator(_strategy),
    Kind("round_robin, least_busy or sticky"),
]
ReasoningFormat: TypeAlias = Annotated[
    Literal["parsed", "raw", "hidden"], BeforeValidator(_lower), Kind("parsed, raw or hidden")
]
Opener: TypeAlias = Annotated[
    Literal["auto", "present", "implied"], BeforeValidator(_lower), Kind("auto, present or implied")
]
FileMode: TypeAlias = Annotated[Literal["text", "upstream"], BeforeValidator(_lower), Kind("text or upstream")]
ImageMode: TypeAlias = Annotated[Literal["refuse", "describe"], BeforeValidator(_lower), Kind("refuse or describe")]
ToolStreaming: TypeAlias = Annotated[Literal["live", "checked"], BeforeValidator(_lower), Kind("live or checked")]
LogFormat: TypeAlias = Annotated[Literal["text", "json"], BeforeValidator(_lower), Kind("text or json")]
LogLevel: TypeAlias = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(_level),
    Kind("DEBUG, INFO, WARNING, ERROR or CRITICAL"),
]
