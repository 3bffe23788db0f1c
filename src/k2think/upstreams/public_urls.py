"""Which URLs of strangers may be asked for at all, and which addresses lie in the public internet. Pure: asks nobody.

Two nets, one behind the other. A URL must be written so plainly that no two readers could disagree about its host; and
the address that is connected to must be public, whatever name, spelling or redirect led to it.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import urljoin, urlsplit

from msgspec import Struct

from k2think.errors import UnusableUrl

MAX_URL = 2048
"""Characters; longer ones work nowhere reliably."""

INSTEAD = "Upload the file (POST /v1/files) or send it as a data URL instead."

NOT_PUBLIC_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # between providers and their customers
        "127.0.0.0/8",
        "168.63.129.16/32",  # a public address that in Azure is the host beneath the machine
        "169.254.0.0/16",  # this link, and the metadata services of clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation, like 198.51.100.0 and 203.0.113.0
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # many at once, reserved, everybody
    )
)
GLOBAL_6 = IPv6Network("2000::/3")
"""All of IPv6 that is given out to single hosts of the internet."""

NOT_PUBLIC_6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocols, among them Teredo: tunnels to any IPv4 address
        "2001:db8::/32",  # documentation, like 3fff::
        "2002::/16",  # 6to4: tunnels to any IPv4 address
        "3fff::/20",
    )
)
NAT64 = IPv6Network("64:ff9b::/96")
"""How networks without IPv4 write IPv4 addresses."""

# Neither stands in a URL that is written properly, and readers of URLs disagree about them.
_DISPUTED = re.compile(r"[\x00-\x20\x7f-\xa0\\\u2028\u2029\ud800-\udfff]")
_PLACE = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\[\]@:%]+)(?::(?P<port>[0-9]{1,5}))?")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_OUR_OWN = re.compile(r"(?:^|\.)(?:localhost|local|internal|intranet|lan|home|corp|home\.arpa|invalid)$")

DEFAULT_PORTS = {"http": 80, "https": 443}


class PublicUrl(Struct, frozen=True):
    """A URL in its one plain spelling. `rest`: path and query, which may hold secrets and are never shown."""

    scheme: str
    host: str
    port: int
    rest: str

    @property
    def origin(self) -> str:
        """What may be told of it."""
        return f"{self.scheme}://{self.host}"

    def __str__(self) -> str:
        return f"{self.origin}:{self.port}{self.rest}"


def read_url(text: str) -> PublicUrl:
    """Give the URL, or raise `UnusableUrl`. It may still lead to a private address."""
    if len(text) > MAX_URL:
        raise UnusableUrl(f"The URL is longer than {MAX_URL:,} characters. {INSTEAD}")
    if _DISPUTED.search(text):
        raise UnusableUrl("The URL holds a space, a backslash or a control character; write it percent-encoded.")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise UnusableUrl("The URL is not valid.") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise UnusableUrl(f"Only http:// and https:// URLs are fetched. {INSTEAD}")
    if "@" in parts.netloc:
        raise UnusableUrl(f"The URL holds a user name or a password, and none is ever sent. {INSTEAD}")
    place = _PLACE.fullmatch(parts.netloc)
    if place is None:
        raise UnusableUrl("The URL's host or port is missing or not valid.")
    port = int(place["port"] or DEFAULT_PORTS[parts.scheme])
    # Below 1024 other protocols are at home, at whose doors nobody shall knock through us.
    if port not in DEFAULT_PORTS.values() and not 1024 <= port <= 65535:
        raise UnusableUrl("URLs are fetched from ports 80, 443, and 1024 to 65535 only.")
    rest = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return PublicUrl(scheme=parts.scheme, host=_read_host(place["host"]), port=port, rest=rest)


def read_redirect(url: PublicUrl, location: str) -> PublicUrl:
    """Give where an answer sends us on to; it is a stranger's URL like the first. Raises `UnusableUrl`."""
    try:
        target = read_url(urljoin(str(url), location))
    except ValueError:
        raise UnusableUrl(f"{url.origin} redirects to a URL that is not valid. {INSTEAD}") from None
    except UnusableUrl as error:
        raise UnusableUrl(f"{url.origin} redirects to a URL that is not fetched: {error.message}") from None
    if (url.scheme, target.scheme) == ("https", "http"):
        raise UnusableUrl(f"{url.origin} redirects from https to http, which is not followed. {INSTEAD}")
    return target


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Say whether this is a single host of the public internet. What tunnels hide behind an address is never asked."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_4)
    if address.scope_id is not None:
        return False
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in GLOBAL_6 and not any(address in network for network in NOT_PUBLIC_6)


def _read_host(host: str) -> str:
    """Give a host in small letters: a name, an IPv4 address in four plain numbers, or an IPv6 address in brackets."""
    try:
        if host.startswith("["):
            return f"[{IPv6Address(host[1:-1]).compressed}]"
        name = _in_ascii(host).removesuffix(".")
        if _NUMBER.fullmatch(name.rpartition(".")[2]):
            return str(IPv4Address(name))
    except AddressValueError:
        raise UnusableUrl("The URL's host is a number that is no address, or not in its usual form.") from None
    except UnicodeError:
        raise UnusableUrl("The URL's host is not a valid name; write it in ASCII (xn--…).") from None
    if len(name) > 253 or not _NAME.fullmatch(name) or _OUR_OWN.search(name):
        raise UnusableUrl(f"The URL's host is no name of the public internet. {INSTEAD}")
    return name


def _in_ascii(host: str) -> str:
    """Give an international name in ASCII. Raises `UnicodeError`, also for letters that only look like others."""
    host = host.lower()
    if host.isascii():
        return host
    if len(host) > 253:
        raise UnicodeError
    encoded = host.encode("idna")
    if encoded.decode("idna") != host:
        raise UnicodeError  # wide digits, odd dots and the like, which some readers take for plain ones
    return encoded.decode("ascii")
