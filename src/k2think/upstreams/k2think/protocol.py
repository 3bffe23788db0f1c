"""What K2-Think's web service wants to hear: the URLs, headers and payload of an Open WebUI deployment. Pure.

Left out on purpose: `chat_id`, `id` and `session_id`, because with them the answer goes to a web socket and into the
account's saved chats instead of coming back; background tasks, which cost the account extra generations; and a file's
`context: full`, which puts the whole text into the prompt, however long it is. A text that fits can be written there by
the gateway, within its budget and without an upload; what the service adds is that it looks up what fits the question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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
    return _service_url(chat_url, f"auths/{action}")


def files_url(chat_url: str, path: str = "") -> str:
    """A route of files: `…/api/chat/completions` → `…/api/v1/files/ID/process/status`; without `path`, for uploads.

    That one ends in a slash: without it the service refuses it.
    """
    return _service_url(chat_url, f"files/{path}")


def _service_url(chat_url: str, path: str) -> str:
    parts = urlsplit(chat_url)
    chat = _CHAT_ROUTE.match(parts.path)
    before = chat[1] if chat else ""
    return urlunsplit((parts.scheme, parts.netloc, f"{before}/api/v1/{path}", "", ""))


def sign_in_payload(email: str, password: str) -> bytes:
    """The body of a sign-in."""
    return msgspec.json.encode({"email": email, "password": password})


def headers(token: str) -> dict[str, str]:
    """The token goes as a bearer and as a cookie, as the service's own page sends it: its firewall looks for both."""
    return {"Authorization": f"Bearer {token}", "Cookie": f"token={token}"} if token else {}


def upload_ends(name: str, media_type: str, boundary: str) -> tuple[bytes, bytes]:
    """What stands before and behind the bytes of a file in an upload's body, which is a form of this one field.

    `boundary` must occur nowhere in the file: take a long random one. The name is written as browsers write it.
    """
    # A field without a file name would be no file to the service.
    shown = (name or "file").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    disposition = f'Content-Disposition: form-data; name="file"; filename="{shown}"'
    head = f"--{boundary}\r\n{disposition}\r\nContent-Type: {media_type}\r\n\r\n"
    return head.encode("utf-8", "replace"), f"\r\n--{boundary}--\r\n".encode()


def payload(prompt: Prompt, model: str, files: Sequence[str] = ()) -> bytes:
    """The body of a chat request. Sampling stands in it and in `params`, which the service spreads over the body.

    `files`: ids of files that this account has there. The service ignores one that it does not know without a word.
    """
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
    if files:
        body["files"] = [{"type": "file", "id": file_id} for file_id in files]
    return msgspec.json.encode(body)
