"""The gateway of classification: labels with scores for texts and images."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Self, Unpack

from hf_gateway.backends.classification import ClassifyAbility
from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.errors import InvalidRequest
from hf_gateway.gateway import Gateway
from hf_gateway.runtime.driver import Clock, Transport
from hf_gateway.settings.classification import ClassifyKeywords, ClassifySettings
from hf_gateway.settings.fields import TargetsInput
from hf_gateway.tasks.classification.candidate import ClassifyCandidate
from hf_gateway.tasks.classification.service import ClassifyService
from hf_gateway.values.labels import CONSEQUENCE, ClassifyRequest, ClassifyResult
from hf_gateway.values.target import Target


class ClassifyGateway(Gateway):
    """The gateway of `Gateway(..., task="classification")`: labels with scores for texts and images.

    Example:
        ```python
        from hf_gateway import ClassifyGateway

        with ClassifyGateway("facebook/bart-large-mnli") as gateway:
            result = gateway.classify(["My card was charged twice"], labels=["billing", "delivery"])
            print(result.best[0].label, result.best[0].score, result.served_by)
        ```
    """

    settings_class: ClassVar[type[ClassifySettings]] = ClassifySettings
    ability_class: ClassVar[type[ClassifyAbility]] = ClassifyAbility
    settings: ClassifySettings
    candidates: tuple[ClassifyCandidate, ...]

    if TYPE_CHECKING:  # otherwise the type checker would assume the default of `Gateway`

        def __new__(
            cls,
            model: str | None = None,
            targets: TargetsInput = None,
            *,
            transport: Transport | None = None,
            clock: Clock | None = None,
            **settings: Unpack[ClassifyKeywords],
        ) -> Self:
            """Build the chain; nothing is loaded or connected to."""

    def _build_candidates(
        self, abilities: Sequence[ClassifyAbility], given: Sequence[Target]
    ) -> list[ClassifyCandidate]:
        return [ClassifyCandidate(ability, alone=len(given) == 1) for ability in abilities]

    def _build_service(self) -> None:
        self._service = ClassifyService(self._chain, self._watch, self._finish)

    def classify(
        self,
        inputs: Iterable[str] | Iterable[tuple[str, str]] | Iterable[bytes],
        labels: Iterable[str] | None = None,
        *,
        multi_label: bool | None = None,
        hypothesis_template: str | None = None,
        top_k: int | None = None,
    ) -> ClassifyResult:
        """Classify n texts or n images; returns the labels of each, the most likely first.

        All inputs of one call are classified by the same target. Each argument has the setting of the same name as its default.

        Args:
            inputs: any iterable of strings, of pairs of strings for a model that judges pairs, or of images as bytes (PNG, JPEG,
                WebP, GIF); nothing is fetched from addresses.
            labels: the labels to choose from, for texts and a model for zero-shot classification.
            multi_label: whether each of `labels` is scored by itself; otherwise their scores add up to 1.
            hypothesis_template: the sentence that such a model judges, with {} for the label.
            top_k: how many labels to return for each input.

        Raises:
            InvalidRequest: an input is empty or not an image, or another argument is invalid; nothing was sent.
            ContextOverflow: a text is longer than the model accepts, unless `truncate`.
            GatewayError: the target's error, or AllTargetsFailed with one error per target.
        """
        request = self._request(inputs, labels, multi_label, hypothesis_template, top_k)
        result: ClassifyResult = self._run(self._service.steps(request))
        return result

    async def aclassify(
        self,
        inputs: Iterable[str] | Iterable[tuple[str, str]] | Iterable[bytes],
        labels: Iterable[str] | None = None,
        *,
        multi_label: bool | None = None,
        hypothesis_template: str | None = None,
        top_k: int | None = None,
    ) -> ClassifyResult:
        """Like `classify`, without blocking the event loop.

        Args:
            inputs: any iterable of strings, of pairs of strings, or of images as bytes.
            labels: the labels to choose from.
            multi_label: whether each of `labels` is scored by itself.
            hypothesis_template: the sentence to judge, with {} for the label.
            top_k: how many labels to return for each input.
        """
        request = self._request(inputs, labels, multi_label, hypothesis_template, top_k)
        result: ClassifyResult = await self._arun(self._service.steps(request))
        return result

    def _request(
        self,
        inputs: Iterable[str] | Iterable[tuple[str, str]] | Iterable[bytes],
        labels: Iterable[str] | None,
        multi_label: bool | None,
        hypothesis_template: str | None,
        top_k: int | None,
    ) -> ClassifyRequest:
        settings = self.settings
        labels = settings.labels if labels is None else labels
        if labels is None and (multi_label is not None or hypothesis_template is not None):
            raise InvalidRequest(
                f"multi_label and hypothesis_template are for labels, and none are given; {CONSEQUENCE}"
            )
        return ClassifyRequest.of(
            inputs,
            labels=labels,
            multi_label=settings.multi_label if multi_label is None else multi_label,
            hypothesis_template=settings.hypothesis_template if hypothesis_template is None else hypothesis_template,
            truncate=settings.truncate,
            top_k=settings.top_k if top_k is None else top_k,
            scale=settings.scale,
        )

    def _finish(self, result: ClassifyResult, attempt_log: AttemptLog) -> None:
        self._warn_of_fallback("classified by", ", ".join(result.served_by), attempt_log)
        self._observed(result)
