"""Classification by Hugging Face Inference Providers."""

import dataclasses

from hf_gateway.backends.base import ProbeReport, Server
from hf_gateway.backends.classification import ClassifyAbility
from hf_gateway.backends.hf import HfServer
from hf_gateway.backends.hub_routes import HubRoutes, check_provider
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.classification import ClassifyOptions
from hf_gateway.values.labels import ClassifyAnswer, ClassifyRequest
from hf_gateway.wire.hf_classification import (
    IMAGES,
    PROVIDERS,
    TEXTS,
    ZERO_SHOT,
    decode_labels,
    encode_hosted,
    model_url,
    pipeline_of,
)

TITLE = "labels"


class HfClassify(ClassifyAbility):
    """Asks the Hub occasionally which pipeline the model is served by, and sends one input in a request, the documented form."""

    server: HfServer
    most_texts = 1
    max_bytes = 20_000_000

    def __init__(self, server: Server, options: ClassifyOptions) -> None:
        super().__init__(server, options)
        check_provider(self.target, PROVIDERS, TITLE)
        self._routes = HubRoutes(server, self.server.hub, self.target.model or "")

    def prepare(self) -> None:
        """Find the key for the Hub too, which is another origin than the router's."""
        super().prepare()
        self._routes.prepare()

    def classify(self, request: ClassifyRequest) -> Effects:
        """Label one input by the provider that serves the model."""
        self.refuse_pairs(request)
        self.check_one(request)
        pipeline = pipeline_of(request)
        route = yield from self._routes.choose({PROVIDERS[0]: (pipeline,)}, f"{TITLE} ({pipeline})")
        message = encode_hosted(model_url(self.server.url, route.model), request)
        message = dataclasses.replace(message, headers={**message.headers, **self.server.headers()})
        answer: ClassifyAnswer = decode_labels((yield from self.ask(message)), target=self.target.label)
        return dataclasses.replace(answer, provider=route.provider)

    def probe(self) -> Effects:
        """Ask the Hub for the model's providers; no model is called, since a call costs."""
        self._routes.forget()
        route = yield from self._routes.choose({PROVIDERS[0]: (TEXTS, ZERO_SHOT, IMAGES)}, TITLE)
        return ProbeReport(
            [route.model],
            f"served by {route.provider} ({route.pipeline}); whether the token may call it shows only with a call",
        )
