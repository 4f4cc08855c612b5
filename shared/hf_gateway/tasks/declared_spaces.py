"""Refuses chains whose targets declare different vector spaces."""

from collections.abc import Sequence

from hf_gateway.backends.vectors import VectorAbility
from hf_gateway.errors import SpaceMismatch
from hf_gateway.spaces.binding import SpaceBinding
from hf_gateway.values.vector_space import VectorSpace


def declared_space(abilities: Sequence[VectorAbility], *, merge: bool) -> VectorSpace:
    """Return the space that a chain declares: its first target's, completed by the others' if they are to be one.

    Args:
        abilities: the chain's targets.
        merge: whether all targets are of one space.
    """
    space = abilities[0].space()
    if merge:
        for ability in abilities[1:]:
            space = space.merged(ability.space())
    return space


def refuse_mixed_spaces(abilities: Sequence[VectorAbility]) -> None:
    """Raise SpaceMismatch, naming the fields and what to do, for targets that declare different vector spaces."""
    first, *others = abilities
    known = first.space()
    for ability in others:
        space = ability.space()
        if differences := known.differences(space):
            lines = "".join(f"\n  - {difference}" for difference in differences)
            raise SpaceMismatch(
                f"the targets {first.target.label!r} and {ability.target.label!r} do not share one vector space, so vectors "
                f"of one could not be compared with vectors of the other:{lines}\n  Ways out: give both the same model; leave "
                "one of them out; let the first one that answers decide, and the other never be mixed in "
                "(on_space_change='separate'); or, if they are the same in truth, declare it: "
                f"Target({ability.target.kind!r}, ..., space=VectorSpace({known.model!r}))"
            )
        known = known.merged(space)


def refuse_unbindable(spaces: Sequence[VectorSpace], binding: SpaceBinding) -> None:
    """Raise SpaceMismatch if no target could return vectors of the space that a chain is to be bound to.

    Args:
        spaces: those of the targets.
        binding: the binding.
    """
    promised = [binding.pinned, *(lock.space for lock in binding.locks)]
    for space in filter(None, promised):
        differences = [space.differences(own) for own in spaces]
        if all(differences):
            raise SpaceMismatch(
                f"this copy would answer in another space than its original, which has given vectors of {space.model} or is "
                f"locked to an index of it: {differences[0][0]}. Build a new chain instead of copying one"
            )
