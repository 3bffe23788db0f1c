"""What is remembered of a file that a client left here, besides its content."""

from __future__ import annotations

from msgspec import Struct


class FileRecord(Struct, frozen=True):
    """One client's file.

    `owner` tells clients apart and no more. `size` is in bytes, `digest` the SHA-256 of the content in hex,
    `media_type` what its bytes look like; `created_at` and `expires_at` are Unix seconds (None: kept until deleted).
    """

    id: str
    owner: str
    name: str
    purpose: str
    size: int
    digest: str
    media_type: str
    created_at: int
    expires_at: int | None = None

    def is_there(self, now: float) -> bool:
        """Whether its time is not over yet."""
        return self.expires_at is None or now < self.expires_at
