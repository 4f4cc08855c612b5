"""The chains for models that a caller names and no chain of the configuration has."""

from collections import OrderedDict
from collections.abc import Iterator

from hf_gateway.errors import ConfigError
from hf_gateway.gateway import Gateway
from hf_gateway.server.dispatch.chain import Chain, UnknownModel
from hf_gateway.settings.server import OpenModels
from hf_gateway.tasks.registry import find_task
from hf_gateway.values.target import is_path


class OpenChains:
    """Chains for models that no chain of the configuration has: the last ones that were used."""

    def __init__(self, settings: OpenModels, before: "OpenChains | None" = None, *, same_rules: bool = True) -> None:
        """Take over what was there.

        Args:
            settings: the targets that are asked, and how many chains are kept.
            before: what is replaced; its chains are kept, and shared with it, if the targets are the same.
            same_rules: whether gateways would be built as before.
        """
        self._settings = settings
        is_same = before is not None and same_rules and before._settings.targets == settings.targets
        self._kept: OrderedDict[tuple[str, str], Chain] = before._kept if before and is_same else OrderedDict()
        self.dropped: list[Chain] = before.dropped if before else []
        """Chains that are no longer kept, and are to be closed after the last request that uses them."""

    def __iter__(self) -> Iterator[Chain]:
        """Iterate over the chains that are kept."""
        return iter(tuple(self._kept.values()))

    @property
    def has_targets(self) -> bool:
        """Whether models that no chain has can be asked at all."""
        return bool(self._settings.targets)

    def find(self, model: str, task: str) -> Chain:
        """Return the chain of a model, made at its first use. Raises UnknownModel if it cannot be one.

        Args:
            model: a Hub id.
            task: the name of the task.
        """
        targets = self._settings.targets
        if not targets:
            raise UnknownModel(f"there is no model {model!r}, and [server.open] names no targets for other models")
        if is_path(model) or not _is_hub_id(model):
            raise UnknownModel(f"{model!r} is not the id of a model on the Hub, such as 'owner/name'")
        key = (task, model)
        chain = self._kept.pop(key, None)
        if chain is None:
            wanted = {"model": model, "targets": targets, "chain": "open"}
            try:
                settings = find_task(task).settings.model_validate(wanted)
                chain = Chain(model, task, Gateway.from_settings(settings), opened=True, dropped=self.dropped)
            except ConfigError as error:
                raise UnknownModel(f"the model {model!r} cannot be served: {error.message}") from None
            while len(self._kept) >= self._settings.max_models:
                self.dropped.append(self._kept.popitem(last=False)[1])
        self._kept[key] = chain
        return chain


def _is_hub_id(model: str) -> bool:
    parts = model.split("/")
    return len(parts) <= 2 and len(model) <= 200 and all(_is_name(part) for part in parts)


def _is_name(part: str) -> bool:
    return (
        bool(part)
        and part.isascii()
        and part.replace("-", "").replace("_", "").replace(".", "").isalnum()
        and not part.startswith((".", "-"))
    )
