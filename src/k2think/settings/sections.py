"""Every setting, with its default and what it means. A field is its environment variable in lower case.

One section per component, so that nobody is handed more than it needs. The descriptions are the documentation:
`.env.example` is made from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from k2think.settings import kinds


class Section(BaseModel):
    """What sections have in common: they do not change, and an error about one does not show its values."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)


class Server(Section):
    """Where and how the gateway listens."""

    host: kinds.Host = Field(default="0.0.0.0", description="Address to listen on; 127.0.0.1 keeps it to this machine.")  # noqa: S104 - the documented default
    port: kinds.Port = Field(default=8001, description="Port to listen on; 0 takes any free one.")
    workers: kinds.Count = Field(
        default=1,
        description="Processes that serve: more than one for each core gains nothing. They share tokens, limits and "
        "files through STATE_DIR and DATA_DIR.",
    )
    cors_origins: kinds.Origins = Field(
        default=("*",),
        description="Web pages that may call the gateway from a browser: origins, comma-separated, or * for all.",
    )
    enable_access_log: kinds.Flag = Field(default=True, description="Write one log line for each request.")
    max_body_mb: kinds.Count = Field(default=32, description="Largest request body that is accepted, in megabytes.")
    sse_keepalive: kinds.Seconds = Field(
        default=15,
        description="Seconds of silence after which a stream sends a comment, so that nothing between cuts it.",
    )

    drain_timeout: kinds.Grace = Field(
        default=30, description="Seconds that running answers have to end when the gateway is stopped."
    )

    @property
    def max_body_bytes(self) -> int:
        """`max_body_mb` in bytes."""
        return self.max_body_mb * 1024 * 1024


class Access(Section):
    """Who may use the gateway."""

    valid_api_key: kinds.ApiKeys = Field(
        min_length=1,
        description="Required. The key that clients send as 'Authorization: Bearer …': any secret of your own. "
        "Several, comma-separated.",
    )
    admin_api_key: kinds.ApiKey = Field(
        default=None,
        description="Key for /admin from other machines; unset, VALID_API_KEY opens it. This machine needs none.",
    )
    admin_keyless: kinds.Flag = Field(
        default=True,
        description="Let programs on this machine call /admin without a key. Set it to false where a proxy on this "
        "machine forwards for others: not every one of them says that it does.",
    )


class Upstream(Section):
    """The service behind the gateway, and how patient to be with it."""

    k2think_api_url: kinds.UpstreamUrl = Field(
        default="https://www.k2think.ai/api/chat/completions",
        description="Chat endpoint of the service; sign-in and files are at the same origin.",
    )
    upstream_protocol: kinds.Protocol = Field(
        default="auto",
        description="What that endpoint speaks: k2think (K2-Think's web service) or openai (any OpenAI-compatible "
        "server). auto: openai where the URL ends in /v1/chat/completions (but not /api/v1/chat/completions).",
    )
    upstream_native: kinds.Native = Field(
        default="auto",
        description="What an OpenAI-compatible server does by itself: none, or out of tools, json_object and "
        "json_schema, comma-separated; the gateway does the rest. auto: all of it, until the server refuses it. "
        "K2-Think's web service does none of it.",
    )
    upstream_vision: kinds.Vision = Field(
        default="auto",
        description="Whether the model sees images: true, false, or auto: where the service's list of models says so.",
    )
    upstream_api_key: kinds.ApiKeys = Field(
        default=(),
        description="Keys for an OpenAI-compatible server, comma-separated. K2-Think's web service uses tokens.",
    )
    upstream_model: kinds.Name = Field(
        default="", description="Model id to send to the service; empty: the one it lists, or the one asked for."
    )
    model_aliases: kinds.Aliases = Field(
        default_factory=dict,
        description="Other names for the models, for clients that insist on theirs: name=model, comma-separated.",
    )
    connect_timeout: kinds.Seconds = Field(default=10, description="Seconds to wait for a connection.")
    first_event_timeout: kinds.Seconds = Field(default=300, description="Seconds to wait for an answer to begin.")
    request_timeout: kinds.Seconds = Field(
        default=60, description="Seconds of silence in the middle of an answer after which it counts as broken off."
    )
    total_timeout: kinds.Hours = Field(default=7200, description="Seconds that one answer may take as a whole.")
    max_connections: kinds.Count = Field(default=1000, description="Connections to the service at once.")
    max_keepalive_connections: kinds.CountOrNone = Field(
        default=20,
        description="Accepted, but without effect: idle connections are kept for reuse and closed after a few seconds.",
    )
    proxy_url: kinds.ProxyUrl = Field(
        default=None, description="HTTP proxy for outgoing traffic, http://user:password@host:port."
    )
    proxy_chat: kinds.Flag = Field(default=True, description="Send chats through PROXY_URL too, not only sign-ins.")

    @property
    def protocol(self) -> Literal["k2think", "openai"]:
        """`upstream_protocol`, with `auto` decided."""
        if self.upstream_protocol != "auto":
            return self.upstream_protocol
        path = urlsplit(self.k2think_api_url).path.rstrip("/")
        is_openai = path.endswith("/v1/chat/completions") and not path.endswith("/api/v1/chat/completions")
        return "openai" if is_openai else "k2think"

    @property
    def native(self) -> tuple[kinds.Feature, ...] | None:
        """What the service does by itself; None where that is to be found out (`auto`, OpenAI-compatible)."""
        if self.protocol == "k2think":
            return ()
        return None if self.upstream_native == "auto" else self.upstream_native


