"""A server and its abilities: the two classes that every kind of target is made of.

A `Server` is one target, ready to be called: its URL, its key, its connection to the transport. An `Ability` implements one task
for a kind, made from its server and the task's settings; `embedding.py` and `chat.py` have the base class of each.
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
from hf_gateway.values.wording import NEEDS_MODEL
from hf_gateway.wire.hf_router import Capabilities


@dataclass(frozen=True)
class ProbeReport:
    """What a target reports about itself, for `doctor`."""

    serves: Sequence[str] = ()
    """The models that it serves."""
    detail: str = ""
    """One more line for users."""
    access: Access = "unknown"
    """Who may download the model, if the Hub was asked."""


class ServerArguments(TypedDict, total=False):
    """Keyword arguments of a server, besides its target."""

    given_key: Secret | None
    rules: KeyPolicyOverrides
    environment: Mapping[str, str]


class Server:
    """One target, ready to be called. Until then it makes no connection and loads nothing.

    Args:
        target: the target, with the chain's model if it names none.
        given_key: the key of the class, if it is meant for this target.
        rules: the owner's rules about keys.
        environment: where keys and addresses are read from.

    Raises:
        ConfigError: an unknown option, a value of another type, a missing URL or model.
    """

    kind: ClassVar[Kind]
    """The facts that hold for every target of this kind; without it the defaults of `Kind` count."""
    abilities: ClassVar[Mapping[str, type["Ability"] | str]] = {}
    """The class of the ability for each task that the kind supports, or its name as `module:Class`, imported when a chain of
    that task is built."""
    option_names: ClassVar[frozenset[str]] = frozenset()
    """Names allowed in `Target.options`."""
    option_types: ClassVar[Mapping[str, OptionType]] = {}
    """Types of their values, by name: "whole", "flag", "text", "object", or the allowed words; others are not checked."""
    tuning_options: ClassVar[frozenset[str]] = frozenset()
    """Options that change no vector, only speed or transport; they are left out of identities."""

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
            raise ConfigError(f"target {facts.name!r} {NEEDS_MODEL}: pass model=, or write '{facts.name}:<model>'")
        self.target = target
        self.environment = environment
        self._given_key = given_key
        self._rules = rules
        self._credential: Credential | None = None
        self._prepared = False

    @property
    def url(self) -> str | None:
        """Where requests are sent; None if the model runs in this process."""
        return self.target.url

    @property
    def base_url(self) -> str:
        """The URL that paths are appended to, for a kind that has one."""
        assert self.url is not None
        return self.url

    @property
    def account(self) -> str | None:
        """The account that a call is billed to, or None."""
        return None

    @property
    def key_url(self) -> str | None:
        """The URL that the key is for."""
        return self.url

    def credential(self) -> Credential | None:
        """Return the current key, or None."""
        return self._credential if self._prepared else self.find_key(self.key_url)

    def find_key(self, url: str | None) -> Credential | None:
        """Find the key that this target may send to a URL, or None."""
        return find_credential(url, bound=self.target.credential, given=self._given_key, environment=self.environment)

    def key_requirement(self, access: Access = "unknown") -> KeyRequirement:
        """Return whether a key is needed, and why."""
        return requirement(self.target, access, self._rules)

    def prepare(self) -> None:
        """Look for the key in files (a login), which must not happen on an event loop; the result is used until the next call."""
        self._credential = self.find_key(self.key_url)
        self._prepared = True

    def ask(self, request: HttpRequest, credential: Credential | None = None) -> Generator[Any, Any, HttpResponse]:
        """Send a request with a key; it is sent only to that key's origin.

        Args:
            request: the request.
            credential: the key; by default the target's own.
        """
        response: HttpResponse = yield Send(request, credential or self.credential())
        return response

    def close(self) -> None:
        """Release resources."""


class Ability:
    """The implementation of one task for a kind, as generators that yield effects, shared by blocking and async callers.

    Args:
        server: the target's server.
        options: the settings of the task.
    """

    server: Server

    def __init__(self, server: Server, options: ChainOptions) -> None:  # noqa: ARG002 - each task keeps its own
        self.server = server
        self.target = server.target

    @property
    def context(self) -> int | None:
        """Maximum tokens of an input; None if it is unknown."""
        return None

    def capabilities(self, *, look_up: bool = False) -> Capabilities:  # noqa: ARG002 - for those that can look it up
        """Return what is known about the model here.

        Args:
            look_up: whether a catalogue may be fetched over the network, for seconds at most.
        """
        return Capabilities(context=self.context)

    def prepare(self) -> None:
        """Read files (the model's description, a login), which must not happen on an event loop.

        Called before each request, on a thread for async ones; the result is used until the next call.
        """
        self.server.prepare()

    def probe(self) -> Effects:
        """Ask the target what it serves, computing one word at most; returns a `ProbeReport`."""
        raise NotImplementedError

    def ask(self, request: HttpRequest, credential: Credential | None = None) -> Generator[Any, Any, HttpResponse]:
        """Send a request with a key; it is sent only to that key's origin.

        Args:
            request: the request.
            credential: the key; by default the target's own.
        """
        return self.server.ask(request, credential)

    def close(self) -> None:
        """Release resources, including the server's."""
        self.server.close()
