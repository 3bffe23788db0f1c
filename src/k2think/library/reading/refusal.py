"""Why a file has no text for us. It is raised without the file's name, which the reading process is not told."""

from __future__ import annotations


class Refusal(Exception):
    """`code` is the error's code for the client; `why` follows "The file 'name' " and says what to do.

    `lasting`: it would be the same another time.
    """

    def __init__(self, code: str, why: str, *, lasting: bool = True) -> None:
        super().__init__(why)
        self.code = code
        self.why = why
        self.lasting = lasting


def too_complex(what: str, *, lasting: bool = True) -> Refusal:
    """`what` it is that goes over a bound, with the bound."""
    return Refusal("file_too_complex", f"{what}. Split it, or send the part that matters.", lasting=lasting)


def unreadable(why: str = "is damaged", *, lasting: bool = True) -> Refusal:
    """It is not what it looks like, or broken."""
    return Refusal(
        "file_unreadable", f"{why}. Open it in its own program, save it anew and send that.", lasting=lasting
    )


def encrypted() -> Refusal:
    """It cannot be opened without a password."""
    return Refusal("file_encrypted", "is protected by a password. Send it without one.")


def without_text(why: str = "holds no text") -> Refusal:
    """It was read to its end."""
    return Refusal("file_without_text", f"{why}. Send a file with text in it.")
