"""What the simulator is told at its start. Flat, so that each field can be a flag of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Release: TypeAlias = Literal["0.6.28", "0.12.4"]
RELEASES: tuple[Release, ...] = ("0.6.28", "0.12.4")

DEFAULT_SECRET = "k2think-simulator"  # noqa: S105 - signs tokens of a server that has nothing to protect

FOUR_WEEKS = 4 * 7 * 86400.0


@dataclass(frozen=True)
class Account:
    """A user. `faults`: names of `ACCOUNT_FAULTS`; any other is a fault of chats (see `script`), for this user only."""

    password: str = field(default="password", repr=False)
    role: Literal["user", "admin", "pending"] = "user"
    faults: tuple[str, ...] = ()


FILE_FAULTS = {
    "uploads_refused": "upload: 400, as for a type of file that is not allowed",
    "files_too_large": "upload: 413, as for a file above the limit",
    "files_never_processed": "a file's status stays `pending`",
    "files_fail": "a file's status becomes `failed`",
    "no_file_status": "as releases before 0.6.28: files are processed within the upload, there is no status to ask for",
}
"""What goes wrong with files; chats with a file that has no text are answered as if it were not there."""

ACCOUNT_FAULTS = {
    "wrong": "sign-in: 400, as for a wrong password",
    "limited": "sign-in: 429, as from the limiter",
    "rejected": "sign-in works, but its token is refused everywhere with 401",
    **FILE_FAULTS,
}


@dataclass(frozen=True)
class SimulatorOptions:
    """Everything adjustable; times in seconds."""

    release: Release = "0.12.4"
    """Which Open WebUI is played; where the two recorded ones differ, this decides."""

    shape: str = "think_answer"
    """How thinking and answer are written, where a message does not say `shape=` (names: `shapes.SHAPES`)."""

    openai_shape: str = "reasoning_content"
    """The same for the OpenAI-compatible paths `/v1/...`."""

    fault: str = ""
    """What goes wrong with every chat that does not say `fault=` itself (names: `script.FAULTS`); empty: nothing."""

    token_ttl: float | None = None
    """How long a token is good. None: as the release does it by default (0.6.28: for ever; 0.12.4: four weeks)."""

    jti: bool | None = None
    """Whether a token has a random id. None: as the release does it by default (0.6.28: no; 0.12.4: yes)."""

    models: tuple[str, ...] = ("MBZUAI-IFM/K2-Think-v2",)
    """Ids of the models offered."""

    first_delay: float = 0.0
    """Silence before the headers of an answer, and so before its first delta."""

    delay: float = 0.0
    """Silence between two deltas."""

    max_concurrent: int = 0
    """Chats at a time per account, a further one gets 429; 0: any number."""

    accounts: Mapping[str, Account] = field(default_factory=dict)
    """E-mail -> account. Empty: any e-mail signs in with any password that is not empty, except those whose local part
    starts with `wrong`, `limited` (as these faults of an account) or `pending` (that role)."""

    sign_in_delay: float = 0.0
    """Silence before a sign-in is answered; the real one hashes a password for some 0.25 s."""

    sign_in_limit: int = 15
    """Sign-ins per e-mail in `sign_in_window`, good ones too; only 0.12.4 limits. 0: no limit."""

    sign_in_window: float = 180.0
    """The window of that limit."""

    file_faults: tuple[str, ...] = ()
    """What goes wrong with everybody's files (names: `FILE_FAULTS`)."""

    file_processing_seconds: float = 0.0
    """From the upload of a file until its text is there; until then its status is `processing` (0.6.28: `pending`)."""

    vision: bool | None = True
    """What the list of models says of seeing images; None: nothing, as of a model that no administrator touched.
    False: `/v1/...` refuses images as well."""

    secret: str = field(default=DEFAULT_SECRET, repr=False)
    """Signs the tokens."""

    hidden_prompt_tokens: int = 0
    """Added to `prompt_tokens`: the system prompt that the public service puts in front (about 400)."""

    time_info: bool = False
    """Add `time_info`, as answers that come from Cerebras have."""

    system_fingerprint: bool = False
    """Add `system_fingerprint`."""

    compress: bool = True
    """Send JSON of 500 bytes and more with gzip where the client accepts it (events never, unless a message asks)."""

    chats_exist: bool = True
    """Whether a `chat_id` is one of a saved chat. False: it never is, which the real service answers with an error."""

    refuses: tuple[str, ...] = ()
    """Fields of a request that `/v1/...` answers with 400, as a server does that lacks what they ask for."""

    openai_key: str | None = field(default=None, repr=False)
    """The key that `/v1/...` asks for; None: none."""

    @property
    def ttl(self) -> float | None:
        """Seconds a token is good for, None = for ever."""
        if self.token_ttl is not None:
            return self.token_ttl
        return None if self.release == "0.6.28" else FOUR_WEEKS
