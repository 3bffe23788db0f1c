"""Everything that can go wrong with a request, as types. Decisions read attributes, never messages.

    GatewayError                     anything a client may be told; an error of our own: 500
    ├── ClientError                  the client must change something; never retried
    │   ├── InvalidRequest           400  a field is wrong or cannot be honoured (`param` names it)
    │   │   ├── UnusableFile         400  a file or an image that nothing can be made of
    │   │   └── UnusableUrl          400  an address from which nothing is fetched, or nothing came
    │   ├── Unauthorized             401  no key, or a wrong one
    │   ├── Forbidden                403  a right key at the wrong door
    │   ├── NotFound                 404  no such path or thing
    │   │   ├── ModelNotFound        404  no such model
    │   │   └── FileNotFound         404  no such file, or another client's
    │   ├── MethodNotAllowed         405
    │   ├── BodyTooSlow              408
    │   ├── BodyTooLarge             413
    │   │   ├── FileTooLarge         413  one file is over MAX_FILE_MB
    │   │   └── NoRoomForFile        413  all files together would be over FILES_QUOTA_MB
    │   └── UnsupportedMediaType     415
    ├── GatewayStopping              503  the gateway is being stopped, and waits for this answer no longer
    ├── Overloaded                   503  no place in the queue
    ├── NoCredential                 503  no token that could be used now (429 when all of them are rate-limited)
    │   └── UpstreamIncident         503  the service fails for every token; one request at a time tries it
    └── UpstreamError                502  something behind us
        ├── CredentialRejected       502  the service refused this token; blames it; the next one at once
        ├── SignInRefused            502  the service refused an account's e-mail and password; final
        ├── QuotaExceeded            429  the service limits this token; the next one
        ├── EdgeBlocked              503  a firewall in front of the service; nobody's token is to blame
        ├── UpstreamUnavailable      502  5xx, no connection, an answer that is none
        │   └── UpstreamTimeout      504  too long without a sign of life
        ├── TaskAccepted             502  the service queued the chat instead of answering
        ├── RequestRefused           4xx  the service says the request is wrong; passed on as it is
        │   └── UpstreamModelUnknown 404  the service does not know the model id we sent
        ├── StreamBroken             502  the answer stopped in its middle; too late for another attempt
        └── StructuredOutputFailed   502  the answer is not the JSON that was asked for; `details` hold its text

Attributes, on each class or instance: `status` (HTTP status for the client), `type` and `code` (OpenAI's words),
`param` (the field at fault or None), `retryable` (another attempt may succeed), `blames_credential` (counts towards
MAX_TOKEN_FAILURES), `retry_after` (seconds or None), `headers` (extra answer headers), `details` (more for the client,
as JSON, or None).
"""

from __future__ import annotations

import re
from typing import Any

COME_BACK_AFTER = 5.0
"""Seconds told to a client that shall come back later, where nobody knows when."""

MAX_TEXT_IN_DETAILS = 100_000
"""Characters of an answer that an error may carry."""


