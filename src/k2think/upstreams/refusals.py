"""What an upstream's refusal means: status, headers and body become one of our errors. Pure.

The classes are drawn in `errors.py`; which answers fall into which was learned from recordings of Open WebUI. The one
fact that everything hangs on: Open WebUI speaks for itself with `{"detail": …}` and passes the model server's words on
as `{"error": …}`, with the model server's status. So a 401 may be about the server's key, not about our token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from k2think.errors import (
    CredentialRejected,
    EdgeBlocked,
    QuotaExceeded,
    RequestRefused,
    UpstreamError,
    UpstreamModelUnknown,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from k2think.upstreams.waits import wait_in, wait_of

MAX_MESSAGE = 500
"""Characters of an upstream's own words that are passed on."""

PASSED_ON = frozenset({400, 404, 409, 410, 413, 415})
"""Statuses of a refused request that a client gets as they are; the others become 400."""


_FIELD = re.compile(r"[A-Za-z_][\w.\[\]]{0,63}", re.ASCII)
"""A field's name or path. Nothing else is passed on as one: it might hold anything."""

_PLACE = re.compile(r"""["']loc["']: ?[(\[]["']body["'], ?["'](\w{1,64})["'](?:, ?["']?(\w{1,64}))?""", re.ASCII)
"""The place that FastAPI's own list of faults names, and what lies within it, where a server has made one text of the
list."""

_TOO_LONG = re.compile(r"context (?:length|window|size)|too long", re.IGNORECASE)
"""What is said of a long prompt counts its parts, tools among them, without blaming one."""

_MENTIONED = re.compile(
    r"\b(?:(?P<itself>tool_choice|parallel_tool_calls)"
    r"|(?P<tools>tools|tool (?:choice|calling|use)|function calling)"
    r"|(?P<response_format>response_format|json_schema|guided\w*|structured outputs?|json mode))\b",
    re.IGNORECASE | re.ASCII,
)
"""Words for the fields that not every server knows. Those for a call that was made (`tool_calls`) are not among them:
they stand in complaints about the messages."""

_REPEATED = re.compile(r"""["']input["']:|\binput_value=""", re.ASCII)
"""Behind this, FastAPI's faults repeat the request, and that says anything."""

_FAULTY = re.compile(
    r"\binvalid\b(?! (?:parameter|argument|field)\b)|\bmust be set\b|\bkeywords?\b|\barrays?\b|\bmore than\b"
    r"|\bat (?:least|most)\b|\bfeatures not\b|\bunsupported value\b",
    re.IGNORECASE | re.ASCII,
)
"""Words that find fault with what one client sent: another request for the same thing may do."""

_ABILITY = (
    r"(?:response_format(?:\.type| type)?|json[_ ]schema|json_object|json mode|guided_\w{1,32}|structured outputs?"
    r"|tools|tool[_ ]choice|tool (?:calling|calls?|use)|parallel_tool_calls|function calling"
    r"|this (?:parameter|field|option|feature))(?!\w|[.\[]\w)"
)
_UNABLE = re.compile(
    # It does not support tools. Unknown parameter: 'tools'.
    rf"(?:(?:not|n't) support|\b(?:unsupported|unknown|unrecogni[sz]ed|unexpected))"
    r"(?: (?:the|use|of|for|request|input|supplied|keyword|parameter|argument|field|property|option)){0,4}"
    rf":? ?[\"'`]?{_ABILITY}"
    # Tools are not supported. tool_choice = "required" is not supported. "auto" tool choice requires --another-flag.
    rf"|\b{_ABILITY}[\"'`]?(?: ?= ?[\"'`]\w{{1,32}}[\"'`])?"
    r"(?: (?:param(?:eter)?s?|fields?|types?|modes?|values?|of|for|with|this|the|model|extra inputs|is|are|currently))"
    r"{0,6} (?:(?:not (?:\w{1,20} )?(?:supported|enabled|available|implemented|allowed|permitted|recogni[sz]ed)"
    r"|unsupported|unavailable|disabled|cannot be (?:used|combined))\b|requires? --)"
    # There are only two types, and neither was written by the client.
    r"|\bresponse_format\.type\b",
    re.IGNORECASE | re.ASCII,
)
"""What is said by a server that does not do such a thing at all. A path into the field (`tools[0]`) is none."""


class Speaker(Enum):
    """Who wrote an error body."""

    SERVICE = "detail"  # Open WebUI itself (or FastAPI)
    MODEL_SERVER = "error"  # an OpenAI-compatible server
    PAGE = "page"  # a firewall, a proxy, a web server
    NOBODY = "nothing readable"


class Refusal(msgspec.Struct, frozen=True):
    """An error answer, read: who speaks, what they say, under which code, and about which field of the request.

    `unsupported`: they say that they cannot do what the field asks for at all.
    """

    speaker: Speaker
    message: str
    code: str = ""
    type: str = ""
    param: str = ""
    unsupported: bool = False


