"""The result of a target's space check."""

from dataclasses import dataclass, field
from typing import Literal

from hf_gateway.errors import GatewayError
from hf_gateway.spaces.fingerprint import Comparison, Rows
from hf_gateway.spaces.request_canaries import CanaryRecord


@dataclass
class SpaceCheck:
    """What the guard of a chain knows about a target's vectors."""

    state: Literal["unchecked", "same", "quarantined"] = "unchecked"
    """"same" once they were measured and agree."""
    against: str | None = None
    """What they were compared with, in words."""
    comparison: Comparison | None = None
    """The last comparison."""
    error: GatewayError | None = None
    """Why the target is quarantined."""
    requests: int = 0
    """Answered requests."""
    checked_at_request: int = 0
    """The value of `requests` at the last periodic canary."""
    rows: Rows | None = field(default=None, repr=False)
    """The vectors that the target's canaries must have."""
    reference: Rows | None = field(default=None, repr=False)
    """The fingerprint that it was compared with."""
    fits: bool = False
    """Whether that is the fingerprint of the chain's first vector."""
    canaries: CanaryRecord = field(default_factory=CanaryRecord, repr=False)
    """What the canaries in its requests have shown."""
