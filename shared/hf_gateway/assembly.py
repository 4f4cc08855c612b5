"""How a chain is put together: whose key goes where, which spaces go together, how long things may take."""

from collections.abc import Sequence

from hf_gateway.backends import backend_class
from hf_gateway.credentials import is_hugging_face, origin_of
from hf_gateway.errors import ConfigError, SpaceMismatch
from hf_gateway.link import TargetCandidate
from hf_gateway.options import ChatSettings, EmbedSettings
from hf_gateway.pace import Policy
from hf_gateway.secret import Secret
from hf_gateway.space import VectorSpace
from hf_gateway.spaces.binding import SpaceBinding
from hf_gateway.target import Target

WHOLE_ANSWER_SILENCE_S = 120.0
"""Seconds without a byte of an answer that is wanted whole, where no other target could take over and the caller set no
`attempt_timeout`: the server may be loading a model or reading a long prompt."""


def refuse_mixed_spaces(candidates: Sequence[TargetCandidate]) -> None:
    """Raise SpaceMismatch, naming the fields and the ways out, for targets that declare different vector spaces."""
    first, *others = candidates
    known = first.backend.space()
    for candidate in others:
        space = candidate.backend.space()
        if differences := known.differences(space):
            lines = "".join(f"\n  - {difference}" for difference in differences)
            raise SpaceMismatch(
                f"the targets {first.label!r} and {candidate.label!r} do not share one vector space, so vectors of one could "
                f"not be compared with vectors of the other:{lines}\n  Ways out: give both the same model; leave one of "
                "them out; let the first one that answers decide, and the other never be mixed in "
                "(on_space_change='separate'); or, if they are the same in truth, declare it: "
                f"Target({candidate.backend.target.kind!r}, ..., space=VectorSpace({known.model!r}))"
            )
        known = known.merged(space)


def refuse_unbindable(spaces: Sequence[VectorSpace], binding: SpaceBinding) -> None:
    """Raise SpaceMismatch where no target could give vectors of the space that a chain is to be bound to."""
    promised = [binding.pinned, *(lock.space for lock in binding.locks)]
    for space in filter(None, promised):
        differences = [space.differences(own) for own in spaces]
        if all(differences):
            raise SpaceMismatch(
                f"this copy would answer in another space than its original, which has given vectors of {space.model} or is "
                f"locked to an index of it: {differences[0][0]}. Build a new chain instead of copying one"
            )


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


def targets_of_key(
    targets: Sequence[Target], api_key: Secret | None, settings: EmbedSettings | ChatSettings
) -> list[Target]:
    """Say which targets the class's one key is meant for: Hugging Face's hosts, or the one server of the caller's own.

    Raises ConfigError when it could be meant for several servers, or would go to a host that nobody bound it to.
    """
    if api_key is None:
        return []
    probes = [
        (target, backend_class(target.kind)(target, settings).key_url)
        for target in targets
        if target.credential is None
    ]
    ours = [target for target, url in probes if url is not None and is_hugging_face(url)]
    theirs = [
        (target, url)
        for target, url in probes
        if url is not None and not is_hugging_face(url) and target.url is not None
    ]
    if api_key.reveal().startswith("hf_") or (ours and not theirs):
        if not ours and theirs:
            target = theirs[0][0]
            raise ConfigError(
                f"api_key is a Hugging Face token, and it is not sent to {target.label!r} by itself; "
                f"if it is meant for that server, bind it: Target({target.kind!r}, url=..., credential=...)"
            )
        return ours
    origins = {origin_of(url) for _, url in theirs if url is not None}
    if len(origins) > 1:
        raise ConfigError(
            f"api_key could be meant for {len(origins)} servers ({', '.join(sorted(origins))}); "
            "give each its own: Target(..., credential=...)"
        )
    return [target for target, _ in theirs]
