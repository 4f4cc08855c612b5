"""The policy of retries and timeouts of chat."""

from dataclasses import replace

from hf_gateway.chain.timeouts import Policy
from hf_gateway.settings.chat import ChatSettings
from hf_gateway.tasks.policies import policy_of

WHOLE_ANSWER_SILENCE_S = 120.0
"""How long an answer that is wanted whole may stay silent if no other target could take over and the caller set no
`attempt_timeout`: the server may be loading a model or reading a long prompt."""


def chat_policy(settings: ChatSettings) -> Policy:
    """Return the limits of time and number of a chat chain."""
    chosen = settings.streaming is True or "attempt_timeout" in settings.model_fields_set
    return replace(
        policy_of(settings),
        answer_timeout=settings.timeout,  # an answer that is not streamed shows no progress until it is complete
        patience=settings.patience,
        whole_progress_timeout=settings.attempt_timeout if chosen else WHOLE_ANSWER_SILENCE_S,
        first_content_timeout=settings.first_content_timeout,
        stall_timeout=settings.stall_timeout,
        next_on_content_filter=settings.next_on_content_filter,
    )
