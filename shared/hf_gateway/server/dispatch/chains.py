"""The chains that the server serves: built once from the configuration, found by what a request calls its model.

A table is never changed: a reload builds another one, takes over the gateways whose settings are equal, and is put in its place
whole. So a request that began with one table ends with it, and breakers, budgets and loaded models survive.
"""

import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from hf_gateway.configuration.chains import built_chain, configured_chains, refuse_unknown_chains
from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.gateway import Gateway
from hf_gateway.keys.policy import KeyPolicyOverrides
from hf_gateway.ledger.file_prices import read_file_prices
from hf_gateway.ledger.prices import Prices
from hf_gateway.server.dispatch.indexes import ServedIndex, open_indexes
from hf_gateway.settings.base import NamedSettings
from hf_gateway.settings.config_file import key_policy_overrides
from hf_gateway.settings.server import OpenModels, ServerSettings
from hf_gateway.spaces.binding import SpaceBinding, SpaceDecision
from hf_gateway.tasks.registry import find_task
from hf_gateway.values.kinds import kind_of
from hf_gateway.values.target import Target, is_path
from hf_gateway.values.vector_space import VectorSpace, canonical
from hf_gateway.vector_gateway import VectorGateway

MAX_VARIANTS_COUNT = 16
"""How many variants of one chain are kept: with one of its targets alone, or with shorter vectors."""
RUN_VARIABLE = "_HF_GATEWAY_SERVER_RUN"
"""Names the run of a server to its worker processes, which choose the space of a chain together."""
_SAME_SPACE = frozenset({"truncate"})
"""Settings that vectors of different spaces do not come from."""
_FORMS = frozenset({"dimensions", "normalize", "query_prompt", "document_prompt", "revision"})
"""Settings with which a chain is another one, that chooses for itself."""
_MAX_NUMBER_DIGITS = 4
_LATEST = ":latest"
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
        if place is None and chooses_space(self.gateway) and not changes.keys() <= _SAME_SPACE:
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


