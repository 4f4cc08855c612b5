"""Images by a server with OpenAI's API."""

from hf_gateway.backends.base import Server
from hf_gateway.backends.image import ImageAbility
from hf_gateway.backends.openai import OpenAIServer
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.image import ImageOptions
from hf_gateway.values.image import ImageAnswer, ImageRequest
from hf_gateway.wire import images, openai_images


class OpenAIImage(ImageAbility):
    """Calls `/v1/images/generations`."""

    server: OpenAIServer

    def __init__(self, server: Server, options: ImageOptions) -> None:
        super().__init__(server, options)
        self._asks_format = True

    def most_images(self, request: ImageRequest) -> int | None:
        """Return None; 1 for a request with a seed, since the seeds of further images would be the server's choice."""
        return 1 if request.seed is not None else None

    def draw(self, request: ImageRequest) -> Effects:
        """Make the images; those that the answer names by URLs are downloaded."""
        self.check_count(request)
        label, asks = self.target.label, self._asks_format
        url, model = self.server.base_url, self.target.model
        response = yield from self.send(openai_images.encode(url, model, request, response_format=asks), request.n)
        if asks and openai_images.refuses_response_format(response):
            response = yield from self.send(openai_images.encode(url, model, request, response_format=False), request.n)
            self._asks_format = not 200 <= response.status < 300
        found = openai_images.decode(response, request.n, target=label)
        made = []
        for named in found.images:
            data = named.data
            if data is None:
                assert named.url is not None
                data = yield from self.fetch_image(named.url)
            made.append(images.image_of(data, target=label, seed=named.seed))
        return ImageAnswer(made, found.usage, found.model, request_id=response.headers.get("x-request-id"))

    def probe(self) -> Effects:
        """List the models; no image is made, since one costs."""
        return self.server.list_models()
