"""Base classes of the frameworks' classes: the chain behind them, built when an instance is made and not before.

Importing a class imports only the settings; the rest of the core is imported with the first instance.
"""

import contextlib
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from hf_gateway.errors import ConfigError, GatewayError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Self

    from hf_gateway.gateway import Gateway
    from hf_gateway.settings.base import ChainOptions
    from hf_gateway.spaces.index_lock import IndexLock
    from hf_gateway.spaces.stored_vectors import StoredVector
    from hf_gateway.tasks.chat.gateway import ChatGateway
    from hf_gateway.tasks.classification.gateway import ClassifyGateway
    from hf_gateway.tasks.embedding.gateway import EmbeddingGateway
    from hf_gateway.tasks.image.gateway import ImageGateway
    from hf_gateway.tasks.rerank.gateway import RerankGateway
    from hf_gateway.tasks.sparse.gateway import SparseGateway
    from hf_gateway.tasks.status import TargetStatus
    from hf_gateway.values.embedding import Role
    from hf_gateway.values.image import ImageResult
    from hf_gateway.values.rerank import RerankResult, Scale
    from hf_gateway.values.vector_space import VectorSpace
    from hf_gateway.vector_gateway import VectorGateway

GatewayT = TypeVar("GatewayT", bound="Gateway")
VectorGatewayT = TypeVar("VectorGatewayT", bound="VectorGateway")


def build_gateway(options: "ChainOptions", model: str | None) -> Any:
    """Build the chain that an instance's arguments describe; nothing is loaded or connected to.

    Args:
        options: the instance, whose class names its `task`.
        model: the model's name, for which frameworks have names of their own.

    Returns:
        The gateway of that task.

    Raises:
        ConfigError: invalid arguments.
    """
    from hf_gateway.tasks.registry import find_task

    task = find_task(options.task)
    return task.gateway_class.from_settings(task.settings.of(options, model))


def refuse_other_task(gateway: "Gateway", task: str, name: str) -> None:
    """Raise ConfigError for a gateway whose task is not that of the class.

    Args:
        gateway: the gateway.
        task: the task of the class.
        name: the name of the class.
    """
    from hf_gateway.tasks.registry import find_task

    if not isinstance(gateway.settings, find_task(task).settings):
        raise ConfigError(
            f"{name} is for {task}, and this gateway was built for {gateway.task}; build it as Gateway(..., task={task!r})"
        )


if TYPE_CHECKING:

    class _Over(Generic[GatewayT]):
        """Names the class of the gateway, for type checkers."""

else:

    class _Over:
        """At runtime no generic class: pydantic warns of one before its own base class."""

        def __class_getitem__(cls, _gateway: Any) -> type:
            return cls


class GatewayMixin(_Over[GatewayT]):
    """Public members of an instance for the chain behind it, which is in `_gateway`.

    A framework's class derives from it, from the settings of its task and from the framework's own base class, declares the
    private attribute `_gateway`, and calls `self._adopt(build_gateway(self, self.model))` when its fields are set.
    """

    task: ClassVar[str]
    """Name of the task."""
    _gateway: GatewayT
    _model_field: ClassVar[str] = "model"
    """The field with the model's name, for which frameworks have names of their own."""
    _unnamed_model: ClassVar[str | None] = None
    """The value of that field where no model is named."""

    @property
    def gateway(self) -> GatewayT:
        """The chain itself; its methods return the target that served, the usage and the attempts, too."""
        return self._gateway

    def status(self) -> "list[TargetStatus]":
        """Return of each target whether it may be called now. Sends no request."""
        return self._gateway.status()

    @classmethod
    def from_gateway(cls, gateway: GatewayT, **fields: Any) -> "Self":
        """Use an existing gateway, with its connections and its model.

        Args:
            gateway: a gateway of the same task.
            fields: the framework's own arguments.

        Raises:
            ConfigError: the gateway is for another task.
        """
        refuse_other_task(gateway, cls.task, cls.__name__)
        settings = gateway.settings
        given = {name: getattr(settings, name) for name in settings.model_fields_set - {"model"}}
        made = cls(**{**given, cls._model_field: gateway.model or cls._unnamed_model, **fields})
        made._adopt(gateway)
        return made

    def _adopt(self, gateway: GatewayT) -> None:
        """Use a gateway, and show its model and targets, which may come from the environment."""
        self._gateway = gateway
        self.__dict__.update({"targets": gateway.targets, self._model_field: gateway.model or self._unnamed_model})


class ChatMixin(GatewayMixin["ChatGateway"]):
    """The same for chat."""

    _gateway: "ChatGateway"


class ImageMixin(GatewayMixin["ImageGateway"]):
    """The same for images."""

    _gateway: "ImageGateway"

    def _summary(self, result: "ImageResult") -> str:
        """Return what was made, in words for an agent's model."""
        made = ", ".join(f"{image.mime}, {len(image.data):,} bytes" for image in result)
        model = f" with {self._gateway.model}" if self._gateway.model else ""
        return f"Generated {len(result)} image{'' if len(result) == 1 else 's'}{model}: {made}"


class ClassifyMixin(GatewayMixin["ClassifyGateway"]):
    """The same for labels."""

    _gateway: "ClassifyGateway"


