"""`hf[:<provider>]`: Hugging Face Inference Providers, through the router."""

import dataclasses
import logging

from hf_gateway.backends.base import Backend, Report
from hf_gateway.config import hub_url, router_url
from hf_gateway.credentials import Credential, find, is_hugging_face
from hf_gateway.drive import Clock, Effects
from hf_gateway.embedding import EmbedRequest
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
from hf_gateway.wire import hf_inference, openai
from hf_gateway.wire.hf_inference import Route

log = logging.getLogger(__name__)

MAX_TEXTS = 32
MAPPING_LIFETIME = 600.0
"""Seconds for which the Hub's answer about who serves a model is believed."""

# Below the router's base; hf-inference has a form of its own (huggingface_hub/inference/_providers).
OPENAI_ROUTES = {
    "deepinfra": "deepinfra/v1/openai/embeddings",
    "scaleway": "scaleway/v1/embeddings",
    "together": "together/v1/embeddings",
}
PROVIDERS = ("hf-inference", *OPENAI_ROUTES)


class HfBackend(Backend):
    """Asks the Hub once in a while who serves the model, and calls the pipeline by name.

    Options: `bill_to`, the organisation that pays.
    """

    kind = "hf"
    option_names = frozenset({"bill_to"})
    tuning_options = option_names

    def __init__(self, *args: object, **named: object) -> None:
        """Check the provider."""
        super().__init__(*args, **named)  # type: ignore[arg-type]
        provider = self.target.provider
        if self.target.model is None:
            raise ConfigError("target 'hf' needs a model: pass model=")
        if provider in ("cheapest", "fastest"):
            raise ConfigError(
                f"'hf:{provider}' is a policy of the router for chat; for embeddings write 'hf', or name a provider: "
                + ", ".join(PROVIDERS)
            )
        if provider not in (None, "auto", *PROVIDERS):
            raise ConfigError(f"provider {provider!r} serves no embeddings; those that do: {', '.join(PROVIDERS)}")
        self._router = self.target.url or router_url(self.environment)
        self._hub = hub_url(self.environment)
        self._routes: list[Route] | None = None
        self._routes_until = 0.0
        self._clock = Clock()
        self._hub_credential: Credential | None = None

    @property
    def url(self) -> str:
        """The router's base."""
        return self._router

    @property
    def account(self) -> str | None:
        """The token's account, or the organisation that pays."""
        credential = self.credential()
        return f"hf:{self.target.options.get('bill_to') or (credential.secret.fingerprint() if credential else '')}"

    def prepare(self) -> None:
        """Find the key for the Hub too, which is another origin than the router's."""
        super().prepare()
        self._hub_credential = None
        # A token for Hugging Face's own router is one for its Hub; one that was bound to another router is not.
        if is_hugging_face(self._hub) and is_hugging_face(self._router):
            self._hub_credential = find(
                self._hub, bound=self.target.credential, given=self._given_key, environment=self.environment
            )

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed a batch through the first provider that serves the model."""
        self.check_count(request, MAX_TEXTS)
        route = yield from self._route()
        texts, label, pooling = self.prompted(request), self.target.label, self.space().pooling
        if route.provider == "hf-inference":
            url = hf_inference.feature_extraction_url(self._router, route.model)
            message = hf_inference.encode_feature_extraction(url, texts, truncate=request.truncate)
        else:
            message = openai.encode_embeddings(f"{self._router}/{OPENAI_ROUTES[route.provider]}", route.model, texts)
        if bill_to := self.target.options.get("bill_to"):
            message = dataclasses.replace(message, headers={**message.headers, "x-hf-bill-to": bill_to})
        response = yield from self.ask(message)
        if route.provider == "hf-inference":
            return hf_inference.decode_feature_extraction(response, len(texts), pooling, target=label)
        return openai.decode_embeddings(response, len(texts), target=label)

    def probe(self) -> Effects:
        """Ask the Hub who serves the model; the router itself is not called, since a call costs."""
        self._routes = None
        route = yield from self._route()
        return Report(
            [route.model], f"served by {route.provider}; whether the token may call it shows only with a call"
        )

    def _route(self) -> Effects:
        if self._routes is None or self._clock.now() >= self._routes_until:
            try:
                lookup = hf_inference.encode_routes(self._hub, self.space_model())
                response = yield from self.ask(lookup, self._hub_credential)
                self._routes = hf_inference.decode_routes(response, target=self.target.label)
                self._routes_until = self._clock.now() + MAPPING_LIFETIME
            except (AttemptTimedOut, BadResponse, ConnectFailed, Overloaded, RateLimited, ServerError) as error:
                if self._routes is None:
                    # The router may well be up when the Hub is not, and this provider needs no mapping.
                    log.warning(
                        "%s: the Hub did not say who serves %s (%s); trying hf-inference",
                        self.target.label,
                        self.space_model(),
                        error.message,
                    )
                    return Route("hf-inference", self.space_model(), "feature-extraction", "unknown")
        return self._pick(self._routes)

    def _pick(self, routes: list[Route]) -> Route:
        model, wanted = self.space_model(), self.target.provider
        able = [
            route
            for route in routes
            if route.status == "live"
            # hf-inference is called by the pipeline's name, so a model listed there for a neighbouring task will do.
            and (
                route.task == "feature-extraction"
                or (route.provider == "hf-inference" and route.task == "sentence-similarity")
            )
        ]
        for route in able:
            if route.provider in PROVIDERS and wanted in (None, "auto", route.provider):
                return (
                    Route(route.provider, model, route.task, route.status)
                    if route.provider == "hf-inference"
                    else route
                )
        said = ", ".join(f"{route.provider} ({route.task}, {route.status})" for route in routes) or "nobody"
        who = f"provider {wanted!r} does not serve" if wanted else "no provider serves"
        raise ModelNotFound(
            f"{who} embeddings of {model}; the Hub lists {said}; another way: targets=['local']",
            target=self.target.label,
        )
