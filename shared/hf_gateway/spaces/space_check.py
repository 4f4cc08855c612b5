"""How a target stands: what the guard of a chain knows of its vectors."""

from dataclasses import dataclass, field
from typing import Literal

from hf_gateway.errors import GatewayError
from hf_gateway.spaces.fingerprint import Comparison, Rows
from hf_gateway.spaces.request_canaries import CanaryRecord


@dataclass
class SpaceCheck:
    """How a target stands.

    requests: all that were answered; vouched: how many of them were followed by a canary; rows: what the target's canaries
    must be; reference: the fingerprint it was let in by; fits: whether that is the one of the chain's first vector.
    """

    state: Literal["unchecked", "same", "quarantined"] = "unchecked"
    against: str | None = None
    comparison: Comparison | None = None
    error: GatewayError | None = None
    requests: int = 0
    checked_at_request: int = 0
    rows: Rows | None = field(default=None, repr=False)
    reference: Rows | None = field(default=None, repr=False)
    fits: bool = False
    canaries: CanaryRecord = field(default_factory=CanaryRecord, repr=False)
