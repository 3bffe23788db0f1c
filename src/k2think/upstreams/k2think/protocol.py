"""What K2-Think's web service wants to hear: the URLs, headers and payload of an Open WebUI deployment. Pure.

Left out on purpose: `chat_id`, `id` and `session_id`, because with them the answer goes to a web socket and into the
account's saved chats instead of coming back; and background tasks, which cost the account extra generations.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from k2think.dialogue.prompt import Prompt
from k2think.upstreams.turns import fold

_CHAT_ROUTE = re.compile(r"(.*)/(?:api|openai)/")
"""What comes before the service's own paths, where a proxy has put it below a path."""


def models_url(chat_url: str) -> str:
    """The models route beside a chat route: `…/api/chat/completions` → `…/api/models`."""
    parts = urlsplit(chat_url)
    base = parts.path.rstrip("/").removesuffix("/chat/completions")
    return urlunsplit((parts.scheme, parts.netloc, f"{base}/models", "", ""))


def auths_url(chat_url: str, action: str = "") -> str:
    """A route of sign-in: `…/api/chat/completions` → `…/api/v1/auths/signin`; without `action`, whose token it is.

    That one ends in a slash: without it the service gives its web page.
    """
    parts = urlsplit(chat_url)
    chat = _CHAT_ROUTE.match(parts.path)
    before = chat[1] if chat else ""
    return urlunsplit((parts.scheme, parts.netloc, f"{before}/api/v1/auths/{action}", "", ""))


def sign_in_payload(email: str, password: str) -> bytes:
    """The body of a sign-in."""
    return msgspec.json.encode({"email": email, "password": password})


def headers(token: str) -> dict[str, str]:
    """The token goes as a bearer and as a cookie, as the service's own page sends it: its firewall looks for both."""
    return {"Authorization": f"Bearer {token}", "Cookie": f"token={token}"} if token else {}


def payload(prompt: Prompt, model: str) -> bytes:
    """The body of a chat request. Sampling stands in it and in `params`, which the service spreads over the body."""
    sampling: dict[str, Any] = msgspec.to_builtins(prompt.sampling)  # leaves out what is not set
    sampling.pop("logit_bias", None)  # some releases fail on OpenAI's form of it
    body = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "model": model,
        "messages": fold(prompt.messages),
        **sampling,
        "params": sampling,
    }
    return msgspec.json.encode(body)
