"""Files within a request."""

from __future__ import annotations

import base64
from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2think.errors import UnusableFile
from k2think.library import inline
from k2think.library.inline import data_url, decoded

CONTENT = bytes(range(256))
BASE64 = base64.b64encode(CONTENT).decode()


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (BASE64, CONTENT),
        (BASE64.rstrip("="), CONTENT),
        (BASE64.replace("+", "-").replace("/", "_"), CONTENT),
        (f" {BASE64[:5]}\r\n{BASE64[5:]}\n", CONTENT),
        (f"data:image/png;base64,{BASE64}", CONTENT),
        (f"DATA:image/png;charset=x;BASE64,{BASE64}", CONTENT),
        (f" data:;base64,{BASE64[:40]}\n{BASE64[40:]} \r\n", CONTENT),
        ("data:image/png;base64,%2B%2F8%3D", b"\xfb\xff"),
        ("data:image/svg+xml,%3Csvg%2F%3E", b"<svg/>"),
        ("data:,", b""),
        ("", b""),
        ("AA=", b"\x00"),
    ],
)
def test_content_is_decoded(text: str, content: bytes) -> None:
    assert decoded(text) == content


@pytest.mark.parametrize(
    "text",
    [
        "data:image/png;base64",
        "data:;base64,A",
        "AA==AA==",
        "AA==A",
        "äöü=",
        "not base64!",
        "A",
        "data:," + "%41" * 65_537,
    ],
)
def test_what_is_no_content_is_refused(text: str) -> None:
    with pytest.raises(UnusableFile) as caught:
        decoded(text)
    assert caught.value.code == "invalid_value"
    assert len(caught.value.message) < 200


@given(st.binary(max_size=60), st.sampled_from(["", "\n", " \r\n"]), st.booleans(), st.integers(1, 9))
def test_any_content_comes_through_in_pieces_of_any_size(content: bytes, blank: str, padded: bool, size: int) -> None:
    written = base64.b64encode(content).decode()
    lines = blank.join(written[at : at + 7] for at in range(0, len(written), 7))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inline, "PIECE", 4 * size)
        url = data_url("image/png", content)
        assert url == f"data:image/png;base64,{written}"
        patched.setattr(inline, "PIECE", size)
        assert decoded(lines if padded else lines.rstrip("=")) == content
        assert decoded(url) == content
        assert decoded(f"data:,{quote(content)}") == content


@given(st.text(max_size=60) | st.text("AB=+_ \n", max_size=20), st.integers(1, 9))
def test_any_text_is_decoded_or_refused_whatever_the_pieces(written: str, size: int) -> None:
    outcomes = set()
    for piece in (size, 1000):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(inline, "PIECE", piece)
            outcome = None
            with suppress(UnusableFile):
                outcome = decoded(written)
            outcomes.add(outcome)
    assert len(outcomes) == 1
