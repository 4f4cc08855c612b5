"""What the settings of every task say about retries and timeouts."""

from hf_gateway.chain.timeouts import Policy
from hf_gateway.settings.base import ChainOptions


def policy_of(settings: ChainOptions) -> Policy:
    """Return how long and how often the chain may try, as the settings that all tasks share have it."""
    return Policy(
        deadline=settings.timeout,
        answer_timeout=settings.attempt_timeout,
        connect_timeout=settings.connect_timeout,
        max_retries=settings.max_retries,
        progress_timeout=settings.attempt_timeout,
    )
