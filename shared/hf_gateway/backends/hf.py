"""`hf[:<provider>]`: Hugging Face Inference Providers, through the router."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Unpack

from hf_gateway.backends.base import ProbeReport, Server, ServerArguments
from hf_gateway.backends.embedding import EmbeddingAbility
from hf_gateway.backends.hub_routes import POLICIES, HubRoutes, check_provider
from hf_gateway.backends.openai_chat import OpenAIFormChat
from hf_gateway.backends.option_types import OPTION_TYPES
from hf_gateway.backends.served import ProbeOnce
from hf_gateway.backends.thoughts import OPENAI_REASONING
from hf_gateway.backends.thoughts import OPTIONS as CHAT_OPTIONS
from hf_gateway.engines import saved_space, sources
from hf_gateway.errors import (
    BadResponse,
    ConfigError,
    ModelNotFound,
)
from hf_gateway.hub import router_catalogue
from hf_gateway.runtime.effects import Compute, Effects
from hf_gateway.settings.chat import ChatOptions
from hf_gateway.settings.config_file import hub_url, router_url
from hf_gateway.settings.embedding import EmbedOptions
from hf_gateway.storage.notices import notice_once
from hf_gateway.values import kinds
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.logs import logger
from hf_gateway.values.target import Target
from hf_gateway.values.vector_space import VectorSpace
from hf_gateway.values.wording import NEEDS_MODEL
from hf_gateway.wire import hf_inference, hf_router, openai
from hf_gateway.wire.hf_inference import EMBEDDING_PROVIDERS, OPENAI_ROUTES
from hf_gateway.wire.hf_router import Capabilities

log = logger(__name__)

MAX_TEXTS = 32
PIPELINES = {
    "hf-inference": ("feature-extraction", "sentence-similarity"),
    **dict.fromkeys(OPENAI_ROUTES, ("feature-extraction",)),
}
"""The pipelines under which providers list models for embeddings. hf-inference is called by the pipeline's name, so that a model
listed for a related task will do."""

_read: dict[tuple[Any, ...], VectorSpace] = {}
"""Spaces read from models' files on the Hub, in this process; by Hub, model, revision, key and truncation."""


class HfEmbedding(EmbeddingAbility):
    """Asks the Hub occasionally which providers serve the model, and calls the pipeline by name."""

    server: "HfServer"
    most_texts = MAX_TEXTS

    def __init__(self, server: Server, options: EmbedOptions) -> None:
        super().__init__(server, options)
        check_provider(self.target, EMBEDDING_PROVIDERS, "embeddings")
        self._routes = HubRoutes(server, self.server.hub, self.space_model())
        self._asked = ProbeOnce()

    def prepare(self) -> None:
        """Find the key for the Hub too, which is another origin than the router's."""
        super().prepare()
        self._routes.prepare()

    def served_space(self) -> Effects:
        """Return the space in the model's files on the Hub, if they are not on this machine: the router itself reports none.

        For comparison only. A prompt found there is not added to texts: otherwise the vectors would depend on whether the Hub
        could be reached, and no name of the space would show it.
        """
        return (yield from self._asked.run(self._fetch_space, self.target.label))

    def _fetch_space(self) -> Effects:
        target, options = self.target, self.options
        if (yield Compute(lambda: sources.find(self.space_model(), target.revision))) is not None:
            return None  # the declared space is read from them
        route = yield from self._route()
        if (yield from self._routes.fetch()) is None:
            return None  # the Hub cannot be reached
        credential = self._routes.credential
        secret = credential.secret.fingerprint() if credential else None
        key = (self.server.hub, self.space_model(), target.revision, secret, options.truncate)
        if key not in _read:
            _read[key] = yield from self._read_from_hub()
        not_the_files = {
            "revision": True,  # providers do not report which weights they run
            "precision": True,
            "normalized": options.normalize or route.provider != "hf-inference",
            "dimension": options.dimensions is not None,
            "query_prompt": options.query_prompt is not None,
            "document_prompt": options.document_prompt is not None,
        }
        unsaid = {name: None for name, elsewhere in not_the_files.items() if elsewhere}
        found = dataclasses.replace(_read[key], **unsaid)  # type: ignore[arg-type]
        served = target.space.merged(found) if target.space else found
        for role in ("query", "document"):
            if (prompt := getattr(found, f"{role}_prompt")) and getattr(self.space(), f"{role}_prompt") is None:
                notice_once(
                    f"{target.label}: by its files on the Hub, {found.model} wants {prompt!r} before a {role}, and none is put; "
                    f"pass {role}_prompt={prompt!r}, or download the model's files"
                )
        return served

    def _read_from_hub(self) -> Effects:
        """Fetch the small files that describe the model: the first one, and then those it refers to."""
        model, label = self.space_model(), self.target.label
        known: dict[str, Any] = {}
        while True:
            try:
                found = saved_space.read_space(known.__getitem__, model, cut=self.options.truncate)
                break
            except KeyError as missing:
                name = str(missing.args[0])
            except ConfigError as error:
                raise BadResponse(f"the files of {model} on the Hub are invalid: {error}", target=label) from None
            if name in known or not set(name.split("/")).isdisjoint(("", ".", "..")):
                raise BadResponse(f"the files of {model} on the Hub point out of it: {name!r}", target=label)
            message = hf_inference.encode_file(self.server.hub, model, self.target.revision, name)
            known[name] = hf_inference.decode_file(
                (yield from self.ask(message, self._routes.credential)), target=label
            )
        if known.get("modules.json") is None and known.get("config.json") is None:
            raise BadResponse(f"{model} has no files on the Hub that describe it", target=label)
        return found

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed a batch with the first provider that serves the model."""
        self.check_count(request)
        route = yield from self._route()
        texts, label, pooling = self.add_prompts(request), self.target.label, self.space().pooling
        if route.provider == "hf-inference":
            url = hf_inference.feature_extraction_url(self.server.url, route.model)
            message = hf_inference.encode_feature_extraction(url, texts, truncate=request.truncate)
        else:
            message = openai.encode_embeddings(f"{self.server.url}/{OPENAI_ROUTES[route.provider]}", route.model, texts)
        message = dataclasses.replace(message, headers={**message.headers, **self.server.headers()})
        response = yield from self.ask(message)
        if route.provider == "hf-inference":
            answer = hf_inference.decode_feature_extraction(response, len(texts), pooling, target=label)
        else:
            answer = openai.decode_embeddings(response, len(texts), target=label)
        return dataclasses.replace(answer, provider=route.provider)

    def probe(self) -> Effects:
        """Ask the Hub for the model's providers; no model is called, since a call costs."""
        self._routes.forget()
        route = yield from self._route()
        return ProbeReport(
            [route.model], f"served by {route.provider}; whether the token may call it shows only with a call"
        )

    def _route(self) -> Effects:
        """Return the route to the first provider that serves the model."""
        return self._routes.choose(PIPELINES, "embeddings")


