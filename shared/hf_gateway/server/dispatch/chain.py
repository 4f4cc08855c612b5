"""One chain that the server serves: what callers see of it, and its variants with one target alone or with other settings."""

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.gateway import Gateway
from hf_gateway.settings.base import NamedSettings
from hf_gateway.values.kinds import kind_of
from hf_gateway.values.target import Target, is_path
from hf_gateway.values.vector_space import VectorSpace
from hf_gateway.vector_gateway import VectorGateway

MAX_VARIANTS_COUNT = 16
"""How many variants of one chain are kept: with one of its targets alone, or with shorter vectors."""
_MAX_NUMBER_DIGITS = 4
_ADDRESS = re.compile(r" ?\('[0-9A-Fa-f.:%\w]+', \d+(?:, \d+, \d+)?\)")
"""An address as asyncio writes it where it cannot connect, such as `('127.0.0.1', 8080)`: of a name, what it resolves to."""


class UnknownModel(Exception):
    """No chain has the model that a request names.

    Attributes:
        message: what there is instead.
    """

    def __init__(self, message: str) -> None:
        """Store the message."""
        super().__init__(message)
        self.message = message


@dataclass(eq=False)
class Chain:
    """One chain, ready to serve."""

    name: str
    """Its name in the configuration."""
    task: str
    """The name of its task."""
    gateway: Any
    """The gateway, of the class of its task."""
    opened: bool = False
    """Whether it was made for a model that a caller named, by `[server.open]`."""
    dropped: "list[Chain]" = field(default_factory=list, repr=False)
    """Where variants go that are no longer kept, to be closed after the last request that uses them."""
    _base: "Chain | None" = field(default=None, repr=False)
    """The chain of the configuration that it is a variant of; None for that chain itself."""
    _form: "tuple[int | None, Mapping[str, Any]]" = (None, MappingProxyType({}))
    """In what it differs from that: the number of its only target, None for all, and other settings."""
    _variants: "OrderedDict[tuple[Any, ...], Chain]" = field(default_factory=OrderedDict)

    @property
    def settings(self) -> NamedSettings:
        """The settings of the gateway."""
        found: NamedSettings = self.gateway.settings
        return found

    @cached_property
    def model(self) -> str:
        """The model's id as callers see it: the chain's own, that of its first target, or the chain's name.

        Of a model in a folder only the last part of the path.
        """
        found = self.gateway.model or self.gateway.targets[0].model
        return _public_model(found) if found else self.name

    @property
    def space(self) -> VectorSpace | None:
        """The vector space of its answers; None for a task without vectors."""
        return self.gateway.space if hasattr(type(self.gateway), "space") else None

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """The labels of the targets → the same without addresses, by kind and model."""
        return {target.label: public_label(target, self.model) for target in self.gateway.targets}

    def served_by(self, labels: str | Sequence[str]) -> str:
        """Return which targets served, by kind and model, for a header.

        Args:
            labels: `served_by` of a result.
        """
        if isinstance(labels, str):
            return self.labels.get(labels, labels)
        return ", ".join(self.labels.get(label, label) for label in labels)

    def public(self, text: str) -> str:
        """Return a text of an error without the addresses of the chain's targets."""
        for target in self.gateway.targets:
            text = text.replace(target.label, self.labels[target.label])
            if target.url is not None:
                name = self.labels[target.label]
                text = text.replace(target.url, name).replace(target.url.partition("://")[2].partition("/")[0], name)
        return _ADDRESS.sub("", text)

    def with_target(self, name: str) -> "Chain":
        """Return the chain with one of its targets alone. Raises UnknownModel for a name that it has not.

        Args:
            name: of the target, by kind and model as in `x-hf-gateway-served-by`, or its number from 0.
        """
        targets = self.gateway.targets
        names = [self.labels[target.label] for target in targets]
        if name in names:
            place = names.index(name)
        elif name.isascii() and name.isdigit() and len(name) <= _MAX_NUMBER_DIGITS and int(name) < len(targets):
            place = int(name)
        else:
            raise UnknownModel(f"the chain {self.name!r} has no target {name!r}{did_you_mean(name, names)}")
        if len(targets) == 1:
            return self
        return (self._base or self)._variant(place, self._form[1])

    def with_settings(self, **changes: Any) -> "Chain":
        """Return the chain with other settings; its vectors may then be of another space.

        changes: fields of `settings`, with valid values.

        Raises:
            ConfigError: the chain cannot have them.
        """
        base = self._base or self
        place, before = self._form
        wanted = {name: value for name, value in {**before, **changes}.items() if getattr(base.settings, name) != value}
        return base._variant(place, wanted)

    @property
    def variants(self) -> "tuple[Chain, ...]":
        """The variants of it that are kept."""
        return tuple(self._variants.values())

    async def aclose(self) -> None:
        """Close the gateway, and those of its variants."""
        await self.gateway.aclose()
        for chain in self.variants:
            await chain.aclose()

    def _variant(self, place: int | None, changes: Mapping[str, Any]) -> "Chain":
        """Return a variant of this chain of the configuration, or itself. Raises ConfigError.

        Args:
            place: the number of its only target; None for all.
            changes: other settings.
        """
        if place is None and not changes:
            return self
        if place is None and chooses_space(self.gateway) and changes.keys() & self.gateway.space_options.space_fields:
            # The space that the targets chose does not hold for vectors of another form: those are always of the first target.
            self._refuse_another_space()
            place = 0
        key = (place, tuple(sorted(changes.items())))
        found = self._variants.pop(key, None)
        if found is None:
            found = Chain(self.name, self.task, self._varied(place, changes), dropped=self.dropped)
            found._base, found._form = self, (place, changes)
            while len(self._variants) >= MAX_VARIANTS_COUNT:
                self.dropped.append(self._variants.popitem(last=False)[1])
        self._variants[key] = found
        return found

    def _varied(self, place: int | None, changes: Mapping[str, Any]) -> Gateway:
        targets = {} if place is None else {"targets": (self.gateway.targets[place],)}
        made: Gateway = Gateway.from_settings(self.settings.model_copy(update={**changes, **targets}))
        if place is None and chooses_space(self.gateway):
            assert isinstance(made, VectorGateway)
            made.bind_space(self.gateway.space_binding)
        return made

    def _refuse_another_space(self) -> None:
        """Raise ConfigError if the chain has answered in the space of another target than its first."""
        final, first = self.gateway.final_space, self.gateway.candidates[0].space
        if final is not None and final.differences(first):
            raise ConfigError(
                f"the chain {self.name!r} gives vectors of {final.model} since its first answer, and vectors in another form "
                f"would be of its first target, {first.model}; leave out what changes their form"
            )


def chooses_space(gateway: Gateway) -> bool:
    """Return whether the first target of a gateway that answers fixes the space of its vectors.

    Args:
        gateway: of any task.
    """
    return (
        isinstance(gateway, VectorGateway)
        and len(gateway.targets) > 1
        and gateway.space_options.on_space_change == "separate"
    )


def public_label(target: Target, model: str) -> str:
    """Return a target's name without an address: its kind, the provider if it names one, and its model.

    Args:
        target: the target.
        model: the chain's model.
    """
    if not kind_of(target.kind).has_model:
        return target.label if target.url is None else target.kind
    named = _public_model(target.model) if target.model else model
    return ":".join(filter(None, (target.kind, target.provider, named)))


def _public_model(model: str) -> str:
    return model.rstrip("/\\").replace("\\", "/").rpartition("/")[2] if is_path(model) else model
