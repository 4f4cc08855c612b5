"""The policy of retries and timeouts that follows from the settings of any task."""

from hf_gateway.chain.timeouts import Policy
from hf_gateway.settings.base import ChainOptions


def policy_of(settings: ChainOptions) -> Policy:
    """Return the policy for the settings that all tasks share."""
    return Policy(
        deadline=settings.timeout,
        answer_timeout=settings.attempt_timeout,
        connect_timeout=settings.connect_timeout,
        max_retries=settings.max_retries,
        progress_timeout=settings.attempt_timeout,
    )
