"""Images by a dedicated Inference Endpoint."""

from hf_gateway.backends.base import ProbeReport
from hf_gateway.backends.image import ImageAbility
from hf_gateway.runtime.effects import Effects
from hf_gateway.values.image import ImageAnswer, ImageRequest
from hf_gateway.values.usage import Usage
from hf_gateway.wire import hf_inference, images
from hf_gateway.wire.http import get


class EndpointImage(ImageAbility):
    """Calls the root path of the inference toolkit, which answers with the bytes of one image."""

    def draw(self, request: ImageRequest) -> Effects:
        """Make one image."""
        self.check_count(request)
        response = yield from self.send(hf_inference.encode_text_to_image(f"{self.server.base_url}/", request))
        label = self.target.label
        made = images.image_of(images.decode_image(response, target=label), target=label)
        seconds = images.compute_seconds(response.headers.get("x-compute-time"))
        return ImageAnswer([made], Usage(seconds=seconds), request_id=response.headers.get("x-request-id"))

    def probe(self) -> Effects:
        """Ask `/health`; no image is made, since one costs."""
        response = yield from self.ask(get(f"{self.server.base_url}/health"))
        if not 200 <= response.status < 300:
            raise images.refusal(response, target=self.target.label)
        return ProbeReport([], "answers; its container does not report what it serves")
