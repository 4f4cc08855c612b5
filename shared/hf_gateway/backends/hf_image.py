"""Images by Hugging Face Inference Providers, each in its own form."""

import dataclasses

from hf_gateway.backends.base import ProbeReport
from hf_gateway.backends.hf import HfServer
from hf_gateway.backends.hub_routes import HubRoutes, check_provider
from hf_gateway.backends.image import ImageAbility
from hf_gateway.errors import BadResponse, ConnectFailed, Overloaded, RateLimited, ServerError
from hf_gateway.hub import image_requests
from hf_gateway.runtime.effects import Compute, Effects, Pause
from hf_gateway.settings.image import ImageOptions
from hf_gateway.values.http import HttpRequest
from hf_gateway.values.image import ImageAnswer, ImageRequest
from hf_gateway.values.task_facts import IMAGE
from hf_gateway.values.usage import Usage
from hf_gateway.wire import images
from hf_gateway.wire.http import get
from hf_gateway.wire.provider_images import FORMS, Drawn, Pending, Step

PIPELINES = dict.fromkeys(FORMS, (IMAGE.price_task,))
"""The pipelines under which providers list models for images."""
FIRST_PAUSE_S = 0.5
"""Pause before a job is asked for the first time; it grows by half with each question."""
MAX_PAUSE_S = 4.0
QUESTION_TRIES = 4
"""How often in a row a question about a job may fail: the job goes on, and another request for it would cost again."""
_ORDERS_OWN = frozenset({"content-type", "accept", "prefer"})
"""Headers of a request for an image that a question about its job does not have."""


class HfImage(ImageAbility):
    """Asks the Hub occasionally which providers serve the model, and calls the first one by huggingface_hub's form of it."""

    server: HfServer

    def __init__(self, server: HfServer, options: ImageOptions) -> None:
        super().__init__(server, options)
        check_provider(self.target, tuple(FORMS), "images")
        assert self.target.model is not None
        self._model = self.target.model
        self._routes = HubRoutes(server, server.hub, self._model)

    def prepare(self) -> None:
        """Find the key for the Hub too, and import the providers' forms."""
        super().prepare()
        self._routes.prepare()
        image_requests.prepare()

    def draw(self, request: ImageRequest) -> Effects:
        """Make one image with the first provider that serves the model; waits for a job, and downloads what it made."""
        self.check_count(request)
        label = self.target.label
        route = yield from self._routes.choose(PIPELINES, "images")
        # On a thread: huggingface_hub looks at what is installed.
        message = yield Compute(lambda: image_requests.encode(self.server.url, route, self._model, request))
        message = dataclasses.replace(message, headers={**message.headers, **self.server.headers()})
        response = yield from self.send(message)
        drawn = yield from self._finished(FORMS[route.provider](response, label), route.provider, message)
        data = drawn.data
        if data is None:
            assert drawn.url is not None
            data = yield from self.fetch_image(drawn.url)
        return ImageAnswer(
            [images.image_of(data, target=label, seed=drawn.seed)],
            Usage(seconds=drawn.seconds),
            model=None,
            provider=route.provider,
            request_id=drawn.job or response.headers.get("x-request-id"),
        )

    def _finished(self, step: Step, provider: str, order: HttpRequest) -> Effects:
        """Ask for a job until it is done, within the attempt's time; returns a `Drawn`.

        Args:
            step: what the order was answered with.
            provider: who works on it.
            order: the request for the image, whose headers of the provider go with each question.
        """
        headers = {name: value for name, value in order.headers.items() if name not in _ORDERS_OWN}
        pause, failures = FIRST_PAUSE_S, 0
        while isinstance(step, Pending):
            yield Pause(pause)
            pause = min(pause * 1.5, MAX_PAUSE_S)
            question = get(f"{self.server.url}/{provider}{step.path}")
            question = dataclasses.replace(question, headers={**question.headers, **headers})
            try:
                step = FORMS[provider]((yield from self.send(question)), self.target.label)
                failures = 0
            except (ConnectFailed, Overloaded, RateLimited, ServerError) as error:
                failures += 1
                if isinstance(error, ServerError) and error.status is None:
                    raise  # the job itself failed
                if failures == QUESTION_TRIES:
                    # The error of a question is not that of the order, which would be sent again and cost again.
                    raise BadResponse(
                        f"its job could not be asked for: {error.message}",
                        target=self.target.label,
                        status=error.status,
                    ) from error
        assert isinstance(step, Drawn)
        return step

    def probe(self) -> Effects:
        """Ask the Hub for the model's providers; no image is made, since one costs."""
        self._routes.forget()
        route = yield from self._routes.choose(PIPELINES, "images")
        return ProbeReport(
            [route.model], f"served by {route.provider}; whether the token may call it shows only with a call"
        )
