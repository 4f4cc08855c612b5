"""A target for images, with the checks of every answer."""

from dataclasses import dataclass, replace

from hf_gateway.backends.image import ImageAbility
from hf_gateway.errors import BadResponse
from hf_gateway.runtime.effects import Effects
from hf_gateway.tasks.candidate import TargetCandidate
from hf_gateway.values.image import ImageAnswer, ImageRequest
from hf_gateway.values.wording import quantity


@dataclass(eq=False)
class ImageCandidate(TargetCandidate):
    """A target for images."""

    ability: ImageAbility
    """Its ability."""

    def answer(self, request: ImageRequest) -> Effects:
        """Make the images; their number has to be right, and none may be too large."""
        answer: ImageAnswer = yield from self.ability.draw(request)
        if len(answer.images) != request.n:
            raise BadResponse(
                f"answered with {quantity(len(answer.images), 'image')} where {request.n} were asked for",
                target=self.label,
            )
        most = self.ability.options.max_image_bytes
        for image in answer.images:
            if len(image.data) > most:
                raise BadResponse(
                    f"answered with an image of {len(image.data):,} bytes, more than max_image_bytes ({most:,})",
                    target=self.label,
                )
        first = request.seed
        images = tuple(
            image if first is None or image.seed is not None else replace(image, seed=first + place)
            for place, image in enumerate(answer.images)
        )
        usage = replace(answer.usage, images=request.n)
        return replace(answer, images=images, usage=usage, model=answer.model or self.target.model)
