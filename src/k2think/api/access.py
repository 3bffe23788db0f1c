"""Who may pass. Closed by default: a path is open only if it is listed here, with a reason."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from k2think.errors import Forbidden, Unauthorized

OPEN_PATHS = frozenset(
    {
        "/",  # says what this is
        "/health",  # container health checks carry no key
        "/docs",  # the page asks for the key before it calls anything
        "/docs/oauth2-redirect",
        "/openapi.json",  # what /docs shows
    }
)

ADMIN = "/admin"

FORWARDED = (
    b"forwarded",
    b"x-forwarded-",
    b"x-real-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-original-",
    b"x-remote-",
    b"x-envoy-",
    b"x-amzn-",
    b"true-client-ip",
    b"via",
    b"cf-",
    b"cdn-loop",
    b"fastly-",
    b"fly-",
)
"""How the headers begin by which proxies tell that a request is not their own."""


class Keys:
    """The keys of the setting `name` that clients may use."""

    def __init__(self, keys: Sequence[str], name: str) -> None:
        self._owners = {_digest(key.encode()): owner_of(key.encode()) for key in keys}
        self._name = name

    def hold(self, key: bytes) -> bool:
        """Whether this is one of them.

        Compared are digests, all of them: neither a key's length nor its place in the list shows in the time it takes.
        """
        return self._holds(_digest(key))

    def check(self, key: bytes) -> str:
        """Give the owner whose key this is (`owner_of`). Raises `Unauthorized` if it is none of them."""
        digest = _digest(key)
        if not self._holds(digest):
            raise Unauthorized(f"The API key is wrong. It must be one of those in {self._name}.")
        return self._owners[digest]

    def _holds(self, digest: bytes) -> bool:
        return any([hmac.compare_digest(digest, known) for known in self._owners])  # noqa: C419 - no early exit


class Gate:
    """Stands before an app and lets those pass who have a key, or who want an open path.

    Who has one is known behind it by the request's state `owner`, which says nothing about the key (`owner_of`).

    `/admin` opens to `admin` keys where there are any, else to those of clients; from the machine itself to everybody,
    if `keyless`.
    """

    def __init__(self, app: ASGIApp, keys: Keys, admin: Keys | None = None, *, keyless: bool = True) -> None:
        self._app = app
        self._keys = keys
        self._admin = admin
        self._keyless = keyless

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Check, then pass on. Raises `Unauthorized` or `Forbidden`, when called and not when awaited."""
        if scope["type"] == "http":
            path: str = scope["path"]
            if path == ADMIN or path.startswith(f"{ADMIN}/"):
                self._check_admin(scope)
            elif path not in OPEN_PATHS:
                scope["state"]["owner"] = self._keys.check(bearer(scope))
        return self._app(scope, receive, send)

    def _check_admin(self, scope: Scope) -> None:
        if self._keyless and is_from_this_machine(scope):
            return
        key = bearer(scope)
        if self._admin is None:
            self._keys.check(key)
        elif self._keys.hold(key) and not self._admin.hold(key):
            raise Forbidden("This key is for /v1. The admin calls need the one in ADMIN_API_KEY.")
        else:
            self._admin.check(key)


def is_from_this_machine(scope: Scope) -> bool:
    """Whether a person or program on this machine asks, and nobody through them. In doubt it is not so.

    The peer's address alone proves little: a proxy here may forward for others (as a rule it says so in a header, or
    does not keep the connection), a page from elsewhere may make the browser here ask (which says so too), or give its
    own host name this machine's address (then the `Host` is not one of ours). A proxy that says nothing at all cannot
    be told from a person: whoever runs one sets ADMIN_KEYLESS to false.
    """
    client = scope.get("client")
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    hosts = [value for name, value in headers if name == b"host"]
    return (
        client is not None
        and _is_loopback(client[0])
        and scope.get("http_version") != "1.0"
        and (b"connection", b"close") not in headers
        and not any(name.startswith(FORWARDED) for name, _ in headers)
        and len(hosts) == 1
        and _names_this_machine(b"//" + hosts[0])
        and all(_names_this_machine(value) for name, value in headers if name in {b"origin", b"referer"})
        and all(value in {b"same-origin", b"none"} for name, value in headers if name == b"sec-fetch-site")
    )


def owner_of(key: bytes) -> str:
    """What belongs to a client is remembered under this, the same as long as the key is: 32 hex digits."""
    return _digest(b"owner of files\0" + key).hex()[:32]


def bearer(scope: Scope) -> bytes:
    """The key in the `Authorization` header. Raises `Unauthorized` if there is none."""
    scheme, _, key = (header(scope, b"authorization") or b"").partition(b" ")
    if scheme.lower() != b"bearer" or not key.strip():
        raise Unauthorized("No API key. Send it as 'Authorization: Bearer YOUR_KEY'.")
    return key.strip()


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of this (lower-case) name."""
    headers: dict[bytes, bytes] = scope["state"]["headers"]
    return headers.get(name)


def look_up_headers(scope: Scope) -> None:
    """Make them ready for `header`; backwards, so that the first of several wins."""
    scope["state"]["headers"] = dict(reversed(scope["headers"]))


def forget_headers(scope: Scope) -> None:
    """Let them go: an answer may take long, and nobody asks any more."""
    del scope["state"]["headers"]


def _names_this_machine(url: bytes) -> bool:
    if b"@" in url:  # no browser and no client of ours writes a user there
        return False
    try:
        host = urlsplit(url.decode("ascii")).hostname or ""
    except ValueError:
        return False
    return host == "localhost" or _is_loopback(host)


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return found.is_loopback


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
