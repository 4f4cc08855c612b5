"""The gateway of text-to-image: makes images by the first target that can."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self, Unpack

from hf_gateway.backends.image import ImageAbility
from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.chain.timeouts import Policy
from hf_gateway.gateway import Gateway
from hf_gateway.runtime.driver import Clock, Transport
from hf_gateway.settings.fields import TargetsInput
from hf_gateway.settings.image import ImageKeywords, ImageSettings
from hf_gateway.tasks.image.candidate import ImageCandidate
from hf_gateway.tasks.image.service import ImageService
from hf_gateway.tasks.policies import policy_of
from hf_gateway.values.image import ImageRequest, ImageResult
from hf_gateway.values.target import Target


class ImageGateway(Gateway):
    """The gateway of `Gateway(..., task="image")`: makes images from texts.

    Example:
        ```python
        from hf_gateway import ImageGateway

        with ImageGateway("stabilityai/stable-diffusion-xl-base-1.0", targets=["hf", "local"]) as gateway:
            result = gateway.generate("An astronaut riding a horse on the moon", width=1024, height=1024)
            result[0].save(f"astronaut.{result[0].extension}")
            print(result.served_by, result.usage.images)
        ```
    """

    settings_class: ClassVar[type[ImageSettings]] = ImageSettings
    ability_class: ClassVar[type[ImageAbility]] = ImageAbility
    settings: ImageSettings
    candidates: tuple[ImageCandidate, ...]

    if TYPE_CHECKING:  # otherwise the type checker would assume the default of `Gateway`

        def __new__(
            cls,
            model: str | None = None,
            targets: TargetsInput = None,
            *,
            transport: Transport | None = None,
            clock: Clock | None = None,
            **settings: Unpack[ImageKeywords],
        ) -> Self:
            """Build the chain; nothing is loaded or connected to."""

    def _build_candidates(self, abilities: Sequence[ImageAbility], given: Sequence[Target]) -> list[ImageCandidate]:
        return [ImageCandidate(ability, alone=len(given) == 1) for ability in abilities]

    def _build_service(self) -> None:
        self._service = ImageService(self._chain, self._watch, self._finish)

    def _policy(self) -> Policy:
        return replace(policy_of(self.settings), next_on_content_filter=self.settings.next_on_content_filter)

    def generate(
        self,
        prompt: str,
        *,
        negative_prompt: str | None = None,
        n: int = 1,
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | None = None,
    ) -> ImageResult:
        """Make images from a text.

        A target that makes one image a request gets n requests, one after the other, with the seeds `seed` to `seed + n - 1`; the
        order of the images is that of their seeds. What a target has no parameter for, it ignores or refuses.

        Args:
            prompt: the description of the image.
            negative_prompt: what the image is not to show.
            n: how many images.
            width: pixels, with `height`; by default the setting, and the model's own size without one.
            height: pixels, with `width`.
            steps: steps of denoising.
            guidance_scale: how closely the image follows the prompt.
            seed: seed of the first image; by default the target's own choice.

        Raises:
            InvalidRequest: an argument is invalid; nothing was sent.
            ContentFiltered: a provider's policy refused, unless `next_on_content_filter`.
            GatewayError: the target's error, or AllTargetsFailed with one error per target.
        """
        result: ImageResult = self._run(
            self._service.steps(self._request(prompt, negative_prompt, n, width, height, steps, guidance_scale, seed))
        )
        return result

    async def agenerate(
        self,
        prompt: str,
        *,
        negative_prompt: str | None = None,
        n: int = 1,
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | None = None,
    ) -> ImageResult:
        """Like `generate`, without blocking the event loop.

        Args:
            prompt: the description of the image.
            negative_prompt: what the image is not to show.
            n: how many images.
            width: pixels, with `height`.
            height: pixels, with `width`.
            steps: steps of denoising.
            guidance_scale: how closely the image follows the prompt.
            seed: seed of the first image.
        """
        result: ImageResult = await self._arun(
            self._service.steps(self._request(prompt, negative_prompt, n, width, height, steps, guidance_scale, seed))
        )
        return result

    def _request(
        self,
        prompt: str,
        negative_prompt: str | None,
        n: int,
        width: int | None,
        height: int | None,
        steps: int | None,
        guidance_scale: float | None,
        seed: int | None,
    ) -> ImageRequest:
        own = self.settings
        if width is None and height is None:
            width, height = own.width, own.height
        return ImageRequest(
            prompt,
            own.negative_prompt if negative_prompt is None else negative_prompt,
            n,
            width,
            height,
            own.steps if steps is None else steps,
            own.guidance_scale if guidance_scale is None else guidance_scale,
            seed,
            own.truncate,
        )

    def _finish(self, result: ImageResult, attempt_log: AttemptLog) -> None:
        self._warn_of_fallback("made by", ", ".join(result.served_by), attempt_log)
        self._observed(result)