class GatewayError(Exception):
    """An error that a client may be told about. `message` never holds a secret."""

    status: int = 500
    type: str = "server_error"
    code: str | None = "internal_error"
    retryable: bool = False
    blames_credential: bool = False
    details: dict[str, Any] | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status

    def hide(self, secret: str, shown: str = "…") -> None:
        """Say `shown` instead of what must not be told; an upstream may have repeated it, in whichever case."""
        if secret:
            self.message = re.sub(re.escape(secret), lambda _: shown, self.message, flags=re.IGNORECASE)
            self.args = (self.message,)

    @property
    def headers(self) -> dict[str, str]:
        """Extra headers of the answer."""
        wait = COME_BACK_AFTER if self.retry_after is None and self.status in {429, 503} else self.retry_after
        if wait is None:
            return {}
        # A whole number of seconds, rounded up: a client that comes back a moment early would only fail again.
        return {"retry-after": str(max(1, -int(-wait // 1)))}


class ClientError(GatewayError):
    """The client must change something."""

    status = 400
    type = "invalid_request_error"
    code: str | None = None


class InvalidRequest(ClientError):
    """A field is wrong, or asks for something that cannot be honoured."""


class UnusableFile(InvalidRequest):
    """A file or an image that nothing can be made of; `code` says why: `file_empty`, `file_encrypted`, ..."""

    code = "file_unreadable"


class UnusableUrl(InvalidRequest):
    """An address from which nothing may be fetched (`url_not_allowed`), or from which nothing usable came."""

    code = "url_not_allowed"


class Unauthorized(ClientError):
    """No API key, or a wrong one."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"

    @property
    def headers(self) -> dict[str, str]:
        """RFC 9110 wants the scheme named."""
        return {"www-authenticate": "Bearer"}


class Forbidden(ClientError):
    """A right key, or none, at a door that stays shut."""

    status = 403
    type = "permission_error"
    code = "forbidden"


class NotFound(ClientError):
    """No such path, or no such thing."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """No upstream offers this model."""

    code = "model_not_found"

    def __init__(self, model: str) -> None:
        shown = model if len(model) <= 100 else model[:100] + "…"
        super().__init__(f"The model '{shown}' does not exist here. GET /v1/models lists those that do.", param="model")


class FileNotFound(NotFound):
    """No file of this client has this id."""

    code = "file_not_found"

    def __init__(self, file_id: str, *, param: str | None = None) -> None:
        shown = file_id if len(file_id) <= 100 else file_id[:100] + "…"
        super().__init__(f"There is no file '{shown}'. GET /v1/files lists yours.", param=param)


class MethodNotAllowed(ClientError):
    """The path exists, the method does not."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"Method {method} is not allowed here. Use {allowed}.")
        self.allowed = allowed

    @property
    def headers(self) -> dict[str, str]:
        """RFC 9110 wants the allowed methods named."""
        return {"allow": self.allowed}


class BodyTooSlow(ClientError):
    """The request body did not arrive in time."""

    status = 408
    code = "request_timeout"


class BodyTooLarge(ClientError):
    """The request body is over the limit."""

    status = 413
    code = "request_too_large"


class FileTooLarge(BodyTooLarge):
    """One file is over the limit."""

    code = "file_too_large"


class NoRoomForFile(BodyTooLarge):
    """All files together would be over the limit."""

    code = "files_quota_exceeded"


class UnsupportedMediaType(ClientError):
    """The request body is of another type than the one that is read there."""

    status = 415
    code = "unsupported_media_type"


class GatewayStopping(GatewayError):
    """The gateway is being stopped and has waited for this answer as long as it may."""

    status = 503
    code = "gateway_stopping"

    def __init__(self) -> None:
        super().__init__("The gateway is stopping. Ask again in a moment.")


class Overloaded(GatewayError):
    """The gateway carries as many requests as it may."""

    status = 503
    type = "overloaded_error"
    code = "overloaded"


class NoCredential(GatewayError):
    """No token could be used for this request. `busy`: the end of another request may change that at any time."""

    status = 503
    type = "server_error"
    code = "no_usable_token"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        busy: bool = False,
    ) -> None:
        super().__init__(message, code=code, status=status, retry_after=retry_after)
        if self.status == 429:
            self.type = "rate_limit_error"
        self.busy = busy


class UpstreamIncident(NoCredential):
    """The service fails for every token; one request at a time finds out whether that is over."""

    code = "upstream_unavailable"


class UpstreamError(GatewayError):
    """Something behind the gateway failed."""

    status = 502
    type = "upstream_error"
    code = "upstream_error"


class CredentialRejected(UpstreamError):
    """The service refused this token, in its own words."""

    code = "upstream_rejected_token"
    retryable = True
    blames_credential = True


class SignInRefused(UpstreamError):
    """The service does not let this account in; trying again changes nothing."""

    code = "sign_in_refused"


class QuotaExceeded(UpstreamError):
    """The service limits this token; `retry_after` says for how long, where it is known."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    retryable = True


class EdgeBlocked(UpstreamError):
    """A firewall or login wall in front of the service answered with a page."""

    status = 503
    code = "upstream_blocked"
    retryable = True


class UpstreamUnavailable(UpstreamError):
    """The service is down, unreachable, or answers nonsense."""

    code = "upstream_unavailable"
    retryable = True


class UpstreamTimeout(UpstreamUnavailable):
    """The service gave no sign of life for too long."""

    status = 504
    code = "upstream_timeout"


class TaskAccepted(UpstreamError):
    """The service queued the chat as a background task instead of answering it."""

    code = "upstream_task_accepted"
    retryable = True


class RequestRefused(UpstreamError):
    """The service says that the request itself is wrong.

    `unsupported`: it says that it cannot do what `param` names at all, and not that there is a mistake in it.
    """

    status = 400
    type = "invalid_request_error"
    code = "upstream_refused"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        unsupported: bool = False,
    ) -> None:
        super().__init__(message, param=param, code=code, status=status)
        self.unsupported = unsupported


class UpstreamModelUnknown(RequestRefused):
    """The service does not know the model id that was sent: time to ask for its list again."""

    status = 404
    code = "model_not_found"


class StreamBroken(UpstreamError):
    """The answer stopped in its middle."""

    code = "upstream_stream_broken"


class StructuredOutputFailed(UpstreamError):
    """The answer is not the JSON that was asked for. Its `text`, cut if it is very long, goes with the error."""

    code = "structured_output_failed"

    def __init__(self, message: str, *, text: str) -> None:
        super().__init__(message)
        self.details = {"text": text[:MAX_TEXT_IN_DETAILS]}

    @property
    def headers(self) -> dict[str, str]:
        """The model was asked again already: clients that would send the request once more are told not to."""
        return {**super().headers, "x-should-retry": "false"}
