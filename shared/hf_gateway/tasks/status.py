"""How the targets of a chain stand: what `Gateway.status()`, `Gateway.check()` and `doctor` say of each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hf_gateway.backends.base import ProbeReport
from hf_gateway.errors import GatewayError
from hf_gateway.keys.policy import missing_key_hint
from hf_gateway.runtime.effects import Effects
from hf_gateway.tasks.candidate import TargetCandidate
from hf_gateway.values.kinds import Access
from hf_gateway.values.secret import EnvKey


@dataclass(frozen=True)
class TargetStatus:
    """One target as it stands now, without asking it.

    ready: may be called; reason: why not; retry_in: seconds until it may be; needs_key, key_reason: the policy's answer;
    key_source: where a key was found (never the key), or None; space_check: how its vectors stand to the space's fingerprint,
    "unchecked", "same" or "quarantined", None for chat; worst_cosine: the lowest cosine of any canary text, where measured;
    breaker: "closed", "open", "half-open" or "resting".
    """

    target: str
    ready: bool
    reason: str | None
    retry_in: float | None
    needs_key: str
    key_reason: str
    key_source: str | None
    fix: str | None
    space_check: str | None = None
    worst_cosine: float | None = None
    breaker: str = "closed"


@dataclass(frozen=True)
class TargetCheck:
    """One target after it was asked. status: as above; answers: whether it did; report: what it serves; error: why not."""

    status: TargetStatus
    answers: bool
    report: ProbeReport
    error: str | None


def status_of(candidate: TargetCandidate, now: float, access: Access = "unknown") -> TargetStatus:
    """Say how a target stands, without asking it; `now` by the chain's clock."""
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
    return bound.refusal if isinstance(bound, EnvKey) else None


def check_target(candidate: TargetCandidate, now: float, perform: Callable[[Effects, str], Any]) -> TargetCheck:
    """Ask a target what it serves; `perform` carries effects out."""
    status = status_of(candidate, now)
    # A server whose key is not sent is asked all the same: it may be there, and need none.
    if status.fix is not None and _refused_key(candidate) is None:
        return TargetCheck(status, False, ProbeReport(), status.fix)
    try:
        report: ProbeReport = perform(candidate.ability.probe(), candidate.label)
    except GatewayError as error:
        return TargetCheck(status, False, ProbeReport(), error.message)
    if report.access != "unknown":
        status = status_of(candidate, now, report.access)
    return TargetCheck(status, status.fix is None, report, status.fix)
