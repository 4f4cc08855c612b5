"""What servers say of the vectors they make: asked for once, kept, and never a failure by itself."""

from collections.abc import Callable
from dataclasses import dataclass

from hf_gateway.backends.embedding import EmbeddingAbility
from hf_gateway.errors import AttemptTimedOut, ConnectFailed, GatewayError, Overloaded, RateLimited, ServerError
from hf_gateway.runtime.effects import Effects
from hf_gateway.values.logs import logger
from hf_gateway.values.target import Target
from hf_gateway.values.vector_space import VectorSpace, canonical
from hf_gateway.wire import tei

log = logger(__name__)

MAX_TRIES = 2
"""Times a server is asked that did not answer; whoever says no is not asked again."""
_PASSING = (AttemptTimedOut, ConnectFailed, Overloaded, RateLimited, ServerError)


@dataclass
class ProbeOnce:
    """What a target said of its space; None where it said nothing, or could not be asked."""

    answer: VectorSpace | None = None
    settled: bool = False
    failures: int = 0

    def run(self, ask: Callable[[], Effects], target: str) -> Effects:
        """Ask, unless that was done; returns a `VectorSpace`, or None. The first real request will tell of what is wrong."""
        if self.settled:
            return self.answer
        try:
            self.answer = yield from ask()
            self.settled = True
        except GatewayError as error:
            self.failures += 1
            self.settled = not isinstance(error, _PASSING) or self.failures >= MAX_TRIES
            log.debug("%s: what it says of its vector space is not known: %s", target, error)
        return self.answer


def space_from_info(info: tei.Info, ability: EmbeddingAbility) -> VectorSpace:
    """Return what text-embeddings-inference says, as far as it can be compared with what is declared for this target.

    A branch's name cannot be compared with a commit, nor a folder's with a model's; and where a text is cut matters only
    when cutting it is allowed.
    """
    target = ability.target
    return VectorSpace(
        info.model if is_other_model(info, target) else ability.model_space().model,
        revision=info.revision if is_commit(target.revision) and is_commit(info.revision) else None,
        pooling=info.pooling,
        max_tokens=info.max_tokens if ability.options.truncate else None,
        precision=info.precision,
    )


def is_other_model(info: tei.Info, target: Target) -> bool:
    """Whether the server names another model than the target, and nobody declared the two to be the same."""
    wanted = target.model
    # A folder's name says nothing about the model in it; two different Hub ids do.
    if wanted is None or target.space is not None or not _is_id(info.model) or not _is_id(wanted):
        return False
    return canonical(wanted).lower() not in (canonical(info.model).lower(), (info.served_as or "").lower())


def is_commit(revision: str | None) -> bool:
    """Whether this names one state of the files, as git does: not a branch, not a tag."""
    return revision is not None and len(revision) == 40 and set(revision) <= set("0123456789abcdef")


def _is_id(name: str) -> bool:
    return "/" in canonical(name) and not name.startswith((".", "/", "~"))
