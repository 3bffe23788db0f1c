"""How URLs of strangers are read, and which addresses are public. The hostile ones stand in a file of their own."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from random import Random
from typing import Any

import pytest
from hostile_urls import HOSTILE_URLS

from k2think.errors import UnusableUrl
from k2think.upstreams.public_urls import is_public, read_url
from k2think.upstreams.public_web import PublicWeb


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("https://example.com", "https://example.com:443/"),
        ("HTTP://Example.COM.:8080/A?b=c&d=%2F#e", "http://example.com:8080/A?b=c&d=%2F"),
        ("https://8.8.8.8/", "https://8.8.8.8:443/"),
        ("https://[2606:4700:0:0::1111]/x", "https://[2606:4700::1111]:443/x"),
        ("https://bücher.example.com/图.png", "https://xn--bcher-kva.example.com:443/图.png"),
        ("https://a_b.example.com//x@y:z", "https://a_b.example.com:443//x@y:z"),
        ("https://example.com?x", "https://example.com:443/?x"),
    ],
)
def test_an_ordinary_url_is_read(text: str, plain: str) -> None:
    assert str(read_url(text)) == plain


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("172.15.255.255", True),
        ("172.32.0.0", True),
        ("100.128.0.0", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True),
        ("2606:4700:4700::1111", True),
        ("2a00:1450:4001:80b::200e", True),
        ("100.127.255.255", False),
        ("169.254.169.254", False),
        ("168.63.129.16", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::808:808", False),
        ("2002:808:808::1", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
        ("2606:4700::1%eth0", False),
        ("::8.8.8.8", False),
        ("4000::1", False),
    ],
)
def test_public_is_what_the_internet_reaches(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public


def test_nothing_is_public_that_the_language_knows_not_to_be() -> None:
    random = Random(4)  # the same sample each time
    sample = [ip_address(random.getrandbits(32)) for _ in range(3000)]
    sample += [ip_address(first << 120 | random.getrandbits(120)) for first in range(256) for _ in range(10)]
    wrong = [a for a in sample if is_public(a) and (not a.is_global or a.is_multicast or a.is_reserved)]
    assert wrong == []
    assert sum(map(is_public, sample)) > 2000


@pytest.mark.parametrize("name", HOSTILE_URLS)
def test_a_hostile_url_is_refused_without_a_look_up_or_a_connection(name: str) -> None:
    asked: list[object] = []

    def watched(address: Any) -> bool:
        asked.extend([address] if is_public(address) else [])
        return is_public(address)

    def find(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async def run() -> None:
        web = PublicWeb(may_connect=watched, find=find)
        await web.start()
        try:
            await web.fetch(HOSTILE_URLS[name], limit=1000)
        finally:
            await web.close()

    with pytest.raises(UnusableUrl) as refusal:
        asyncio.run(run())
    assert (refusal.value.status, refusal.value.code) == (400, "url_not_allowed")
    assert "secret" not in refusal.value.message
    assert asked == []
