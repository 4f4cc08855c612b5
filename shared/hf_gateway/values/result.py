"""What the results of all tasks have in common."""

from dataclasses import dataclass, field

from hf_gateway.errors import Attempt
from hf_gateway.values.usage import Usage


@dataclass(frozen=True, kw_only=True)
class Result:
    """The base of what a call returns."""

    served_by: str | tuple[str, ...]
    """Label of the target that answered; labels in their order if several answered parts of one request."""
    attempts: tuple[Attempt, ...] = ()
    """All attempts of the call."""
    usage: Usage = field(default_factory=Usage)
    """Tokens and other units, as far as the servers reported them."""
    seconds: float = 0.0
    """Duration of the whole call."""