class HfChat(OpenAIFormChat):
    """Calls the router with a provider's name or a policy: `cheapest`, `fastest` (the router's default), `preferred`."""

    server: "HfServer"
    strict = True

    def __init__(self, server: Server, options: ChatOptions) -> None:
        super().__init__(server, options)
        if self.target.model is None:
            raise ConfigError(f"target 'hf' {NEEDS_MODEL}: pass model=, or set HF_MODEL_ID")

    def prepare(self) -> None:
        """Find the key, and read the catalogue on this machine."""
        super().prepare()
        self.capabilities()

    def chat_url(self) -> str:
        """Return the URL of the router's chat route."""
        router = self.server.url
        return f"{router}/chat/completions" if router.endswith("/v1") else f"{router}/v1/chat/completions"

    def chat_model(self, model: str | None) -> str | None:
        """Return the model with the provider or policy appended, the router's form."""
        provider = self.target.provider
        return f"{model}:{provider}" if model and provider and provider != "auto" and ":" not in model else model

    def chat_headers(self) -> Mapping[str, str]:
        """Return the header that names the paying organisation."""
        return self.server.headers()

    @property
    def context(self) -> int | None:
        """Maximum tokens, from the router's catalogue if it was read."""
        return self.capabilities().context

    def capabilities(self, *, look_up: bool = False) -> Capabilities:
        """Return what the router's catalogue reports about the model."""
        listed, model = router_catalogue.catalogue_of(self.server.url), self.target.model or ""
        entry = listed.find_entry(model) if look_up else listed.cached_entry(model)
        return entry.capabilities(self.target.provider) if entry else Capabilities()

    def probe(self) -> Effects:
        """Ask the router's catalogue for the model's providers; no model is called, since a call costs."""
        response = yield from self.ask(hf_router.encode_models(self.server.url))
        entries = hf_router.decode_models(response, target=self.target.label)
        model = (self.target.model or "").partition(":")[0]
        found = next((entry for entry in entries if entry.id == model), None)
        if found is None:
            raise ModelNotFound(f"no provider serves {model}", target=self.target.label)
        live = [row.provider for row in found.providers if row.live]
        wanted = self.target.provider
        if wanted not in (None, "auto", *POLICIES, *live):
            raise ModelNotFound(
                f"{wanted} does not serve {model}; live are {', '.join(live)}", target=self.target.label
            )
        return ProbeReport(
            [found.id], f"served by {', '.join(live)}; whether the token may call it shows only with a call"
        )


class HfServer(Server):
    """The router of Hugging Face's Inference Providers.

    Options: `bill_to`, the organisation that pays; for chat `stream` (False for a provider that cannot stream), `send_reasoning`
    and `think_tags`, as for `openai`.
    """

    kind = kinds.HF
    abilities = {
        "embedding": HfEmbedding,
        "chat": HfChat,
        "classification": "hf_gateway.backends.hf_classification:HfClassify",
        "image": "hf_gateway.backends.hf_image:HfImage",
    }
    option_types = {**OPTION_TYPES, "send_reasoning": OPENAI_REASONING}
    option_names = frozenset({"bill_to", "stream"}) | CHAT_OPTIONS
    tuning_options = option_names

    def __init__(self, target: Target, **given: Unpack[ServerArguments]) -> None:
        super().__init__(target, **given)
        self._router = self.target.url or router_url(self.environment)
        self.hub = hub_url(self.environment)

    @property
    def url(self) -> str:
        """The router's base URL."""
        return self._router

    @property
    def account(self) -> str | None:
        """The token's account, or the organisation that pays."""
        credential = self.credential()
        return f"hf:{self.target.options.get('bill_to') or (credential.secret.fingerprint() if credential else '')}"

    def headers(self) -> Mapping[str, str]:
        """Return the header that names the paying organisation."""
        bill_to = self.target.options.get("bill_to")
        return {"x-hf-bill-to": str(bill_to)} if bill_to else {}
