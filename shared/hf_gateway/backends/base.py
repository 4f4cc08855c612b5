"""A server and what it can do: the two classes that every kind of target is made of.

A `Server` is one target, ready to be asked: its URL, its key, its connection to the transport. An `Ability` is what a kind does
for one task, made from its server and the task's settings; `embedding.py` and `chat.py` have the base of each.
"""

import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

from hf_gateway.backends.option_types import OptionType, check_options
from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.keys.credentials import Credential, find_credential
from hf_gateway.keys.policy import KeyPolicyOverrides, requirement
from hf_gateway.runtime.effects import Effects, Send
from hf_gateway.settings.base import ChainOptions
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.kinds import Access, KeyRequirement, Kind, kind_of
from hf_gateway.values.secret import Secret
from hf_gateway.values.target import Target
from hf_gateway.wire.hf_router import Capabilities


@dataclass(frozen=True)
class ProbeReport:
    """What a target says of itself, for `doctor`."""

    serves: Sequence[str] = ()
    """The models that it serves."""
    detail: str = ""
    """One line more."""
    access: Access = "unknown"
    """Who may download the model, where the Hub was asked."""


class ServerArguments(TypedDict, total=False):
    """What a server is made with besides its target."""

    given_key: Secret | None
    rules: KeyPolicyOverrides
    environment: Mapping[str, str]


class Server:
    """One target, ready to be asked. Makes no connection and loads nothing until then.

    Args:
        target: the target, with the chain's model where it names none.
        given_key: the key of the class, when it is meant for this target.
        rules: what the owner decided about keys.
        environment: where keys and addresses are read from.

    Raises:
        ConfigError: an option that this kind does not have, a value of another type, a URL or a model that is missing.
    """

    kind: ClassVar[Kind]
    """The facts that hold for every target of this kind; without it the defaults of `Kind` count."""
    abilities: ClassVar[Mapping[str, type["Ability"]]] = {}
    """What it can do: the class for each task."""
    option_names: ClassVar[frozenset[str]] = frozenset()
    """What may stand in `Target.options`."""
    option_types: ClassVar[Mapping[str, OptionType]] = {}
    """What their values are, by name: "whole", "flag", "text", "object", or the words to choose from; others are not checked."""
    tuning_options: ClassVar[frozenset[str]] = frozenset()
    """Which of them change speed or way only, and no vector; they stay out of identities."""

    def __init__(
        self,
        target: Target,
        *,
        given_key: Secret | None = None,
        rules: KeyPolicyOverrides = KeyPolicyOverrides(),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        for name in target.options:
            if name not in self.option_names:
                known = did_you_mean(name, set(self.option_names)) if self.option_names else "; this kind has none"
                raise ConfigError(f"target {target.label!r} has no option {name!r}{known}")
        check_options(target.label, target.options, self.option_types)
        facts = kind_of(target.kind)
        if facts.argument == "url" and target.url is None:
            raise ConfigError(f"target {facts.name!r} needs its URL, such as '{facts.name}:{facts.example_url}'")
        if facts.needs_model and target.model is None:
            raise ConfigError(f"target {facts.name!r} needs a model: pass model=, or write '{facts.name}:<model>'")
        self.target = target
        self.environment = environment
        self._given_key = given_key
        self._rules = rules
        self._credential: Credential | None = None
        self._prepared = False

    @property
    def url(self) -> str | None:
        """Where requests go, or None for what stays in this process."""
        return self.target.url

    @property
    def base_url(self) -> str:
        """The URL that paths are put behind, of a kind that has one."""
        assert self.url is not None
        return self.url

    @property
    def account(self) -> str | None:
        """The account that a call is billed to, or None where there is none."""
        return None

    @property
    def key_url(self) -> str | None:
        """The URL that the key is for."""
        return self.url

    def credential(self) -> Credential | None:
        """Return the key in force, or None."""
        return self._credential if self._prepared else self.find_key(self.key_url)

    def find_key(self, url: str | None) -> Credential | None:
        """Look for the key that this target may send to a URL; None where there is none."""
        return find_credential(url, bound=self.target.credential, given=self._given_key, environment=self.environment)

    def key_requirement(self, access: Access = "unknown") -> KeyRequirement:
        """Return whether a key is needed, and why."""
        return requirement(self.target, access, self._rules)

    def prepare(self) -> None:
        """Look for the key in files (a login), which an event loop must not do; it is believed until the next time."""
        self._credential = self.find_key(self.key_url)
        self._prepared = True

    def ask(self, request: HttpRequest, credential: Credential | None = None) -> Generator[Any, Any, HttpResponse]:
        """Send with a key, the target's own if none is given, and only to that key's origin."""
        response: HttpResponse = yield Send(request, credential or self.credential())
        return response

    def close(self) -> None:
        """Give back what is held."""


class Ability:
    """What a kind does for one task, as generators that yield effects, so that blocking and async callers share them.

    Args:
        server: the target's server.
        options: the settings of the task.
    """

    server: Server

    def __init__(self, server: Server, options: ChainOptions) -> None:  # noqa: ARG002 - each task keeps its own
        self.server = server

    @property
    def target(self) -> Target:
        """The target."""
        return self.server.target

    @property
    def context(self) -> int | None:
        """Tokens of the longest input that it takes; None where that is not known."""
        return None

    def capabilities(self, *, look_up: bool = False) -> Capabilities:  # noqa: ARG002 - for those that can look it up
        """Return what is known of the model here.

        Args:
            look_up: a catalogue may be asked over the network, for seconds at most.
        """
        return Capabilities(context=self.context)

    def prepare(self) -> None:
        """Read what lies in files (the model's description, a login), which an event loop must not do.

        Called before each request, off the loop for async ones; what was read is believed until the next time.
        """
        self.server.prepare()

    def probe(self) -> Effects:
        """Ask the target what it serves, with one word computed at the most; returns a `ProbeReport`."""
        raise NotImplementedError

    def ask(self, request: HttpRequest, credential: Credential | None = None) -> Generator[Any, Any, HttpResponse]:
        """Send with a key, the target's own if none is given, and only to that key's origin."""
        return self.server.ask(request, credential)

    def close(self) -> None:
        """Give back what is held, by the server too."""
        self.server.close()
