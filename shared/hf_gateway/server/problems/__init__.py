"""What went wrong with a request, in one form: the surfaces write it in theirs.

The one table from the classes of `errors.py` to HTTP is here. A target that refuses the gateway's own key, or has no such model,
is no fault of the caller: it is 502, and never 401 or 404, which a client would take for its own.
"""

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from hf_gateway import errors
from hf_gateway.errors import GatewayError, visible
from hf_gateway.values.redaction import without_gateway_keys

MAX_MESSAGE_CHARS = 8000
"""Characters of a message, which may repeat what the caller sent."""
MAX_FAULTS_COUNT = 100
"""Faults of a body up to which the first one is looked for: pydantic lists them all."""
CLIENT_CLOSED_STATUS = 499
"""The status by which a request is counted whose client left before its answer."""


class Problem(Exception):
    """A request that cannot be answered.

    Attributes:
        status: of HTTP.
        code: a short name, the same on all surfaces.
        message: what happened and what to do, for the reader.
        retry_after: seconds after which to try again, or None.
        param: the field of the body that is at fault, or None.
        should_retry: whether the client's library may send the request again by itself; None leaves that to the client.
        headers: more headers of the answer.
        kind: the class of the gateway's error, or None.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after: float | None = None,
        param: str | None = None,
        should_retry: bool | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        kind: str | None = None,
    ) -> None:
        """Store the facts."""
        self.message = without_gateway_keys(visible(_bounded(message), lines=True))
        super().__init__(self.message)
        self.status, self.code, self.retry_after, self.param = status, code, retry_after, param
        self.should_retry, self.headers, self.kind = should_retry, headers, kind

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that every surface sends with it."""
        found = list(self.headers)
        if self.retry_after is not None:
            found.append((b"retry-after", b"%d" % max(1, -(-self.retry_after // 1))))
        if self.should_retry is not None:
            found.append((b"x-should-retry", b"true" if self.should_retry else b"false"))
        return found


def _bounded(message: str) -> str:
    if len(message) <= MAX_MESSAGE_CHARS:
        return message
    # Keys are hidden before the cut: a part of one would not be known for one.
    return f"{without_gateway_keys(message)[:MAX_MESSAGE_CHARS]} …"


STATUSES: tuple[tuple[type[GatewayError], int, str], ...] = (
    (errors.Quarantined, 502, "space_quarantined"),
    (errors.SpaceMismatch, 502, "space_mismatch"),
    (errors.ConfigError, 500, "configuration_error"),
    (errors.ContextOverflow, 400, "context_length_exceeded"),
    (errors.InvalidRequest, 400, "invalid_request"),
    (errors.ContentFiltered, 400, "content_filter"),
    (errors.BatchTooLarge, 413, "request_too_large"),
    (errors.StreamInterrupted, 502, "stream_interrupted"),
    (errors.KeyMissing, 503, "upstream_key_missing"),
    (errors.AuthenticationFailed, 502, "upstream_authentication_failed"),
    (errors.PermissionDenied, 502, "upstream_permission_denied"),
    (errors.PaymentRequired, 502, "upstream_payment_required"),
    (errors.BudgetExceeded, 402, "budget_exceeded"),
    (errors.BudgetUnavailable, 503, "budget_unavailable"),
    (errors.Unsupported, 501, "unsupported"),
    (errors.ModelNotFound, 502, "upstream_model_not_found"),
    (errors.RateLimited, 429, "rate_limited"),
    (errors.ModelLoading, 503, "model_loading"),
    (errors.Overloaded, 503, "overloaded"),
    (errors.EngineMissing, 503, "engine_missing"),
    (errors.EngineFailed, 500, "engine_failed"),
    (errors.ServerError, 502, "upstream_error"),
    (errors.ConnectFailed, 502, "upstream_unreachable"),
    (errors.AttemptTimedOut, 504, "upstream_timeout"),
    (errors.DeadlineExceeded, 504, "deadline_exceeded"),
    (errors.BadResponse, 502, "upstream_bad_response"),
    (errors.Unavailable, 503, "unavailable"),
    (errors.GatewayError, 500, "error"),
)
"""Class of error → HTTP status and code; the first row whose class fits."""
ALL_FAILED = (503, "all_targets_failed")
"""Of targets that failed for several reasons."""


def status_of(error: GatewayError) -> tuple[int, str]:
    """Return the HTTP status and the code of a gateway's error; of several targets, theirs if all failed alike."""
    if isinstance(error, errors.AllTargetsFailed):
        found = {status_of(each) for each in error.errors}
        return found.pop() if len(found) == 1 else ALL_FAILED
    return next((status, code) for kind, status, code in STATUSES if isinstance(error, kind))


def of_error(error: GatewayError, public: Callable[[str], str] = str) -> Problem:
    """Return the problem of a gateway's error.

    Args:
        error: what the gateway raised.
        public: replaces the addresses of targets in a text.
    """
    status, code = status_of(error)
    # The chain has retried and gone to its last target: a client that sends it again would do that work twice.
    tried = bool(error.attempts) or isinstance(error, errors.AllTargetsFailed)
    return Problem(
        status,
        code,
        public(str(error)),
        retry_after=error.retry_after,
        should_retry=False if tried else None,
        kind=type(error).__name__,
    )


def of_validation(error: ValidationError) -> Problem:
    """Return the problem of a body that is invalid: names the first field, and never its value."""
    if error.error_count() > MAX_FAULTS_COUNT:
        return Problem(
            400, "invalid_request", f"the request has {error.error_count():,} fields that are unknown or invalid"
        )
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    # The names of union members are no fields; a caller knows what they sent, not our types.
    place = [str(part) for part in first["loc"] if isinstance(part, int) or part.isidentifier()]
    words = first["msg"].removeprefix("Value error, ")
    field = ".".join(place) or None
    return Problem(400, "invalid_request", f"{field}: {words}" if field else words, param=field)


def not_found(message: str, param: str | None = None, code: str = "not_found") -> Problem:
    """Return the problem of something that does not exist.

    Args:
        message: what, and what there is instead.
        param: the field that names it.
        code: the code, if it is another one.
    """
    return Problem(404, code, message, param=param)


def unexpected(request_id: str) -> Problem:
    """Return the problem of a fault in this program, whose details are in the log alone."""
    return Problem(500, "internal_error", f"the server failed; its log has the details under {request_id}")


def as_dict(problem: Problem) -> dict[str, Any]:
    """Return the form of surfaces that have none of their own: `{"error": message, "code": code}`."""
    return {"error": problem.message, "code": problem.code}