class ChainTable:
    """The chains by task and name."""

    def __init__(
        self,
        chains: Sequence[Chain],
        settings: ServerSettings,
        rules: KeyPolicyOverrides = KeyPolicyOverrides(),
        prices: Prices = Prices(),
        opened: "OpenChains | None" = None,
        run: str = "",
    ) -> None:
        """Order them, and open the indexes that they embed for.

        Args:
            chains: with different names.
            settings: with aliases and defaults, which name these chains, and the targets of open models.
            rules: the owner's rules about keys, by which the gateways were built.
            prices: of the configuration.
            opened: the chains for models that none of these has; by default none yet.
            run: the run of the server that they choose their spaces in.

        Raises:
            ConfigError: an index cannot be opened, or is of a space that no chain has.
        """
        self.chains = tuple(chains)
        self.opened = opened or OpenChains(settings.open)
        """The chains for models that no chain of the configuration has."""
        self.run = run
        self.rules = rules
        self.prices = prices
        self._by_name = {chain.name: chain for chain in chains}
        self._by_task: dict[str, dict[str, Chain]] = {}
        for chain in chains:
            self._by_task.setdefault(chain.task, {})[chain.name] = chain
        self._aliases = settings.aliases
        self._defaults = settings.defaults
        self._found: dict[tuple[str | None, str], Chain] = {}
        default = self._defaults.get("embedding")
        embedding = sorted(self.of_task("embedding"), key=lambda chain: chain.name != default)
        self.indexes: Mapping[str, ServedIndex] = open_indexes(settings.indexes, embedding)

    @classmethod
    def build(
        cls,
        settings: ServerSettings,
        config: str | None = None,
        before: "ChainTable | None" = None,
        environment: Mapping[str, str] = os.environ,
    ) -> "ChainTable":
        """Build every chain of the configuration; nothing is loaded or connected to.

        Args:
            settings: of the server.
            config: the config file; by default the one in force.
            before: the table that is replaced; its gateways are kept where their settings are equal, those of open models, too.
            environment: variables that name models and targets of chains that the file does not have.

        Raises:
            ConfigError: with file and line.
        """
        rules = key_policy_overrides(config, environment)
        same_rules = before is not None and before.rules == rules
        kept = {(chain.name, chain.task): chain for chain in before.chains} if before and same_rules else {}
        opened = OpenChains(settings.open, before.opened if before else None, same_rules=same_rules)
        run = before.run if before else environment.get(RUN_VARIABLE) or uuid4().hex
        made = []
        for name, wanted in configured_chains(config, environment):
            old = kept.get((name, wanted.task))
            fresh = Chain(name, wanted.task, built_chain(wanted), dropped=opened.dropped)
            _bind_to_run(fresh, run)
            made.append(old if old is not None and _same(old.settings, fresh.settings) else fresh)
        refuse_unknown_chains(settings, {chain.name: chain.task for chain in made}, config)
        return cls(made, settings, rules, Prices(read_file_prices(config)), opened, run)

    def __iter__(self) -> Iterator[Chain]:
        """Iterate over the chains in the order of the configuration."""
        return iter(self.chains)

    def get(self, name: str) -> Chain | None:
        """Return the chain of a name, or None."""
        return self._by_name.get(name)

    def of_task(self, task: str) -> tuple[Chain, ...]:
        """Return the chains of a task."""
        return tuple(self._by_task.get(task, {}).values())

    def find(self, model: str | None, task: str, *, may_open: bool = False) -> Chain:
        """Return the chain for what a request calls its model.

        By a chain's name, the model's id of exactly one chain of the task, an alias; of a request without a model the default
        of the task, or its only chain. Ollama's `:latest` does not count.

        Args:
            model: what the request names; None or "" for nothing.
            task: the name of the task.
            may_open: whether the caller may name models that no chain has.

        Raises:
            UnknownModel: names the nearest names that there are.
        """
        chain = self._found.get((model, task))
        if chain is not None:
            return chain
        chain = self._default(task) if not model else self._search(model, task)
        if chain is None and model and may_open and self.opened.has_targets and self._by_name_or_alias(model) is None:
            return self.opened.find(model, task)
        if chain is None:
            raise UnknownModel(self._unknown(model, task))
        if len(self._found) < 4096:  # callers may write one id in many ways
            self._found[model, task] = chain
        return chain

    def _default(self, task: str) -> Chain | None:
        named = self._defaults.get(task)
        if named is not None:
            return self._by_name[named]
        there = self.of_task(task)
        return there[0] if len(there) == 1 else None

    def _search(self, model: str, task: str) -> Chain | None:
        there = self._by_task.get(task, {})
        names = (model, model.removesuffix(_LATEST))
        for name in names:
            if (chain := there.get(name)) is not None:
                return chain
        ids = {canonical(name).lower() for name in names}
        same = [chain for chain in there.values() if canonical(chain.model).lower() in ids]
        if len(same) == 1:
            return same[0]
        aliased = (there.get(self._aliases.get(name, "")) for name in names)
        return next((chain for chain in aliased if chain is not None), None)

    def _by_name_or_alias(self, model: str) -> Chain | None:
        """Return the chain with exactly that name or alias, whatever it is for."""
        return self._by_name.get(self._aliases.get(model, model))

    def _unknown(self, model: str | None, task: str) -> str:
        there = self.of_task(task)
        title = find_task(task).title
        if model and (other := self._by_name_or_alias(model)):
            have = ", ".join(chain.name for chain in there) or "none"
            return (
                f"{model!r} is a chain for {find_task(other.task).title}, and the request is for {title}; "
                f"of those there are: {have}"
            )
        if not there:
            return f"this server has no chain for {title}"
        if not model:
            return (
                f"the request names no model, and there are several chains for {title}: "
                f"{', '.join(chain.name for chain in there)}"
            )
        short = model.removesuffix(_LATEST)
        same = [chain.name for chain in there if canonical(chain.model).lower() == canonical(short).lower()]
        if len(same) > 1:
            return f"several chains have the model {model!r}; name one of them instead: {', '.join(same)}"
        names = {name for chain in there for name in (chain.name, chain.model)}
        names |= {alias for alias, name in self._aliases.items() if name in self._by_task[task]}
        return f"there is no model {model!r} for {title}{did_you_mean(model, names)}"


