"""HFGatewaySelector: LlamaIndex's `BaseSelector` over a hf-gateway chain that judges the choices, without a prompt."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle
from llama_index.core.tools.types import ToolMetadata
from pydantic import Field, PrivateAttr, model_validator

from hf_gateway.errors import ConfigError, InvalidRequest
from hf_gateway.framework_base import ClassifyMixin, build_gateway
from hf_gateway.settings.classification import ClassifySettings

if TYPE_CHECKING:
    from hf_gateway.tasks.classification.gateway import ClassifyGateway
    from hf_gateway.values.labels import ClassifyResult


class HFGatewaySelector(ClassifyMixin, ClassifySettings, BaseSelector):  # type: ignore[misc]
    """Selects tools or query engines for a question, by a model that judges the description of each (zero-shot classification).

    `pip install "hf-gateway[llamaindex,torch]"`

    Examples:
        ```python
        from llama_index.core.query_engine import RouterQueryEngine
        from llamaindex_hf_gateway import HFGatewaySelector

        engine = RouterQueryEngine(
            selector=HFGatewaySelector(model="facebook/bart-large-mnli", targets=["hf", "local"]),
            query_engine_tools=tools,
        )
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
        labels: refused, like `multi_label` and `top_k`: the choices are the labels.
        multi_label: refused; see `select_multi`.
        hypothesis_template: the sentence that the model judges for each choice, with {} for its description or name.
        top_k: refused; see `max_outputs`.
        scale: the scale of the scores of the model's own labels: `"probability"`, or `"logit"`, from which it is made.
        truncate: truncate a question that is longer than the model accepts, instead of raising `ContextOverflow`.
        select_multi: select every choice with a score of at least `threshold`, and at least the best one.
        threshold: the lowest score of a choice that is selected besides the best one.
        max_outputs: how many choices are selected at most; None for any number.
        judge_by: what the model judges of each choice: its "description" or its "name".
    """

    select_multi: bool = Field(default=False, frozen=True)
    """Whether several choices may be selected."""
    threshold: Annotated[float, Field(ge=0, le=1)] = Field(default=0.5, frozen=True)
    """The lowest score of a choice that is selected besides the best one."""
    max_outputs: Annotated[int, Field(gt=0)] | None = Field(default=None, frozen=True)
    """How many choices are selected at most; None for any number."""
    judge_by: Literal["description", "name"] = Field(default="description", frozen=True)
    """What the model judges of each choice."""

    _gateway: "ClassifyGateway" = PrivateAttr()

    @model_validator(mode="after")
    def _choices_are_the_labels(self) -> Self:
        if self.labels is not None or self.multi_label or self.top_k is not None:
            raise ConfigError(
                "HFGatewaySelector has no use for labels, multi_label and top_k: its choices are the labels; select_multi and "
                "max_outputs decide how many are selected"
            )
        return self

    def model_post_init(self, _context: Any, /) -> None:
        """Build the chain, so that invalid settings fail here; nothing is loaded or connected to."""
        self._adopt(build_gateway(self, self.model))

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """Do nothing: there are no prompts."""

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        labels = self._labels(choices)
        if len(labels) == 1:
            return _only_choice()
        result = self._gateway.classify([query.query_str], labels, multi_label=self.select_multi)
        return self._selected(labels, result)

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        labels = self._labels(choices)
        if len(labels) == 1:
            return _only_choice()
        result = await self._gateway.aclassify([query.query_str], labels, multi_label=self.select_multi)
        return self._selected(labels, result)

    def _labels(self, choices: Sequence[ToolMetadata]) -> list[str]:
        """Return what the model judges of each choice; raises InvalidRequest for choices that it cannot tell apart."""
        if not choices:
            raise InvalidRequest("there are no choices to select from; nothing was classified")
        labels = [str(getattr(choice, self.judge_by) or "") for choice in choices]
        for index, label in enumerate(labels):
            if not label.strip():
                raise InvalidRequest(f"choice {index} of {len(labels)} has no {self.judge_by}; nothing was classified")
            if (first := labels.index(label)) != index:
                raise InvalidRequest(
                    f"choices {first} and {index} have the same {self.judge_by} {label[:80]!r}; nothing was classified"
                )
        return labels

    def _selected(self, labels: Sequence[str], result: "ClassifyResult") -> SelectorResult:
        best, *others = result[0]
        found = [best, *(each for each in others if each.score >= self.threshold)] if self.select_multi else [best]
        by = ", ".join(result.served_by)
        return SelectorResult(
            selections=[
                SingleSelection(
                    index=labels.index(each.label), reason=f"{self.judge_by} scored {each.score:.3f} by {by}"
                )
                for each in found[: self.max_outputs]
            ]
        )


def _only_choice() -> SelectorResult:
    return SelectorResult(selections=[SingleSelection(index=0, reason="the only choice")])
