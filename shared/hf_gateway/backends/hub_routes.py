"""The Hub's list of the providers of a model, by which `hf` targets choose where a request goes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hf_gateway.backends.base import Server
from hf_gateway.errors import (
    AttemptTimedOut,
    BadResponse,
    ConfigError,
    ConnectFailed,
    ModelNotFound,
    Overloaded,
    RateLimited,
    ServerError,
)
from hf_gateway.keys.credentials import Credential, is_hugging_face
from hf_gateway.runtime.driver import Clock
from hf_gateway.runtime.effects import Effects
from hf_gateway.values.logs import logger
from hf_gateway.values.target import Target
from hf_gateway.values.wording import NEEDS_MODEL
from hf_gateway.wire import hf_inference
from hf_gateway.wire.hf_inference import Route

log = logger(__name__)

MAPPING_LIFETIME_S = 600.0
"""How long the Hub's list of a model's providers is used."""
MAPPING_RETRY_S = 30.0
"""Pause before a Hub that did not answer is asked again, so that it does not delay every request."""
POLICIES = ("cheapest", "fastest", "preferred")
"""What a target may name instead of a provider, for chat only."""


def check_provider(target: Target, providers: tuple[str, ...], title: str) -> None:
    """Check the model and the provider of a target whose provider is chosen by the Hub's list.

    Args:
        target: of the kind `hf`.
        providers: those whose form is spoken here.
        title: what the task gives, in a sentence: "embeddings".

    Raises:
        ConfigError: no model, a policy of the router, or a provider that does not support the task.
    """
    if target.model is None:
        raise ConfigError(f"target 'hf' {NEEDS_MODEL}: pass model=")
    if target.provider in POLICIES:
        raise ConfigError(
            f"'hf:{target.provider}' is a policy of the router for chat; for {title} write 'hf', or name a provider: "
            + ", ".join(providers)
        )
    if target.provider not in (None, "auto", *providers):
        raise ConfigError(
            f"the provider {target.provider!r} does not support {title}; those that do: {', '.join(providers)}"
        )


class HubRoutes:
    """The providers of one model, fetched occasionally.

    Args:
        server: the target's server, which sends the requests.
        hub: the Hub's base URL.
        model: Hub id.
    """

    def __init__(self, server: Server, hub: str, model: str) -> None:
        self.hub = hub
        self.model = model
        self.credential: Credential | None = None
        """The key for the Hub, which is another origin than the router's; found by `prepare`."""
        self._server = server
        self._routes: list[Route] | None = None
        self._until = 0.0
        self._clock = Clock()

    def prepare(self) -> None:
        """Find the key for the Hub."""
        self.credential = None
        # A token for Hugging Face's own router is valid for its Hub; one that was bound to another router is not.
        if is_hugging_face(self.hub) and is_hugging_face(self._server.url):
            self.credential = self._server.find_key(self.hub)

    def forget(self) -> None:
        """Ask again with the next call."""
        self._routes, self._until = None, 0.0

    def fetch(self) -> Effects:
        """Return the list of routes, from the Hub if it is old; None while the Hub cannot be reached."""
        if self._clock.now() >= self._until:
            try:
                lookup = hf_inference.encode_routes(self.hub, self.model)
                response = yield from self._server.ask(lookup, self.credential)
                self._routes = hf_inference.decode_routes(response, target=self._server.target.label)
                self._until = self._clock.now() + MAPPING_LIFETIME_S
            except (AttemptTimedOut, BadResponse, ConnectFailed, Overloaded, RateLimited, ServerError) as error:
                self._until = self._clock.now() + MAPPING_RETRY_S
                if self._routes is None:
                    log.warning(
                        "%s: the Hub did not return the providers of %s (%s); trying hf-inference",
                        self._server.target.label,
                        self.model,
                        error.message,
                    )
        return self._routes

    def choose(self, pipelines: Mapping[str, Sequence[str]], title: str) -> Effects:
        """Return the first live route that the target allows; to hf-inference if the Hub cannot be reached.

        Args:
            pipelines: names of the pipelines that will do, by provider; hf-inference's first one is called without a list.
            title: what is wanted, in a sentence: "embeddings".

        Raises:
            ModelNotFound: no provider will do; says what the Hub lists.
        """
        routes: list[Route] | None = yield from self.fetch()
        if routes is None:
            # The router may be available when the Hub is not, and this provider needs no mapping.
            return Route("hf-inference", self.model, pipelines["hf-inference"][0], "unknown")
        wanted = self._server.target.provider
        for route in routes:
            if (
                route.status == "live"
                and route.pipeline in pipelines.get(route.provider, ())
                and wanted in (None, "auto", route.provider)
            ):
                # hf-inference is called by the model's own name.
                model = self.model if route.provider == "hf-inference" else route.model
                return replace(route, model=model)
        listed = ", ".join(f"{route.provider} ({route.pipeline}, {route.status})" for route in routes) or "no provider"
        who = f"provider {wanted!r} does not serve" if wanted else "no provider serves"
        raise ModelNotFound(
            f"{who} {title} of {self.model}; the Hub lists {listed}; another way: targets=['local']",
            target=self._server.target.label,
        )
