"""The status of a chain's targets, for `Gateway.status()`, `Gateway.check()` and `doctor`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hf_gateway.backends.base import ProbeReport
from hf_gateway.errors import GatewayError
from hf_gateway.keys.policy import missing_key_hint
from hf_gateway.runtime.effects import Effects
from hf_gateway.tasks.candidate import TargetCandidate
from hf_gateway.values.kinds import Access
from hf_gateway.values.secret import KeyReference


@dataclass(frozen=True)
class TargetStatus:
    """The status of a target, without asking it."""

    target: str
    """The target's label."""
    ready: bool
    """Whether it may be called now."""
    reason: str | None
    """Why it may not be called."""
    retry_in: float | None
    """Seconds until it may be called."""
    needs_key: str
    """Whether it needs a key: "never", "optional" or "required"."""
    key_reason: str
    """Why."""
    key_source: str | None
    """Where a key was found (never the key itself), or None."""
    fix: str | None
    """What to do about a missing key, or None."""
    space_check: str | None = None
    """The result of its space check: "unchecked", "same" or "quarantined"; None for chat."""
    worst_cosine: float | None = None
    """The lowest cosine of any canary text, if it was measured."""
    breaker: str = "closed"
    """"closed", "open", "half-open" or "resting"."""


@dataclass(frozen=True)
class TargetCheck:
    """The result of asking a target."""

    status: TargetStatus
    """Its status."""
    answers: bool
    """Whether it answered."""
    report: ProbeReport
    """What it reports about itself."""
    error: str | None
    """Why it did not answer."""
    seconds: float | None = None
    """How long it took to answer, or to fail; None if it was not asked."""

    @property
    def fix(self) -> str | None:
        """What to do if it does not answer, or why it does not."""
        return None if self.answers else self.status.fix or self.error


def status_of(candidate: TargetCandidate, now: float, access: Access = "unknown") -> TargetStatus:
    """Return a target's status, without asking it.

    Args:
        candidate: the target.
        now: the time, by the chain's clock.
        access: who may download its model.
    """
    server = candidate.server
    needed = server.key_requirement(access)
    credential = server.credential()
    way = _refused_key(candidate) or missing_key_hint(
        server.target, needed, credential, server.key_url, alone=candidate.alone
    )
    state = candidate.breaker.state(now)
    blocked = state.state in ("open", "resting")
    space_check = candidate.space_check
    refused = space_check.error.message if space_check and space_check.error else None
    worst = space_check.comparison.worst if space_check and space_check.comparison else {}
    return TargetStatus(
        target=candidate.label,
        breaker=state.state,
        ready=way is None and not blocked and refused is None,
        reason=way or refused or (f"{state.state}: {state.reason}" if blocked else None),
        retry_in=max(0.0, state.until - now) if blocked and state.until is not None else None,
        needs_key=needed.level.value,
        key_reason=needed.reason,
        key_source=credential.source if credential is not None else None,
        fix=way,
        space_check=space_check.state if space_check else None,
        worst_cosine=min(worst.values(), default=None),
    )


def _refused_key(candidate: TargetCandidate) -> str | None:
    bound = candidate.target.credential
    return bound.refusal if isinstance(bound, KeyReference) else None


def check_target(
    candidate: TargetCandidate, now: Callable[[], float], perform: Callable[[Effects, str], Any]
) -> TargetCheck:
    """Ask a target what it serves.

    Args:
        candidate: the target.
        now: the chain's clock.
        perform: runs effects for a label, and returns their result.
    """
    began = now()
    status = status_of(candidate, began)
    # A server whose key is not sent is asked all the same: it may not need one.
    if status.fix is not None and _refused_key(candidate) is None:
        return TargetCheck(status, False, ProbeReport(), status.fix)
    try:
        report: ProbeReport = perform(candidate.probe(), candidate.label)
    except GatewayError as error:
        return TargetCheck(status, False, ProbeReport(), error.message, now() - began)
    ended = now()
    if report.access != "unknown":
        status = status_of(candidate, ended, report.access)
    return TargetCheck(status, status.fix is None, report, status.fix, ended - began)