def read_refusal(body: bytes) -> Refusal:
    """Read an error body of any form. Never raises."""
    try:
        return refusal_in(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body.decode("utf-8", "replace").strip()
        if text[:200].lstrip().startswith("<"):
            return Refusal(Speaker.PAGE, "a web page")
        return Refusal(Speaker.NOBODY, _short(text), param=_mentioned(text), unsupported=_unable(text))


def refusal_in(found: Any) -> Refusal:
    """Read decoded JSON that is an error, or holds one under `error` or `detail`."""
    if not isinstance(found, dict):
        return Refusal(Speaker.NOBODY, _short(found), param=_mentioned(found), unsupported=_unable(found))
    if (detail := found.get("detail")) is not None:
        place, unknown = _placed(detail)
        return Refusal(
            Speaker.SERVICE,
            _short(detail),
            param=place or _mentioned(detail),
            unsupported=unknown or _unable(detail),
        )
    error = found.get("error", found)  # vLLM puts the error's fields at the top
    if isinstance(error, dict):
        param = _field(error.get("param"))
        return Refusal(
            Speaker.MODEL_SERVER,
            _short(error.get("message", error)),
            code=str(error.get("code") or ""),
            type=str(error.get("type") or ""),
            param=param or _mentioned(error.get("message")),
            unsupported=param == "response_format.type" or _unable(error.get("message")),
        )
    return Refusal(Speaker.MODEL_SERVER, _short(error), param=_mentioned(error), unsupported=_unable(error))


def error_of_status(
    status: int, headers: Mapping[str, str], body: bytes, *, owns_tokens: Speaker, now: float
) -> UpstreamError:
    """Classify an answer with an error status. `owns_tokens`: whose 401 is about our token. `now` in Unix seconds."""
    refusal = read_refusal(body)
    said = refusal.message or "nothing"
    retry_after = wait_of(headers, body, now)
    page = refusal.speaker is Speaker.PAGE
    if status in {401, 403, 405} and page:
        return EdgeBlocked(f"A firewall in front of the upstream answered {status} with a web page.")
    if status == 407:
        return UpstreamUnavailable("The proxy named by PROXY_URL asks for another user or password (407).")
    if names_unknown_model(status, refusal):
        return UpstreamModelUnknown(f"The upstream does not know the model: {said}", param="model")
    if status in {401, 403}:
        if refusal.speaker in {owns_tokens, Speaker.NOBODY}:
            return CredentialRejected(f"The upstream refused the token: {said}")
        return UpstreamUnavailable(f"The model server behind the upstream refused its own key: {said}")
    if status in {429, 529}:
        return QuotaExceeded(f"The upstream limits the rate: {said}", retry_after=retry_after)
    if status == 408:
        return UpstreamTimeout(f"The upstream ran out of its own time: {said}", retry_after=retry_after)
    if status >= 500:
        passed = status if status in {503, 504} else 502
        return UpstreamUnavailable(f"The upstream answered {status}: {said}", status=passed, retry_after=retry_after)
    if 300 <= status < 400 or page or status == 405:
        return UpstreamUnavailable(f"The upstream answered {status}, as if its URL were another (K2THINK_API_URL).")
    if status == 404 and refusal.speaker is Speaker.SERVICE:
        # Open WebUI with its model server down: `Model '' was not found`.
        return UpstreamUnavailable(f"The upstream answered 404: {said}")
    return RequestRefused(
        f"The upstream refused the request: {said}",
        status=status if status in PASSED_ON else 400,
        code=refusal.code or None,
        param=refusal.param or None,
        unsupported=refusal.unsupported,
    )


def error_in_answer(found: Any) -> UpstreamError:
    """Classify an error that came inside a 200: only its own code and type can tell what it is."""
    refusal = refusal_in(found)
    said = f"The upstream reported an error: {refusal.message or 'without a word'}"
    words = {refusal.code, refusal.type}
    if words & {"rate_limit_exceeded", "rate_limit_error", "429", "insufficient_quota"}:
        return QuotaExceeded(said, retry_after=wait_in(found))
    if words & {"context_length_exceeded", "validation_error", "request_too_large"}:
        return RequestRefused(
            said, code=refusal.code or None, param=refusal.param or None, unsupported=refusal.unsupported
        )
    return UpstreamUnavailable(said, retry_after=wait_in(found))


def names_unknown_model(status: int, refusal: Refusal) -> bool:
    """Whether an answer says that the model id is unknown. Open WebUI has no code for it, only one fixed text."""
    if refusal.speaker is Speaker.SERVICE:
        return status in {400, 403, 404} and refusal.message == "Model not found"
    return status == 404 and (refusal.code == "model_not_found" or refusal.type in {"NotFoundError", "not_found_error"})


def _field(name: Any) -> str:
    return name if isinstance(name, str) and _FIELD.fullmatch(name) else ""


def _placed(detail: Any) -> tuple[str, bool]:
    """The field that FastAPI's list of faults names: `[{"loc": ["body", "tools", 0, …], …}]`; whether it is unknown."""
    for fault in detail if isinstance(detail, list) else []:
        place = fault.get("loc") if isinstance(fault, dict) else None
        if isinstance(place, list) and len(place) > 1 and place[0] == "body" and (field := _field(place[1])):
            forbidden = len(place) == 2 and fault.get("type") in {"extra_forbidden", "value_error.extra"}
            return field, forbidden or place[1:] == ["response_format", "type"]
    return "", False


def _unable(words: Any) -> bool:
    """Whether a message says that the upstream cannot do such a thing at all, whatever its value."""
    if not isinstance(words, str):
        return False
    words = " ".join(_REPEATED.split(words[:MAX_MESSAGE], maxsplit=1)[0].split())
    if place := _PLACE.search(words):
        return place.groups() == ("response_format", "type") or (place[2] is None and "extra_forbidden" in words)
    return not _TOO_LONG.search(words) and not _FAULTY.search(words) and bool(_UNABLE.search(words))


def _mentioned(words: Any) -> str:
    """The field that a message is about, if it mentions one of those that not every server knows; the first counts."""
    if not isinstance(words, str):
        return ""  # a structure may repeat the request, and that mentions everything
    words = words[:MAX_MESSAGE]
    if place := _PLACE.search(words):
        return place[1]
    if _TOO_LONG.search(words) or not (found := _MENTIONED.search(words)):
        return ""
    return found["itself"].lower() if found["itself"] else str(found.lastgroup)


def _short(words: Any) -> str:
    text = words if isinstance(words, str) else msgspec.json.encode(words).decode()
    text = " ".join(text.split())
    return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "…"