class Credentials(Section):
    """The tokens that the service is asked with, and the accounts that make them."""

    tokens_file: kinds.File = Field(
        default=Path("tokens.txt"),
        description="Tokens, one a line. Unset: tokens.txt, or data/tokens.txt where only that is there.",
    )
    accounts_file: kinds.File = Field(
        default=Path("accounts.txt"),
        description="Accounts, one JSON object a line. Unset: accounts.txt, or data/accounts.txt where only that is "
        "there.",
    )
    max_token_failures: kinds.Count = Field(default=3, description="Failures after which a token is no longer used.")
    enable_token_auto_update: kinds.Flag = Field(default=False, description="Make tokens from the accounts.")
    token_update_interval: kinds.Minutes = Field(default=86400, description="Seconds between two such updates.")
    get_tokens_script: kinds.File = Field(
        default=Path("get_tokens.py"),
        description="Script that makes the tokens: python SCRIPT ACCOUNTS_FILE TOKENS_FILE.tmp",
    )
    token_max_workers: kinds.Count = Field(default=4, description="Accounts that are signed in at once.")
    token_strategy: kinds.Strategy = Field(
        default="round_robin",
        description="Which token serves next: round_robin (each in turn), least_busy (the one with the fewest running "
        "requests) or sticky (a conversation stays with its token).",
    )
    token_max_concurrency: kinds.CountOrNone = Field(
        default=0, description="Requests that one token may carry at once; 0: any number."
    )
    pool_wait: kinds.SecondsOrNone = Field(
        default=10, description="Seconds that a request waits for a token where none can be used now."
    )


class Storage(Section):
    """What the gateway remembers from one start to the next."""

    state_dir: kinds.Folder = Field(
        default=Path("data/state"), description="Folder for it: which tokens rest or are bad, what accounts there are."
    )


class Thinking(Section):
    """How the model's thinking is found and shown."""

    reasoning_format: kinds.ReasoningFormat = Field(
        default="parsed",
        description="How clients get the thinking unless they say otherwise: parsed (a field of its own), raw "
        "(<think> tags in the content) or hidden.",
    )
    think_opener: kinds.Opener = Field(
        default="auto",
        description="Whether the model's text begins with <think>: present, implied (it begins inside the thinking) "
        "or auto.",
    )


class Tools(Section):
    """Function calling."""

    enable_toolify: kinds.Flag = Field(default=True, description="Offer function calling.")
    toolify_custom_prompt: kinds.Template = Field(
        default="", description="Your own tool instructions, with {trigger_signal} and {tools_list} where those belong."
    )
    tool_retries: kinds.Few = Field(
        default=1,
        description="How often the model is asked again when a call or a JSON answer of its cannot be used; 0 to 5.",
    )
    tool_streaming: kinds.ToolStreaming = Field(
        default="live",
        description="How calls are streamed: live (the arguments as they come) or checked (each call is held until it "
        "is complete and checked).",
    )


class Files(Section):
    """Files and images that clients upload or attach."""

    data_dir: kinds.Folder = Field(
        default=Path("data"), description="Folder for uploaded files, which lie in 'files' below it."
    )
    max_file_mb: kinds.Count = Field(default=64, description="Largest file that is accepted, in megabytes.")
    files_quota_mb: kinds.Count = Field(default=2048, description="Room for all uploaded files together, in megabytes.")
    files_ttl: kinds.SecondsOrNone = Field(
        default=0, description="Seconds after which an uploaded file is deleted; 0: kept until its client deletes it."
    )
    file_mode: kinds.FileMode = Field(
        default="text",
        description="How the model gets a file: text (its text is put into the question) or upstream (it is uploaded "
        "to K2-Think's web service, which looks up what fits the question; its text where that fails).",
    )
    file_text_budget: kinds.Count = Field(
        default=100_000, description="Characters that the texts of all files of a request may have together."
    )
    image_mode: kinds.ImageMode = Field(
        default="refuse",
        description="What becomes of an image that the model cannot see: refuse (an error) or describe (its type and "
        "size, and any text found in it, stand in its place).",
    )
    allow_url_fetch: kinds.Flag = Field(
        default=False,
        description="Fetch images and files that clients name by an http or https URL; public addresses only, and "
        "never through PROXY_URL.",
    )

    @property
    def max_file_bytes(self) -> int:
        """`max_file_mb` in bytes."""
        return self.max_file_mb * 1024 * 1024

    @property
    def files_quota_bytes(self) -> int:
        """`files_quota_mb` in bytes."""
        return self.files_quota_mb * 1024 * 1024


class Logging(Section):
    """What is written to the log. Secrets and prompts never are."""

    log_level: kinds.LogLevel = Field(default="INFO", description="DEBUG, INFO, WARNING, ERROR or CRITICAL.")
    debug_logging: kinds.Flag = Field(default=False, description="Log each step of a request.")
    log_format: kinds.LogFormat = Field(
        default="text", description="text (lines to read) or json (one object a line, for programs)."
    )
