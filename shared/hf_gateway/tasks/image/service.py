"""Makes images: n of them in as many requests as the target needs, in order."""

from collections.abc import Sequence
from typing import Any

from hf_gateway.tasks.image.record import ImageDetails
from hf_gateway.tasks.service import ResultArguments, TaskService
from hf_gateway.values.image import ImageRequest, ImageResult


class ImageService(TaskService[ImageRequest, ImageResult]):
    """Makes the images of one gateway's calls."""

    details = ImageDetails

    def result(
        self,
        request: ImageRequest,  # noqa: ARG002 - as for all tasks
        served: Sequence[tuple[Any, Any]],
        common: ResultArguments,
    ) -> ImageResult:
        """Put the images in order.

        Args:
            request: the whole request.
            served: (answer, candidate) of each part, in order.
            common: the fields that all results have.
        """
        return ImageResult(**common, images=tuple(image for answer, _ in served for image in answer.images))
