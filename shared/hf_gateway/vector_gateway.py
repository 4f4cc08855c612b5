"""The gateway that all tasks share whose answers are vectors: one vector space for the life of a chain and of its copies."""

from collections.abc import Sequence
from typing import Any, ClassVar

from hf_gateway.backends.vectors import VectorAbility
from hf_gateway.errors import GatewayError
from hf_gateway.gateway import Gateway
from hf_gateway.settings.spaces import SpaceOptions
from hf_gateway.spaces.binding import SpaceBinding
from hf_gateway.spaces.fingerprint import Rows
from hf_gateway.spaces.guard import Guard
from hf_gateway.tasks.declared_spaces import declared_space, refuse_mixed_spaces, refuse_unbindable
from hf_gateway.tasks.vectors import VectorCandidate
from hf_gateway.values.vector_space import VectorSpace


class VectorGateway(Gateway):
    """A gateway whose targets answer in one vector space, or, with on_space_change="separate", in that of its first vector."""

    ability_class: ClassVar[type[VectorAbility]] = VectorAbility
    candidates: tuple[VectorCandidate[Any], ...]

    @property
    def space_options(self) -> SpaceOptions:
        """The settings of the chain that its vectors depend on."""
        assert isinstance(self.settings, SpaceOptions)
        return self.settings

    def _build_guard(self, abilities: Sequence[VectorAbility]) -> Guard:
        """Build the guard of the chain's vectors. Raises SpaceMismatch for targets of different spaces."""
        one_space = self.space_options.on_space_change == "refuse"
        if len(abilities) > 1 and one_space:
            refuse_mixed_spaces(abilities)
        self._guard = Guard(self.space_options, lambda: declared_space(abilities, merge=one_space))
        return self._guard

    @property
    def space(self) -> VectorSpace:
        """The vector space of this chain, as far as it is declared; reads only files of this machine."""
        if (pinned := self._guard.pinned) is not None:
            return pinned
        abilities = [candidate.ability for candidate in self.candidates]
        return declared_space(abilities, merge=self.space_options.on_space_change == "refuse")

    @property
    def final_space(self) -> VectorSpace | None:
        """The space of all further vectors; None while on_space_change="separate" leaves it open."""
        space = self.space
        if self._guard.pinned is None and any(candidate.space.id != space.id for candidate in self.candidates):
            return space if self.space_options.on_space_change == "refuse" else None
        return space

    @property
    def space_binding(self) -> SpaceBinding:
        """The binding of this chain and its copies to one space, by the first vector."""
        return self._guard.binding()

    def bind_space(self, binding: SpaceBinding | None) -> None:
        """Bind this chain, which has returned no vector yet, to the space of another; reads no file, sends no request.

        Copies and pickles do this by themselves.

        Raises:
            SpaceMismatch: no target of this chain has that space.
        """
        if binding is None:
            return
        refuse_unbindable([self._guard.space_of(candidate) for candidate in self.candidates], binding)
        self._guard.bind(binding)

    def measure(self) -> list[Rows | GatewayError]:
        """Embed the canary texts with each target, in both roles; returns the error of a target that failed. Stores nothing."""
        self._prepare()
        found: list[Rows | GatewayError] = []
        for candidate in self.candidates:
            try:
                if (refusal := candidate.refusal()) is not None:
                    raise refusal
                effects = self._guard.measure(candidate)
                found.append(self._driver.perform(effects, timeout=self.settings.timeout, target=candidate.label))
            except GatewayError as error:
                found.append(error)
        return found

    def served_space(self, candidate: VectorCandidate[Any]) -> VectorSpace | None:
        """Ask a target which space it serves, without letting it compute; None if it does not report one."""
        space: VectorSpace | None = self._ask(candidate.served_space(), candidate.label)
        return space

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings and the space binding; connections, models and keys are left out."""
        return (_rebuilt, (type(self), self.settings, self.space_binding))


def _rebuilt(kind: type[VectorGateway], settings: Any, binding: SpaceBinding) -> VectorGateway:
    """Build a gateway from its pickle."""
    made: VectorGateway = kind.from_settings(settings)
    made.bind_space(binding)
    return made
