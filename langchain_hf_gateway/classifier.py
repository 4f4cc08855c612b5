"""HFGatewayClassifier: labels with scores as a step of LangChain's chains, for routing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import PrivateAttr
from typing_extensions import TypedDict  # pydantic refuses typing's before Python 3.12

from hf_gateway.errors import ContentFiltered, GatewayError, InvalidRequest
from hf_gateway.framework_base import ClassifyMixin, build_gateway
from hf_gateway.settings.classification import ClassifySettings
from langchain_hf_gateway.errors import as_model_errors

if TYPE_CHECKING:
    from hf_gateway.tasks.classification.gateway import ClassifyGateway
    from hf_gateway.values.labels import ClassifyResult, Label


class LabelScore(TypedDict):
    """A label and its score."""

    label: str
    """Its name."""
    score: float
    """Higher is more likely."""


class Classified(TypedDict):
    """What the classifier returns for an input."""

    input: Any
    """The input itself, for the next step."""
    label: str
    """The most likely label."""
    score: float
    """Its score."""
    labels: list[LabelScore]
    """All labels that the target returned, or the first `top_k`, the most likely first."""


class HFGatewayClassifier(ClassifyMixin, ClassifySettings, RunnableSerializable[str | bytes, Classified]):
    """Labels of a text or an image by a Hugging Face model, from the first of its targets that can serve.

    A runnable: `invoke` returns a dict with `input`, `label`, `score` and `labels`, by which a `RunnableBranch` or a function
    chooses the next step. `batch` classifies all its inputs by one call of the gateway.

    Setup:
        ```bash
        pip install "hf-gateway[langchain,torch]"
        ```

    Example:
        ```python
        from langchain_core.runnables import RunnableBranch
        from langchain_hf_gateway import HFGatewayClassifier

        classifier = HFGatewayClassifier(
            model="facebook/bart-large-mnli",
            targets=["hf", "local"],
            labels=["billing", "delivery"],
        )
        route = classifier | RunnableBranch(
            (lambda found: found["label"] == "billing", lambda found: f"to accounting: {found['input']}"),
            lambda found: f"to support: {found['input']}",
        )
        print(route.invoke("My card was charged twice"))
        ```

    Args:
        model: Hub id of the model, or a folder.
        targets: where to go, in this order, such as "local", "hf" or "tei:http://localhost:8080".
        revision: commit, branch or tag of the model, for targets that load it themselves.
        api_key: a Hugging Face token, sent to Hugging Face alone; or the key of the one server of your own in `targets`.
        timeout: seconds for one request over all targets and retries.
        attempt_timeout: seconds for one call to one target.
        connect_timeout: seconds to connect.
        max_retries: how often one target is asked again after a failure that may pass.
        config: the config file whose `[keys]` hold; `from_config` fills it in.
        chain: what the chain is called in ledgers and metrics; `from_config` fills it in.
        labels: the labels to choose from, for texts and a model for zero-shot classification; by default the model's own.
        multi_label: whether each of `labels` is scored by itself; otherwise their scores add up to 1.
        hypothesis_template: the sentence that such a model judges, with {} for the label.
        top_k: how many labels are returned for each input; None for all.
        scale: the scale of the scores of the model's own labels: `"probability"`, or `"logit"`, from which it is made.
        truncate: truncate a text that is longer than the model accepts, instead of raising `ContextOverflow`.

    Errors are hf-gateway's own, and at the same time the matching subclass of `langchain_core.exceptions.ModelError`.
    """

    _gateway: "ClassifyGateway" = PrivateAttr()

    def model_post_init(self, _context: Any, /) -> None:
        """Build the chain, so that invalid settings fail here; nothing is loaded or connected to."""
        self._adopt(build_gateway(self, self.model))

    def invoke(self, input: str | bytes, config: RunnableConfig | None = None, **kwargs: Any) -> Classified:  # noqa: A002
        """Classify a text, or an image as bytes.

        Args:
            input: the text or the image.
            config: LangChain's own.
            kwargs: arguments of `ClassifyGateway.classify`, such as `labels`.
        """
        return self._call_with_config(self._one, input, config, **kwargs)

    async def ainvoke(
        self,
        input: str | bytes,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Classified:
        """Like `invoke`, without blocking the event loop.

        Args:
            input: the text or the image.
            config: LangChain's own.
            kwargs: arguments of `ClassifyGateway.classify`.
        """
        return await self._acall_with_config(self._aone, input, config, **kwargs)

    def batch(
        self,
        inputs: list[str | bytes],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Classified]:
        """Classify texts, or images, by one call of the gateway.

        Args:
            inputs: all texts, or all images.
            config: LangChain's own.
            return_exceptions: return the error of an input in its place instead of raising it; inputs that are refused are
                found by dividing the batch, so that the others are classified.
            kwargs: arguments of `ClassifyGateway.classify`.
        """
        run: Any = self._each if return_exceptions else self._many
        return self._batch_with_config(run, inputs, config, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[str | bytes],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Classified]:
        """Like `batch`, without blocking the event loop.

        Args:
            inputs: all texts, or all images.
            config: LangChain's own.
            return_exceptions: return the error of an input in its place instead of raising it.
            kwargs: arguments of `ClassifyGateway.classify`.
        """
        run: Any = self._aeach if return_exceptions else self._amany
        return await self._abatch_with_config(run, inputs, config, return_exceptions=return_exceptions, **kwargs)

    def _one(self, value: str | bytes, **arguments: Any) -> Classified:
        return self._many([value], **arguments)[0]

    async def _aone(self, value: str | bytes, **arguments: Any) -> Classified:
        return (await self._amany([value], **arguments))[0]

    def _many(self, values: Sequence[Any], **arguments: Any) -> list[Classified]:
        with as_model_errors():
            return _described(values, self._gateway.classify(values, **arguments))

    async def _amany(self, values: Sequence[Any], **arguments: Any) -> list[Classified]:
        with as_model_errors():
            return _described(values, await self._gateway.aclassify(values, **arguments))

    def _each(self, values: Sequence[Any], **arguments: Any) -> list[Classified | GatewayError]:
        """Classify a batch; if some of its inputs are refused, the others by themselves."""
        try:
            return list(self._many(values, **arguments))
        except GatewayError as failure:
            parts = _divided(values, failure)
            if not parts:
                return [failure] * len(values)
        return [found for part in parts for found in self._each(part, **arguments)]

    async def _aeach(self, values: Sequence[Any], **arguments: Any) -> list[Classified | GatewayError]:
        """Like `_each`, without blocking the event loop."""
        try:
            return list(await self._amany(values, **arguments))
        except GatewayError as failure:
            parts = _divided(values, failure)
            if not parts:
                return [failure] * len(values)
        return [found for part in parts for found in await self._aeach(part, **arguments)]


def _divided(values: Sequence[Any], failure: GatewayError) -> list[Sequence[Any]]:
    """Return the halves of a batch if its failure may be about some of its inputs only; otherwise nothing."""
    reasons = getattr(failure, "errors", (failure,))
    if len(values) < 2 or not any(isinstance(each, InvalidRequest | ContentFiltered) for each in reasons):
        return []
    middle = len(values) // 2
    return [values[:middle], values[middle:]]


def _described(values: Sequence[Any], result: "ClassifyResult") -> list[Classified]:
    return [
        Classified(
            input=value, label=labels[0].label, score=labels[0].score, labels=[_label_score(each) for each in labels]
        )
        for value, labels in zip(values, result, strict=True)
    ]


def _label_score(label: "Label") -> LabelScore:
    return LabelScore(label=label.label, score=label.score)