class OpenChains:
    """Chains for models that no chain of the configuration has: the last ones that were used."""

    def __init__(self, settings: OpenModels, before: "OpenChains | None" = None, *, same_rules: bool = True) -> None:
        """Take over what was there.

        Args:
            settings: the targets that are asked, and how many chains are kept.
            before: what is replaced; its chains are kept, and shared with it, if the targets are the same.
            same_rules: whether gateways would be built as before.
        """
        self._settings = settings
        is_same = before is not None and same_rules and before._settings.targets == settings.targets
        self._kept: OrderedDict[tuple[str, str], Chain] = before._kept if before and is_same else OrderedDict()
        self.dropped: list[Chain] = before.dropped if before else []
        """Chains that are no longer kept, and are to be closed after the last request that uses them."""

    def __iter__(self) -> Iterator[Chain]:
        """Iterate over the chains that are kept."""
        return iter(tuple(self._kept.values()))

    @property
    def has_targets(self) -> bool:
        """Whether models that no chain has can be asked at all."""
        return bool(self._settings.targets)

    def find(self, model: str, task: str) -> Chain:
        """Return the chain of a model, made at its first use. Raises UnknownModel if it cannot be one.

        Args:
            model: a Hub id.
            task: the name of the task.
        """
        targets = self._settings.targets
        if not targets:
            raise UnknownModel(f"there is no model {model!r}, and [server.open] names no targets for other models")
        if is_path(model) or not _is_hub_id(model):
            raise UnknownModel(f"{model!r} is not the id of a model on the Hub, such as 'owner/name'")
        key = (task, model)
        chain = self._kept.pop(key, None)
        if chain is None:
            settings = find_task(task).settings.model_validate({"model": model, "targets": targets, "chain": "open"})
            try:
                chain = Chain(model, task, Gateway.from_settings(settings), opened=True, dropped=self.dropped)
            except ConfigError as error:
                raise UnknownModel(f"the model {model!r} cannot be served: {error.message}") from None
            while len(self._kept) >= self._settings.max_models:
                self.dropped.append(self._kept.popitem(last=False)[1])
        self._kept[key] = chain
        return chain


def _bind_to_run(chain: Chain, run: str) -> None:
    """Have a chain whose space is open choose it once in a run of the server: for all workers, and for what a reload builds.

    Args:
        chain: has returned no vector yet.
        run: the run.
    """
    if not chooses_space(chain.gateway):
        return
    settings = chain.gateway.space_options
    forms = {name: getattr(settings, name) for name in type(settings).model_fields if name in _FORMS}
    parts = (
        run,
        chain.name,
        chain.task,
        chain.gateway.model,
        [target.label for target in chain.gateway.targets],
        forms,
    )
    decision = SpaceDecision(hashlib.sha256(repr(parts).encode()).hexdigest()[:32])
    chain.gateway.bind_space(SpaceBinding(decision=decision))


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


def _is_hub_id(model: str) -> bool:
    parts = model.split("/")
    return len(parts) <= 2 and len(model) <= 200 and all(_is_name(part) for part in parts)


def _is_name(part: str) -> bool:
    return (
        bool(part)
        and part.isascii()
        and part.replace("-", "").replace("_", "").replace(".", "").isalnum()
        and not part.startswith((".", "-"))
    )


def _same(one: NamedSettings, other: NamedSettings) -> bool:
    return type(one) is type(other) and all(
        getattr(one, name) == getattr(other, name) for name in type(one).model_fields
    )