class RerankMixin(GatewayMixin["RerankGateway"]):
    """The same for reranking."""

    _gateway: "RerankGateway"

    def _rank(self, query: str, texts: "Sequence[str]") -> "tuple[list[tuple[int, float | None]], Scale]":
        """Rank texts, blank ones last and without a score; returns the index and score of each, best first, and the scale.

        Args:
            query: what is searched for.
            texts: the texts; a retriever may have found some without a character.
        """
        places = _not_blank(texts)
        with _named_among(query, texts, places):
            result = self._gateway.rerank(query, [texts[place] for place in places])
        return _ranks(result, places, len(texts), self._gateway.settings.top_n)

    async def _arank(self, query: str, texts: "Sequence[str]") -> "tuple[list[tuple[int, float | None]], Scale]":
        """Like `_rank`, without blocking the event loop.

        Args:
            query: what is searched for.
            texts: the texts.
        """
        places = _not_blank(texts)
        with _named_among(query, texts, places):
            result = await self._gateway.arerank(query, [texts[place] for place in places])
        return _ranks(result, places, len(texts), self._gateway.settings.top_n)


def _not_blank(texts: "Sequence[str]") -> list[int]:
    return [place for place, text in enumerate(texts) if text and not text.isspace()]


@contextlib.contextmanager
def _named_among(query: str, texts: "Sequence[str]", places: list[int]) -> "Iterator[None]":
    """Have an error about a text name its index among all texts, blank ones included."""
    try:
        yield
    except GatewayError as failure:
        if len(places) == len(texts):
            raise
        from hf_gateway.tasks.blamed_text import name_input
        from hf_gateway.values.rerank import RerankRequest

        sent, given = RerankRequest(query, [texts[place] for place in places]), RerankRequest(query, texts)
        raise name_input(failure, sent, given, "document") from failure.__cause__


def _ranks(
    result: "RerankResult", places: list[int], count: int, top_n: int | None
) -> "tuple[list[tuple[int, float | None]], Scale]":
    """Return the ranks of all texts: the scored ones, and those that are blank in their order, top_n at most."""
    scored = [(places[hit.index], hit.score) for hit in result]
    blank = [(place, None) for place in sorted(set(range(count)) - set(places))]
    return [*scored, *blank][:top_n], result.scale


class VectorMixin(GatewayMixin[VectorGatewayT]):
    """The same for all tasks whose answers are vectors."""

    @property
    def space(self) -> "VectorSpace":
        """The vector space; its `id` is a namespace for caches and indexes."""
        return self._gateway.space

    def model_copy(self, *, update: "Mapping[str, Any] | None" = None, deep: bool = False) -> "Self":
        """Return a copy, with changes if there are any; it is bound to the same space and the same index locks.

        Args:
            update: fields to change.
            deep: whether to copy values, as in pydantic.

        Raises:
            SpaceMismatch: with the changes it could not return vectors of that space.
        """
        copied: Self = super().model_copy(update=update, deep=deep)  # type: ignore[misc]
        if update:
            copied._gateway.bind_space(self._gateway.space_binding)
        return copied


class SparseMixin(VectorMixin["SparseGateway"]):
    """The same for sparse embeddings."""

    _gateway: "SparseGateway"


class EmbeddingMixin(VectorMixin["EmbeddingGateway"]):
    """The same for embeddings."""

    _gateway: "EmbeddingGateway"

    def embed_stream(
        self, texts: "Iterable[str]", *, role: "Role" = "document"
    ) -> "Generator[list[float], None, None]":
        """Embed any number of texts as they arrive; yields dim floats for each, in order, with bounded memory.

        An error is raised after the vectors of all texts before it; see `EmbeddingGateway.embed_stream`.

        Args:
            texts: the texts to embed.
            role: "document" or "query".
        """
        with self._translated_errors():
            yield from self._gateway.embed_stream(texts, role=role)

    async def aembed_stream(
        self, texts: "Iterable[str] | AsyncIterable[str]", *, role: "Role" = "document"
    ) -> "AsyncGenerator[list[float], None]":
        """Like `embed_stream`, without blocking the event loop; also for async iterables.

        Args:
            texts: the texts to embed.
            role: "document" or "query".
        """
        with self._translated_errors():
            async with contextlib.aclosing(self._gateway.aembed_stream(texts, role=role)) as rows:
                async for row in rows:
                    yield row

    def _translated_errors(self) -> "AbstractContextManager[None]":
        """Translate errors to the framework's classes, if it has any."""
        return contextlib.nullcontext()

    def lock_index(
        self, path: "str | Path", *, adopt: bool = False, stored: "Iterable[StoredVector]" = ()
    ) -> "IndexLock":
        """Lock an index, which is a folder, to the vector space: written the first time, compared from then on.

        Sends no request, unless `stored` has texts.

        Args:
            path: the folder.
            adopt: accept a folder that has files and no `space.json`, because you know that it was made with this space.
            stored: texts of the index with their vectors there. Up to seven of them are embedded again, as documents, and an
                index whose vectors are others is not locked.

        Raises:
            SpaceMismatch: the index is of another space.
            ConfigError: see `EmbeddingGateway.lock_index`.
            GatewayError: the texts of `stored` cannot be embedded; nothing was locked.
        """
        return self._gateway.lock_index(path, adopt=adopt, stored=stored)
