"""What the settings say about retries and timeouts."""

from hf_gateway.chain.timeouts import Policy
from hf_gateway.settings.chat import ChatSettings
from hf_gateway.settings.embedding import EmbedSettings

WHOLE_ANSWER_SILENCE_S = 120.0
"""Seconds without a byte of an answer that is wanted whole, where no other target could take over and the caller set no
`attempt_timeout`: the server may be loading a model or reading a long prompt."""


def policy_of(settings: EmbedSettings | ChatSettings) -> Policy:
    """Return how long and how often, as the settings of a task have it."""
    if isinstance(settings, EmbedSettings):
        return Policy(
            deadline=settings.timeout,
            answer_timeout=settings.attempt_timeout,
            connect_timeout=settings.connect_timeout,
            max_retries=settings.max_retries,
            progress_timeout=settings.attempt_timeout,
        )
    said = settings.streaming is True or "attempt_timeout" in settings.model_fields_set
    return Policy(
        deadline=settings.timeout,
        answer_timeout=settings.timeout,  # an answer that is not streamed shows no progress until it is complete
        connect_timeout=settings.connect_timeout,
        max_retries=settings.max_retries,
        patience=settings.patience,
        progress_timeout=settings.attempt_timeout,
        whole_progress_timeout=settings.attempt_timeout if said else WHOLE_ANSWER_SILENCE_S,
        first_content_timeout=settings.first_content_timeout,
        stall_timeout=settings.stall_timeout,
        next_on_content_filter=settings.next_on_content_filter,
    )
