"""Asks a server once which vector space it serves; a failure of that is never an error by itself."""

from collections.abc import Callable
from dataclasses import dataclass

from hf_gateway.backends.vectors import VectorAbility
from hf_gateway.errors import AttemptTimedOut, ConnectFailed, GatewayError, Overloaded, RateLimited, ServerError
from hf_gateway.runtime.effects import Effects
from hf_gateway.values.logs import logger
from hf_gateway.values.target import Target
from hf_gateway.values.vector_space import VectorSpace, canonical
from hf_gateway.wire import tei

log = logger(__name__)

MAX_TRIES = 2
"""How often a server that does not answer is asked; a refusal is final."""
_PASSING = (AttemptTimedOut, ConnectFailed, Overloaded, RateLimited, ServerError)


@dataclass
class ProbeOnce:
    """The space that a target reported; None if it reported none, or could not be asked."""

    answer: VectorSpace | None = None
    """The reported space."""
    settled: bool = False
    """Whether it need not be asked again."""
    failures: int = 0
    """How often it did not answer."""

    def run(self, ask: Callable[[], Effects], target: str) -> Effects:
        """Ask the target, unless that was done; returns a `VectorSpace`, or None. Errors show in the first real request.

        Args:
            ask: makes the effects of the request.
            target: label for the log.
        """
        if self.settled:
            return self.answer
        try:
            self.answer = yield from ask()
            self.settled = True
        except GatewayError as error:
            self.failures += 1
            self.settled = not isinstance(error, _PASSING) or self.failures >= MAX_TRIES
            log.debug("%s: its vector space is unknown: %s", target, error)
        return self.answer


def space_from_info(info: tei.Info, ability: VectorAbility) -> VectorSpace:
    """Return the space that text-embeddings-inference reports, as far as it can be compared with the declared one.

    A branch's name cannot be compared with a commit, nor a folder's with a model's; and the place of truncation matters only if
    truncation is allowed.

    Args:
        info: the server's report.
        ability: the ability of its target.
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
    """Return whether the server names another model than the target, and they were not declared to be the same.

    Args:
        info: the server's report.
        target: the target.
    """
    wanted = target.model
    # A folder's name does not identify the model in it; two different Hub ids do.
    if wanted is None or target.space is not None or not _is_id(info.model) or not _is_id(wanted):
        return False
    return canonical(wanted).lower() not in (canonical(info.model).lower(), (info.served_as or "").lower())


def is_commit(revision: str | None) -> bool:
    """Return whether a revision is a full commit hash: not a branch, not a tag."""
    return revision is not None and len(revision) == 40 and set(revision) <= set("0123456789abcdef")


def _is_id(name: str) -> bool:
    return "/" in canonical(name) and not name.startswith((".", "/", "~"))
