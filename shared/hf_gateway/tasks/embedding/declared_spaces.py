"""Refuses chains whose targets declare different vector spaces."""

from collections.abc import Sequence

from hf_gateway.errors import SpaceMismatch
from hf_gateway.spaces.binding import SpaceBinding
from hf_gateway.tasks.candidate import TargetCandidate
from hf_gateway.values.vector_space import VectorSpace


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
