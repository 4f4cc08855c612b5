"""What watchers may know of a classification."""

from collections.abc import Mapping
from typing import Any

from hf_gateway.observing.record import RequestDetails
from hf_gateway.values.image_type import image_type
from hf_gateway.values.labels import ClassifyRequest, ClassifyResult
from hf_gateway.values.task_facts import CLASSIFICATION
from hf_gateway.values.text import utf8_bytes
from hf_gateway.values.usage import Usage

SPECIAL_TOKENS = 8
"""Maximum that a model puts around a text, or around a pair of texts."""


class ClassifyDetails(RequestDetails[ClassifyRequest, ClassifyResult]):
    """A classification, as the service of the task records it."""

    task = CLASSIFICATION

    def request_columns(self) -> Mapping[str, Any]:
        """Count the texts or images."""
        return {"inputs": len(self.request.inputs)}

    def ceiling(self) -> Usage:
        """Count the images, or the texts' bytes: each input is read once, or once with the sentence of each given label."""
        texts, hypotheses = self.request.texts, self.request.hypotheses or [""]
        read = len(hypotheses) * sum(map(utf8_bytes, (*texts, *self.request.seconds)))
        around = len(texts) * sum(utf8_bytes(each) + SPECIAL_TOKENS for each in hypotheses)
        return Usage(read + around, documents=len(texts), images=len(self.request.images))

    def prompt(self) -> Any:
        """Return the texts and the given labels; of images their type and size, never their bytes."""
        request = self.request
        if request.images:
            return {"images": [{"type": image_type(image), "bytes": len(image)} for image in request.images]}
        return {
            "texts": list(request.pairs or request.texts),
            **({"labels": list(request.labels)} if request.labels else {}),
        }

    def answer(self) -> Any:
        """Return the labels and scores of each input, the most likely first."""
        if self.result is None:
            return None
        return [[[each.label, each.score] for each in labels] for labels in self.result.labels]
