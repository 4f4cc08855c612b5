"""The chains that the server serves: built once from the configuration, found by what a request calls its model.

A table is never changed: a reload builds another one, takes over the gateways whose settings are equal, and is put in its place
whole. So a request that began with one table ends with it, and breakers, budgets and loaded models survive.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from uuid import uuid4

from hf_gateway.configuration.chains import built_chain, configured_chains, refuse_unknown_chains
from hf_gateway.errors import did_you_mean
from hf_gateway.keys.policy import KeyPolicyOverrides
from hf_gateway.ledger.file_prices import read_file_prices
from hf_gateway.ledger.prices import Prices
from hf_gateway.server.dispatch.chain import Chain, UnknownModel, chooses_space
from hf_gateway.server.dispatch.indexes import ServedIndex, open_indexes
from hf_gateway.server.dispatch.open_chains import OpenChains
from hf_gateway.settings.base import NamedSettings
from hf_gateway.settings.config_file import key_policy_overrides
from hf_gateway.settings.server import ServerSettings
from hf_gateway.spaces.binding import SpaceBinding, SpaceDecision
from hf_gateway.tasks.registry import find_task
from hf_gateway.values.vector_space import canonical

RUN_VARIABLE = "_HF_GATEWAY_SERVER_RUN"
"""Names the run of a server to its worker processes, which choose the space of a chain together."""
_LATEST = ":latest"


class ChainTable:
    """The chains by task and name."""

    def __init__(
        self,
        chains: Sequence[Chain],
        settings: ServerSettings,
        rules: KeyPolicyOverrides = KeyPolicyOverrides(),
        prices: Prices = Prices(),
        opened: OpenChains | None = None,
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


def _bind_to_run(chain: Chain, run: str) -> None:
    """Have a chain whose space is open choose it once in a run of the server: for all workers, and for what a reload builds.

    Args:
        chain: has returned no vector yet.
        run: the run.
    """
    if not chooses_space(chain.gateway):
        return
    gateway = chain.gateway
    forms = {name: getattr(gateway.settings, name) for name in sorted(gateway.space_options.space_fields)}
    parts = (run, chain.name, chain.task, gateway.model, [target.label for target in gateway.targets], forms)
    decision = SpaceDecision(hashlib.sha256(repr(parts).encode()).hexdigest()[:32])
    gateway.bind_space(SpaceBinding(decision=decision))


def _same(one: NamedSettings, other: NamedSettings) -> bool:
    return type(one) is type(other) and all(
        getattr(one, name) == getattr(other, name) for name in type(one).model_fields
    )
