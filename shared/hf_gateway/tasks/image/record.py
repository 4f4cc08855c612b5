"""What watchers may know of a request for images: never their bytes."""

from collections.abc import Mapping
from typing import Any

from hf_gateway.observing.record import RequestDetails
from hf_gateway.values.image import ImageRequest, ImageResult
from hf_gateway.values.task_facts import IMAGE
from hf_gateway.values.text import utf8_bytes
from hf_gateway.values.usage import Usage


class ImageDetails(RequestDetails[ImageRequest, ImageResult]):
    """A request for images, as the service of the task records it."""

    task = IMAGE

    def request_columns(self) -> Mapping[str, Any]:
        """Count the images."""
        return {"inputs": self.request.n}

    def ceiling(self) -> Usage:
        """Count the images, and the bytes of the prompt, since no text has more tokens than bytes."""
        texts = (self.request.prompt, self.request.negative_prompt or "")
        return Usage(sum(map(utf8_bytes, texts)) * self.request.n, images=self.request.n)

    def prompt(self) -> Any:
        """Return the prompt and the settings."""
        request = self.request
        return {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "n": request.n,
            "size": request.size,
            "steps": request.steps,
            "guidance_scale": request.guidance_scale,
            "seed": request.seed,
        }

    def answer(self) -> Any:
        """Return the type, size in bytes and seed of each image."""
        if self.result is None:
            return None
        return [{"mime": each.mime, "bytes": len(each.data), "seed": each.seed} for each in self.result.images]
