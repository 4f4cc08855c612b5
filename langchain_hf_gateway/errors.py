"""hf-gateway's errors as LangChain's: each class here is both, so that retry and fallback middleware recognises it."""

import contextlib
from collections.abc import Iterator
from typing import Any

from langchain_core import exceptions as langchain

from hf_gateway import errors as core

_MATCHES: dict[type[core.GatewayError], type[langchain.ModelError]] = {
    core.SpaceMismatch: langchain.ModelInvalidRequestError,
    core.Quarantined: langchain.ModelInvalidRequestError,
    core.InvalidRequest: langchain.ModelInvalidRequestError,
    core.ContextOverflow: langchain.ContextOverflowError,
    core.ContentFiltered: langchain.ModelInvalidRequestError,
    core.AuthenticationFailed: langchain.ModelAuthenticationError,
    core.KeyMissing: langchain.ModelAuthenticationError,
    core.PermissionDenied: langchain.ModelPermissionDeniedError,
    core.GatedModel: langchain.ModelPermissionDeniedError,
    core.PaymentRequired: langchain.ModelPermissionDeniedError,
    core.ModelNotFound: langchain.ModelNotFoundError,
    core.Unsupported: langchain.ModelNotFoundError,
    core.RateLimited: langchain.ModelRateLimitError,
    core.ModelLoading: langchain.ModelAPIError,
    core.Overloaded: langchain.ModelAPIError,
    core.ServerError: langchain.ModelAPIError,
    core.EngineFailed: langchain.ModelAPIError,
    core.EngineMissing: langchain.ModelAPIError,
    core.ConnectFailed: langchain.ModelConnectionError,
    core.AttemptTimedOut: langchain.ModelTimeoutError,
    core.BadResponse: langchain.ModelAPIError,
    core.BadGeneration: langchain.ModelAPIError,
    core.StreamBroken: langchain.ModelAPIError,
    core.StreamInterrupted: langchain.ModelConnectionError,
    core.DeadlineExceeded: langchain.ModelTimeoutError,
    core.BudgetExceeded: langchain.ModelPermissionDeniedError,
    core.BudgetUnavailable: langchain.ModelAPIError,
}

_NOT_WORTH_A_RETRY = (core.EngineFailed,)


def _combined_class(
    ours: type[core.GatewayError], theirs: type[langchain.ModelError], name: str
) -> type[core.GatewayError]:
    made = type(name, (ours, theirs), {"__doc__": ours.__doc__, "__module__": __name__})
    if issubclass(ours, _NOT_WORTH_A_RETRY):
        made.is_retryable = False  # type: ignore[attr-defined]
    globals()[name] = made  # where pickle looks for it
    return made


_CLASSES = {ours: _combined_class(ours, theirs, ours.__name__) for ours, theirs in _MATCHES.items()}
# A chain whose targets all failed for one reason failed for that reason; otherwise it is a failure of the service.
_REASONS: set[type[langchain.ModelError]] = {langchain.ModelAPIError, *_MATCHES.values()}
_ALL_FAILED = {
    theirs: _combined_class(core.AllTargetsFailed, theirs, f"AllTargetsFailed_{theirs.__name__}") for theirs in _REASONS
}


def as_model_error(error: core.GatewayError) -> core.GatewayError:
    """Return the same error as a class that is also the matching `ModelError`; others are returned unchanged."""
    kind: type[core.GatewayError] | None
    if isinstance(error, core.AllTargetsFailed):
        reasons = {_MATCHES.get(type(each), langchain.ModelAPIError) for each in error.errors}
        kind = _ALL_FAILED[reasons.pop() if len(reasons) == 1 else langchain.ModelAPIError]
    else:
        kind = _CLASSES.get(type(error))
    if kind is None:
        return error
    made: Any = kind.__new__(kind, *error.args)
    Exception.__init__(made, *error.args)
    made.__dict__.update(error.__dict__)
    return made  # type: ignore[no-any-return]


@contextlib.contextmanager
def as_model_errors() -> Iterator[None]:
    """Re-raise hf-gateway's errors as LangChain's."""
    try:
        yield
    except core.GatewayError as error:
        raise as_model_error(error).with_traceback(error.__traceback__) from error.__cause__
