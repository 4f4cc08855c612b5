"""Both forms of a call for images behind one name."""

import asyncio
from collections.abc import Sequence
from typing import Any

from hf_gateway import ImageGateway, ImageResult
from hf_gateway.testing import ManualClock
from tests.support.timed import shortest, within

MODEL = "test/image-model"
FORMS = ("sync", "async")


class ImageCaller:
    """A chain for images, called in one of FORMS. clock: stands still until somebody waits."""

    def __init__(self, form: str, targets: Sequence[Any], **settings: Any) -> None:
        """Build the chain."""
        self.form = form
        self.clock = settings.pop("clock", None) or ManualClock()
        self.limit = shortest(settings)
        self.gateway = ImageGateway(targets=list(targets), clock=self.clock, **{"model": MODEL, **settings})

    def generate(self, prompt: Any, **call: Any) -> ImageResult:
        """Draw; a limit of less than a second that was set has to hold."""
        with within(self.limit):
            if self.form == "async":
                return asyncio.run(self.gateway.agenerate(prompt, **call))
            return self.gateway.generate(prompt, **call)
